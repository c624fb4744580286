"""What `heron profile run` refuses before it sends the engine anything.

Rule: rows may not be of the wrong GPUs, nor of a point that no file may hold: a sweep takes a quarter of an
hour, and a site keeps its cap by its watts.
"""

from __future__ import annotations

import argparse
import math
import socket
from collections.abc import Sequence

from fleet.profiles.measured_points import CLOCK_TOLERANCE
from replay.profile_sweep import Document, SweepError

CLOCKS_MHZ = (100, 20_000)
MOST_RUNNING_REQUESTS = 1 << 16
MOST_TOKENS = 1 << 30
MOST_SECONDS = 86_400.0
"""All of these as `fleet.profiles.document.Row` has them."""


def check_arguments(arguments: argparse.Namespace, *, host: str) -> None:
    """`host`: the engine's.

    Raises:
        SweepError: what is wrong, and what is allowed.
    """
    for name, values, least, most in (
        ("--batches", arguments.batches, 1, MOST_RUNNING_REQUESTS),
        ("--prompts", arguments.prompts, 1, MOST_TOKENS),
        ("--output-tokens", (arguments.output_tokens,), 1, MOST_TOKENS),
        ("--max-batched-tokens", _given(arguments.max_batched_tokens), 1, MOST_TOKENS),
        ("--clocks", arguments.clocks, *CLOCKS_MHZ),
    ):
        for value in values:
            if not least <= value <= most:
                raise SweepError(f"{name}: {value}: {least} to {most} are allowed")
    if not (math.isfinite(arguments.seconds) and 0 < arguments.seconds <= MOST_SECONDS):
        raise SweepError(f"--seconds: {arguments.seconds:g}: above 0, up to {MOST_SECONDS:g}")
    if arguments.gpus:
        _check_gpus(arguments.gpus, arguments.tensor_parallel_degree, host)


def _given(value: int | None) -> tuple[int, ...]:
    return () if value is None else (value,)


def _check_gpus(gpus: Sequence[int], degree: int | None, host: str) -> None:
    told = ",".join(map(str, gpus))
    if len(set(gpus)) != len(gpus):
        raise SweepError(f"--gpus {told}: a GPU is named twice")
    if degree is not None and degree != len(gpus):
        raise SweepError(
            f"--gpus {told}: {len(gpus)} of them, --tensor-parallel-degree is {degree}: name all of the "
            "engine's GPUs and no other"
        )
    if not is_here(host):
        raise SweepError(
            f"--gpus reads this machine's GPUs, and {host} is none of its addresses: run heron on the "
            "engine's machine, or leave --gpus out"
        )


def is_here(host: str) -> bool:
    """Whether it names this machine: no other's address can be bound."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in found:
        try:
            with socket.socket(family, kind) as trial:
                trial.bind(address)
        except OSError:
            continue
        return True
    return False


def check_full_clock(clocks: Sequence[int], document: Document) -> None:
    """Whether the file will have rows at full clock, without which no site takes it.

    Raises:
        SweepError: neither `clocks` nor the rows of earlier runs are at full clock.
    """
    full = document.engine.full_clock_mhz
    if full is None or not clocks or any(row.clock_mhz is None for row in document.rows):
        return
    highest = max(*clocks, *(row.clock_mhz or 0 for row in document.rows), 0)
    if highest < full * (1 - CLOCK_TOLERANCE):
        raise SweepError(
            f"--clocks: none is the GPUs' full clock, {full} MHz, without which no site takes the file: "
            f"--clocks {','.join(map(str, (full, *clocks)))}"
        )
