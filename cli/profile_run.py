"""`heron profile run`: measures an engine through its API and writes what it found, and where it comes from.

Interrupted (Ctrl-C, SIGTERM, a terminal that is closed), it gives the GPUs' clocks back and keeps what it
has; run again with the same arguments it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from cli import exit_codes, profile_facts, profile_limits
from cli.files import check_writable
from cli.signals import run_until_told, signals_held
from fleet.config import ConfigError
from fleet.profile_file import FILE_SUFFIX, read_bytes
from fleet.profiles.document import ProfileDocumentError, Row
from fleet.profiles.measured_points import told_slow_clock
from fleet.version import extra_hint, installed_version
from replay import profile_sweep
from replay.client import Endpoint
from replay.profile_run import Meter, NoMeter, sweep
from replay.profile_sweep import Document, SweepError
from replay.prompts import PromptSource, TokenIdPrompts, WordPrompts

API_KEY_VARIABLE = "OPENAI_API_KEY"
ASK_SECONDS = 10.0
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which engine, which points, where to."""
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="the engine's API (default %(default)s)"
    )
    parser.add_argument("--model", help="default: the one model that it lists")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .json; gone on with if there"
    )
    parser.add_argument(
        "--batches", type=numbers, default=(1, 2, 4, 8, 16, 32, 64), metavar="N,N", help="running requests"
    )
    parser.add_argument(
        "--prompts", type=numbers, default=(512, 2048), metavar="N,N", help="prompt tokens (512,2048)"
    )
    parser.add_argument(
        "--clocks",
        type=numbers,
        default=(),
        metavar="MHZ,MHZ",
        help="lock the GPUs at each; needs root, and never beside an agent; without it they are only read",
    )
    parser.add_argument(
        "--gpus", type=numbers, default=(), metavar="N,N", help="the engine's GPUs, here: their power is read"
    )
    parser.add_argument(
        "--tensor-parallel-degree", type=int, metavar="N", help="GPUs of the engine (as many as --gpus)"
    )
    parser.add_argument(
        "--max-batched-tokens",
        type=int,
        metavar="N",
        help="the engine's --max-num-batched-tokens, which its log says (2048 assumed)",
    )
    parser.add_argument("--output-tokens", type=int, default=256, metavar="N", help="of each request (256)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="each point's window (20)")
    parser.add_argument(
        "--vocabulary-size", type=int, metavar="N", help="send token ids (exact lengths), not words"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the result (.png, .svg or .pdf; needs matplotlib)"
    )


def numbers(text: str) -> tuple[int, ...]:
    """`1,8,64`."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between them") from None
    if any(value < 0 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}: none may be negative")
    return values


def run(arguments: argparse.Namespace) -> int:
    """Measure; 1 where the engine fails (what was measured is kept), 130 when interrupted.

    Raises:
        ConfigError: arguments or the file that is there.
    """
    _check_file("--out", arguments.out, (FILE_SUFFIX,))
    if arguments.plot is not None:
        _check_file("--plot", arguments.plot, PLOT_SUFFIXES)
    if arguments.plot is not None and find_spec("matplotlib") is None:
        raise ConfigError(f"--plot needs matplotlib: {extra_hint('simulate')}")
    try:
        endpoint = Endpoint.parse(arguments.url)
        profile_limits.check_arguments(arguments, host=endpoint.origin.host)
        points = profile_sweep.points(arguments.batches, arguments.prompts, arguments.clocks or (None,))
        engine = ask_engine(endpoint, arguments.model)
        document = _document(arguments, engine)
        profile_limits.check_full_clock(arguments.clocks, document)
        meter = _meter(arguments, document)
    except ValueError as error:
        raise ConfigError(f"heron profile run: {error}") from None
    missing = document.missing(points)
    print(f"{len(points)} points, {len(points) - len(missing)} measured before; {arguments.out}")
    try:
        with signals_held():
            sweeping = _sweep(arguments, endpoint, engine["model"], document, points, meter)
            is_interrupted = asyncio.run(run_until_told(sweeping))
    except SweepError as error:
        kept = f"what was measured is in {arguments.out}"
        print(f"heron profile run: {error}; {kept if arguments.out.exists() else 'nothing was measured'}")
        return exit_codes.BAD_RUN
    if is_interrupted:
        print(f"interrupted; run it again to go on: {len(document.missing(points))} points are left")
        return exit_codes.INTERRUPTED
    print("\n".join(profile_sweep.lines(document.rows)))
    if arguments.plot is not None:
        from cli.profile_plot import plot

        plot(document, arguments.plot)
    return exit_codes.DONE


def _check_file(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        raise ConfigError(f"{option} {path}: must end in {' or '.join(suffixes)}")
    check_writable(option, path)


async def _sweep(
    arguments: argparse.Namespace,
    endpoint: Endpoint,
    model: str,
    document: Document,
    points: Sequence[profile_sweep.Point],
    meter: Meter,
) -> None:
    prompts: PromptSource = WordPrompts(model, is_exact=False, ignore_eos=True)
    if arguments.vocabulary_size is not None:
        prompts = TokenIdPrompts(model, vocabulary_size=arguments.vocabulary_size)

    async def keep() -> None:
        write(document, arguments.out)

    def on_row(row: Row, number: int, of: int) -> None:
        print(f"[{number}/{of}] {profile_sweep.lines([row])[1].strip()}", flush=True)
        if slow := told_slow_clock(row, document.engine.full_clock_mhz):
            print(f"warning: {slow}", flush=True)

    await sweep(
        document,
        points,
        endpoint=endpoint,
        prompts=prompts,
        api_key=os.environ.get(API_KEY_VARIABLE),
        output_tokens=arguments.output_tokens,
        seconds=arguments.seconds,
        meter=meter,
        keep=keep,
        on_row=on_row,
    )


def ask_engine(endpoint: Endpoint, model: str | None) -> dict[str, Any]:
    """The model to ask for, and what the engine says of itself.

    Raises:
        SweepError: it does not answer, or has not that one model.
    """
    headers = {}
    if key := os.environ.get(API_KEY_VARIABLE):
        headers["authorization"] = f"Bearer {key}"
    base = str(endpoint.origin)
    with httpx.Client(headers=headers, timeout=ASK_SECONDS, trust_env=False) as http:
        try:
            answer = http.get(f"{base}{endpoint.root}/models")
            cards = answer.raise_for_status().json()["data"]
            names = [str(card["id"]) for card in cards]
            version, metrics = http.get(f"{base}/version"), http.get(f"{base}/metrics")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise SweepError(f"{base}: {error}") from None
    if model is None and len(names) != 1:
        raise SweepError(f"{base} lists {', '.join(names) or 'no model'}: say which with --model")
    if model is not None and model not in names:
        raise SweepError(f"{base} lists {', '.join(names)}, not {model!r}")
    said = version.text[:200] if version.status_code == 200 else None
    asked = model or names[0]
    facts = {
        "max_model_len": profile_facts.max_model_len(cards, asked),
        "kv_tokens": profile_facts.kv_tokens(metrics.text) if metrics.status_code == 200 else None,
    }
    return {"model": asked, "version": said, "facts": facts}


def _document(arguments: argparse.Namespace, engine: dict[str, Any]) -> Document:
    settings = {
        "model": engine["model"],
        "engine_version": engine["version"],
        "output_tokens": arguments.output_tokens,
        "seconds": arguments.seconds,
        "prompts": "words" if arguments.vocabulary_size is None else "token ids",
        "gpus": list(arguments.gpus),
    }
    facts = profile_facts.engine_facts(
        engine["facts"] | {"max_batched_tokens": arguments.max_batched_tokens},
        gpus=arguments.gpus,
        tensor_parallel_degree=arguments.tensor_parallel_degree,
    )
    path: Path = arguments.out
    if path.exists():
        try:
            return profile_sweep.go_on(read_bytes(path), settings, facts, str(path))
        except ProfileDocumentError as error:
            raise SweepError(f"{error}; or choose another --out") from None
    provenance = {
        "measured_by": f"heron {installed_version()}, closed loop over HTTP streams",
        "began_at_unix_seconds": round(time.time()),
        "url": arguments.url,
        "host": platform.node(),
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": None,
    }
    return Document(settings=settings, provenance=provenance, rows=[], engine=facts)


def _meter(arguments: argparse.Namespace, document: Document) -> Meter:
    if not arguments.gpus:
        return NoMeter()
    from cli.profile_meter import NvmlMeter

    meter = NvmlMeter(arguments.gpus, locks=bool(arguments.clocks))
    document.provenance["gpus"] = meter.names
    return meter


def write(document: Document, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document.to_dict(), indent=1) + "\n")
    partial.replace(path)
