"""Putting a file's rows on a regular grid: which rows are in order, what the step is, where gaps are. Pure.

Rule: the rows that are kept are a longest run in order of time (so one stray stamp costs one row, not all
that follow it); every other row is refused with its reason.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from power_feed.wind_series import RefusalLog, WindFileError

MAX_STEPS = 4_000_000
"""38 years of 5-minute steps; a grid beyond it is a fault in the stamps, and would only eat memory."""
MAX_GAP_SECONDS = 366 * 86_400.0
"""A record with a hole of more than a year is two records: the longer is kept."""
MAX_STEP_CANDIDATES = 100_000
"""Different distances between rows that are counted to find the step."""
GRID_TOLERANCE_RATIO = 0.01
"""How far from its step a row may stand, as a share of the step: clocks that round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the kept rows stand."""

    first_seconds: float
    period_seconds: float
    steps: int
    rows: Sequence[int]
    """Kept rows, by their position in the file."""
    indexes: Sequence[int]
    """Step of each kept row."""


def lay_grid(times: Sequence[float], lines: Sequence[int], log: RefusalLog, *, name: str) -> Grid:
    """Find order, step and gaps; `times` in seconds and `lines` are per row, in the file's order.

    Raises:
        WindFileError: fewer than two rows in order, or more than MAX_STEPS steps.
    """
    rows = _longest_run(_in_order(times, lines, log), times, lines, log)
    if len(rows) < 2:
        raise WindFileError(
            f"{name}: {len(rows)} usable rows of {len(times)}, at least two are needed to know the step. "
            + log.close().describe()
        )
    period = _step(times, rows)
    first = times[rows[0]]
    kept: list[int] = []
    indexes: list[int] = []
    for row in rows:
        offset = times[row] - first
        index = round(offset / period)
        if abs(offset - index * period) > GRID_TOLERANCE_RATIO * period + 1e-6:
            log.add(lines[row], f"is {offset % period:g} s off the {period:g}-s steps of this file")
        elif indexes and index <= indexes[-1]:
            log.add(lines[row], "duplicate time")
        else:
            kept.append(row)
            indexes.append(index)
    steps = indexes[-1] + 1
    if steps > MAX_STEPS:
        raise WindFileError(
            f"{name}: its times span {steps} steps of {period:g} s, at most {MAX_STEPS}: check its times"
        )
    return Grid(first_seconds=first, period_seconds=period, steps=steps, rows=kept, indexes=indexes)


def _in_order(times: Sequence[float], lines: Sequence[int], log: RefusalLog) -> list[int]:
    """Rows of a longest strictly increasing subsequence of times (patience sorting); refuses the others."""
    count = len(times)
    if all(times[row] < times[row + 1] for row in range(count - 1)):
        return list(range(count))
    tails = array("d")
    tail_rows = array("q")
    previous = array("q", bytes(8 * count))
    for row, time in enumerate(times):
        place = bisect_left(tails, time)
        if place == len(tails):
            tails.append(time)
            tail_rows.append(row)
        elif time < tails[place]:  # of rows with one time the first is kept
            tails[place] = time
            tail_rows[place] = row
        previous[row] = tail_rows[place - 1] if place else -1
    rows = []
    row = tail_rows[-1]
    while row >= 0:
        rows.append(row)
        row = previous[row]
    rows.reverse()
    kept = set(rows)
    seen = {times[row] for row in rows}
    for row in range(count):
        if row not in kept:
            log.add(lines[row], "duplicate time" if times[row] in seen else "out of order of time")
    return rows


def _longest_run(rows: list[int], times: Sequence[float], lines: Sequence[int], log: RefusalLog) -> list[int]:
    """Cut where more than MAX_GAP_SECONDS are missing and keep the longest part (ties: the earlier)."""
    parts: list[list[int]] = []
    for row in rows:
        if not parts or times[row] - times[parts[-1][-1]] > MAX_GAP_SECONDS:
            parts.append([])
        parts[-1].append(row)
    if len(parts) <= 1:
        return rows
    longest = max(parts, key=len)
    for part in parts:
        if part is not longest:
            for row in part:
                log.add(lines[row], "more than a year from the rest of the file")
    return longest


def _step(times: Sequence[float], rows: Sequence[int]) -> float:
    """The commonest distance between successive rows, to the millisecond; ties: the smaller."""
    counts: dict[int, int] = {}
    for before, after in pairwise(rows):
        distance = max(1, round((times[after] - times[before]) * 1000))
        if distance in counts or len(counts) < MAX_STEP_CANDIDATES:
            counts[distance] = counts.get(distance, 0) + 1
    return min(counts, key=lambda distance: (-counts[distance], distance)) / 1000
