"""What `heron profile run` measures, keeps and goes on with. Pure.

A point is (running requests, prompt tokens, clock); a row is what was measured there. The document holds the
rows and where they come from. It is written after every point, so that a sweep that was interrupted goes on:
rows that are there are not measured again, and rows of other settings are never mixed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.profiles.document import (
    DOCUMENT_VERSION,
    MAX_ROWS,
    EngineFacts,
    ProfileDocument,
    ProfileDocumentError,
    Row,
    parse_document,
)

MAX_POINTS = MAX_ROWS
MAX_ERROR_RATIO = 0.05
"""More requests than this failed: the row says nothing about the engine."""

KV_TOLERANCE = 0.05
"""An engine sizes its cache by the memory that is free when it starts: started anew, the same one differs."""


class SweepError(ValueError):
    """The document cannot be gone on with; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Point:
    """One operating point."""

    clock_mhz: int | None
    """None: as it is, nobody sets it."""
    prompt_tokens: int
    running_requests: int


def point_of(row: Row) -> Point:
    """Where a row was measured."""
    return Point(
        clock_mhz=row.clock_mhz, prompt_tokens=row.prompt_tokens, running_requests=row.running_requests
    )


def points(batches: Sequence[int], prompts: Sequence[int], clocks: Sequence[int | None]) -> list[Point]:
    """Every combination, in an order that changes the clock least often; doubled ones once.

    Raises:
        SweepError: none, or too many.
    """
    found = sorted(
        {
            Point(clock_mhz=clock, prompt_tokens=prompt, running_requests=batch)
            for clock in clocks
            for prompt in prompts
            for batch in batches
        },
        key=lambda one: (-(one.clock_mhz or 0), one.prompt_tokens, one.running_requests),
    )
    if not 1 <= len(found) <= MAX_POINTS:
        raise SweepError(f"{len(found)} points: 1 to {MAX_POINTS} are allowed")
    return found


@dataclass(slots=True, kw_only=True)
class Document:
    """Rows and their provenance."""

    settings: dict[str, Any]
    """What must be the same for rows to belong together: engine, model, output tokens, seconds per point."""
    provenance: dict[str, Any]
    """Who measured what on what, and when it began."""
    rows: list[Row]
    engine: EngineFacts = field(default_factory=EngineFacts)
    """What the engine and its GPUs said when the sweep began."""

    def missing(self, wanted: Iterable[Point]) -> list[Point]:
        """What is still to be measured, in order."""
        have = {point_of(row) for row in self.rows}
        return [one for one in wanted if one not in have]

    def to_dict(self) -> dict[str, Any]:
        return {
            "heron_profile_version": DOCUMENT_VERSION,
            "settings": self.settings,
            "provenance": self.provenance,
            "engine": self.engine.model_dump(),
            "rows": [row.model_dump() for row in self.rows],
        }


def go_on(data: bytes, settings: dict[str, Any], engine: EngineFacts, name: str) -> Document:
    """The document that an earlier run wrote, to go on with; `engine`: what it says of itself now.

    Raises:
        SweepError: it is none, or of other settings, or of another engine or GPU as far as both are known.
    """
    try:
        read: ProfileDocument = parse_document(data, name)
    except ProfileDocumentError as error:
        raise SweepError(f"{error}; or choose another --out") from None
    found = read.settings.model_dump()
    different = sorted(key for key in settings.keys() | found.keys() if settings.get(key) != found.get(key))
    if different:
        told = ", ".join(f"{key}: {found.get(key)!r} there, {settings.get(key)!r} now" for key in different)
        raise SweepError(f"{name}: was measured with other settings ({told}); choose another --out")
    if other := _differences(read.engine, engine):
        raise SweepError(f"{name}: was measured on another engine ({'; '.join(other)}); choose another --out")
    return Document(settings=found, provenance=read.provenance, rows=list(read.rows), engine=read.engine)


def _differences(there: EngineFacts, now: EngineFacts) -> list[str]:
    """What both say, differently, but for the watts when empty: they are of the first run."""
    before, after = there.model_dump(exclude={"idle_watts"}), now.model_dump(exclude={"idle_watts"})
    found = []
    for key, value in before.items():
        if value is None or after[key] is None or value == after[key]:
            continue
        if key == "kv_tokens" and abs(value - after[key]) <= KV_TOLERANCE * value:
            continue
        found.append(f"{key}: {value!r} there, {after[key]!r} now")
    return found


def row_of(
    point: Point,
    *,
    seconds: float,
    ttft_seconds: Sequence[float],
    gaps_seconds: tuple[float | None, float | None],
    tokens: int,
    requests: int,
    failed_requests: int,
    joules: float | None,
    counted_prompt_tokens: Sequence[int],
    clocks_mhz: Sequence[float],
) -> Row:
    """A row from what a window saw. `gaps_seconds`: p50 and p99 of the gaps between tokens.

    `clocks_mhz`: what GPUs ran at, as often as it was read.

    Raises:
        SweepError: too much failed, or not a token came.
    """
    if failed_requests > MAX_ERROR_RATIO * max(1, requests + failed_requests):
        raise SweepError(f"{failed_requests} of {requests + failed_requests} requests failed")
    if tokens == 0 or seconds <= 0:
        raise SweepError("not a token came: a longer --seconds, or a smaller batch")
    ordered = sorted(ttft_seconds)
    return Row(
        running_requests=point.running_requests,
        prompt_tokens=point.prompt_tokens,
        clock_mhz=point.clock_mhz,
        seconds=round(seconds, 3),
        requests=requests,
        failed_requests=failed_requests,
        output_tokens_per_second=round(tokens / seconds, 3),
        itl_seconds_p50=gaps_seconds[0],
        itl_seconds_p99=gaps_seconds[1],
        ttft_seconds_p50=ordered[len(ordered) // 2] if ordered else None,
        watts=None if joules is None else round(joules / seconds, 2),
        joules_per_output_token=None if joules is None else joules / tokens,
        counted_prompt_tokens=(
            sum(counted_prompt_tokens) / len(counted_prompt_tokens) if counted_prompt_tokens else None
        ),
        mean_clock_mhz=round(sum(clocks_mhz) / len(clocks_mhz), 1) if clocks_mhz else None,
    )


def lines(rows: Sequence[Row]) -> list[str]:
    """A table for a person."""
    names = ("ITL p50", "p99", "TTFT")
    head = f"{'clock':>6} {'prompt':>7} {'running':>8} {'tokens/s':>9} "
    head += " ".join(f"{name:>9}" for name in names) + f" {'W':>8}"
    return [head, *(_line(row) for row in rows)]


def _line(row: Row) -> str:
    clock = "as is" if row.clock_mhz is None else str(row.clock_mhz)
    return (
        f"{clock:>6} {row.prompt_tokens:>7} {row.running_requests:>8} {row.output_tokens_per_second:>9.1f} "
        f"{_milliseconds(row.itl_seconds_p50)} {_milliseconds(row.itl_seconds_p99)} "
        f"{_milliseconds(row.ttft_seconds_p50)} {'unknown' if row.watts is None else f'{row.watts:.0f}':>8}"
    )


def _milliseconds(seconds: float | None) -> str:
    return f"{'unknown' if seconds is None else f'{1000 * seconds:.1f} ms':>9}"
