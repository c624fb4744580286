"""The rows of a profile document as the fit takes them: clocks resolved, tokens as counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.performance import DEFAULT_PREFILL_CHUNK_TOKENS
from fleet.profiles.document import HOW_TO_MEASURE, ProfileDocument, ProfileDocumentError, Row

UNKNOWN_CLOCK_MHZ = 1000
"""Stands for the one clock of engines whose GPUs nobody asked."""
CLOCK_TOLERANCE = 0.02
"""GPUs round a clock to their steps."""

LEAST_CLOCK_RATIO = 0.85
"""Of the clock that a row is taken for, as the mean of what its GPUs ran at; a busy one may vary a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row."""

    number: int
    """From 1, as in the file."""
    batch: int
    asked_prompt_tokens: int
    """As the sweep asked for: the same in rows that differ in clock or batch alone, as a count never is."""
    prompt_tokens: float
    """As the server counted, in the mean."""
    prefill_steps: int
    """That a prompt is taken in by."""
    context_tokens: float
    """Of one request, in the middle of its answer."""
    clock_mhz: int
    full_clock_mhz: int
    is_clock_known: bool
    ended_requests: int
    """In the window."""
    tokens_per_second: float
    requests_per_second: float
    itl_seconds: float | None
    ttft_seconds: float | None
    watts: float | None

    @property
    def is_full_clock(self) -> bool:
        return self.clock_mhz == self.full_clock_mhz

    @property
    def kv_tokens(self) -> float:
        """All running requests' context together."""
        return self.batch * self.context_tokens


def chunk_tokens(document: ProfileDocument) -> int:
    """Prompt tokens that the engine takes into a step at the most: as told, else the shipped profiles'."""
    return document.engine.max_batched_tokens or DEFAULT_PREFILL_CHUNK_TOKENS


def points_of(document: ProfileDocument, name: str) -> list[Point]:
    """In the file's order.

    Raises:
        ProfileDocumentError: no rows, none at full clock, or a clock that cannot be placed.
    """
    if not document.rows:
        raise ProfileDocumentError(f"{name}: has no rows: {HOW_TO_MEASURE}")
    full = _full_clock(document, name)
    output, chunk = document.settings.output_tokens, chunk_tokens(document)
    points = []
    for number, row in enumerate(document.rows, 1):
        clock = (
            full if row.clock_mhz is None or row.clock_mhz >= full * (1 - CLOCK_TOLERANCE) else row.clock_mhz
        )
        prompt = row.prompt_tokens if row.counted_prompt_tokens is None else row.counted_prompt_tokens
        points.append(
            Point(
                number=number,
                batch=row.running_requests,
                asked_prompt_tokens=row.prompt_tokens,
                prompt_tokens=max(1.0, float(prompt)),
                prefill_steps=max(1, -(-round(prompt) // chunk)),
                context_tokens=prompt + output / 2,
                clock_mhz=clock,
                full_clock_mhz=full,
                is_clock_known=row.clock_mhz is not None or document.engine.full_clock_mhz is not None,
                ended_requests=row.requests,
                tokens_per_second=row.output_tokens_per_second,
                requests_per_second=row.output_tokens_per_second / output,
                itl_seconds=row.itl_seconds_p50,
                ttft_seconds=row.ttft_seconds_p50,
                watts=row.watts,
            )
        )
    if not any(one.is_full_clock for one in points):
        raise ProfileDocumentError(
            f"{name}: no row at full clock ({full} MHz), which GPUs run at when nobody locks them: measure "
            "there too (--clocks)"
        )
    return points


def told_slow_clock(row: Row, full_clock_mhz: int | None) -> str | None:
    """That a row's GPUs ran well below the clock that it is taken for; None: not so, or nobody knows."""
    meant = full_clock_mhz if row.clock_mhz is None else row.clock_mhz
    if meant is None or row.mean_clock_mhz is None or row.mean_clock_mhz >= LEAST_CLOCK_RATIO * meant:
        return None
    return (
        f"GPUs ran at {row.mean_clock_mhz:.0f} MHz in the mean, the row counts as {meant} MHz: somebody else "
        "locks their clocks (an agent?), or they reach their limit of power or temperature"
    )


def _full_clock(document: ProfileDocument, name: str) -> int:
    """The GPUs' own; else the highest that was set. At full clock an agent unlocks them."""
    told = document.engine.full_clock_mhz
    set_clocks = [row.clock_mhz for row in document.rows if row.clock_mhz is not None]
    if told is not None:
        return told
    if not set_clocks:
        return UNKNOWN_CLOCK_MHZ
    if len(set_clocks) < len(document.rows):
        raise ProfileDocumentError(
            f"{name}: some rows have a clock and some the clock as it was, and the file does not say which "
            "that was (engine.full_clock_mhz): measure again, with --gpus"
        )
    return max(set_clocks)
