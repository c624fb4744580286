"""Which kind of wind file a header announces, and how its rows' times and cells are read. Pure.

Three forms, each with a time base of its own:

    rts_gmlc   Year,Month,Day,Period,<site>…   Period counts from 1 within the day; power in MW
    fts213     Day,Time,<area>…                day of the year from 1, h:mm; share of capacity
    plain      <time>,<site>…                  ISO-8601, unix seconds or seconds; either unit

Rule: what cannot be read raises BadCellError with a reason a person understands, and nothing else.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from power_feed.wind_series import WindFileError

WindFormat = Literal["rts_gmlc", "fts213", "plain"]

EXPECTED = (
    "expected a CSV of wind power, one row a step, in one of three forms: RTS-GMLC "
    "(Year,Month,Day,Period,309_WIND_1,… in MW), FTS-213 (Day,Time,Area1,… share of capacity), or plain (a "
    "first column time, timestamp, datetime, date, unix_seconds or seconds, then one column per site)"
)
TIME_NAMES = frozenset(
    {"", "time", "timestamp", "datetime", "date", "date_time", "time_utc", "utc", "unix_seconds", "unix_time"}
    | {"seconds", "t", "time_seconds"}
)
"""First column of a plain file, in lower case; no name at all is how pandas writes an index."""
TRACE_COLUMNS = frozenset({"contexttokens", "generatedtokens", "num_requests", "context_tokens"})
MAX_COLUMNS = 256
MAX_UNIX_SECONDS = 1e11
"""Beyond the year 5000: milliseconds, not seconds."""
DAY_SECONDS = 86_400.0
PERIODS_A_DAY = (24, 48, 96, 288)
"""Hourly, half-hourly, quarter-hourly, 5-minute: what RTS-GMLC files come in."""
_PERIOD_KEY = 1000
"""RTS-GMLC's time before the step is known: day × 1000 + Period."""

_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


class BadCellError(ValueError):
    """A cell that is not what its column holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindHeader:
    """What a file's first line says."""

    format: WindFormat
    time_columns: int
    sites: tuple[str, ...]
    parse_time: Callable[[Sequence[str]], float]
    """A row's cells → its time on the file's own scale. Raises BadCellError."""

    @property
    def columns(self) -> int:
        return self.time_columns + len(self.sites)


def parse_header(fields: Sequence[str], *, name: str, wanted: WindFormat | None) -> WindHeader:
    """Recognise a file by its header.

    Raises:
        WindFileError: another kind of file, or not of the `wanted` form; says what it looks like.
    """
    cells = [cell.strip() for cell in fields]
    lower = [cell.lower() for cell in cells]
    if TRACE_COLUMNS & set(lower):
        raise WindFileError(f"{name}: an Azure LLM trace, not wind: give it to --trace; {EXPECTED}")
    if lower[:2] == ["time", "timestamp"]:
        raise WindFileError(f"{name}: counts of LLM requests per bin, not wind; {EXPECTED}")
    found: WindFormat
    if lower[:4] == ["year", "month", "day", "period"]:
        found, width, parse = "rts_gmlc", 4, parse_rts_time
    elif lower[:2] == ["day", "time"]:
        found, width, parse = "fts213", 2, parse_fts_time
    elif lower[0] in TIME_NAMES and len(cells) > 1:
        found, width, parse = "plain", 1, parse_plain_time if lower[0] else parse_iso_time
    else:
        raise WindFileError(f"{name}: line 1 is no header of a wind file: {_quote(fields)}; {EXPECTED}")
    if wanted is not None and found != wanted:
        raise WindFileError(f"{name}: format {wanted} was asked for, the header is {found}'s; {EXPECTED}")
    _check_sites(cells, width, name)
    return WindHeader(format=found, time_columns=width, sites=tuple(cells[width:]), parse_time=parse)


def _check_sites(cells: Sequence[str], width: int, name: str) -> None:
    sites = cells[width:]
    if not sites:
        raise WindFileError(f"{name}: the header has no column for a site; {EXPECTED}")
    if len(cells) > MAX_COLUMNS:
        raise WindFileError(f"{name}: {len(cells)} columns, at most {MAX_COLUMNS}; {EXPECTED}")
    for index, site in enumerate(sites):
        if not site:
            raise WindFileError(f"{name}: column {width + index + 1} has no name; {EXPECTED}")
        if _NUMBER.fullmatch(site):
            raise WindFileError(f"{name}: line 1 holds numbers, no header: {_quote(cells)}; {EXPECTED}")
        if site in sites[:index]:
            raise WindFileError(f"{name}: column {site!r} is there twice; name each site once")


def parse_power(text: str) -> float:
    """A cell of power, in the file's unit. Raises BadCellError: not a number, NaN, infinite or negative."""
    cell = text.strip()
    if not _NUMBER.fullmatch(cell):
        if not cell:
            raise BadCellError("missing")
        kind = "NaN" if cell.lower() in ("nan", "na", "n/a", "null", "none", "-") else "not a number"
        raise BadCellError(f"{kind}: {cell[:40]!r}")
    value = float(cell)
    if not math.isfinite(value):
        raise BadCellError(f"not finite: {cell[:40]!r}")
    if value < 0:
        raise BadCellError(f"negative: {cell[:40]!r}")
    return value


def parse_rts_time(cells: Sequence[str]) -> float:
    """Year, Month, Day, Period → a key that `finish_rts_times` turns into seconds."""
    year, month, day, period = (_whole(cell) for cell in cells[:4])
    try:
        ordinal = date(year, month, day).toordinal()
    except (ValueError, OverflowError):
        raise BadCellError(f"no such day: {year}-{month}-{day}") from None
    if not 1 <= period <= PERIODS_A_DAY[-1]:
        raise BadCellError(f"Period {period}, allowed is 1 to {PERIODS_A_DAY[-1]}")
    return float(ordinal * _PERIOD_KEY + period)


def parse_fts_time(cells: Sequence[str]) -> float:
    """Day of the year and h:mm → seconds from the year's start."""
    day = _whole(cells[0])
    clock = _CLOCK.fullmatch(cells[1].strip())
    if not 1 <= day <= 366:
        raise BadCellError(f"Day {day}, allowed is 1 to 366")
    if clock is None:
        raise BadCellError(f"Time is no h:mm: {cells[1][:40]!r}")
    hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    if hours > 23 or minutes > 59 or seconds > 59:
        raise BadCellError(f"no such time of day: {cells[1][:40]!r}")
    return (day - 1) * DAY_SECONDS + hours * 3600 + minutes * 60 + seconds


def parse_plain_time(cells: Sequence[str]) -> float:
    """ISO-8601 (without an offset: UTC) or a number of seconds → seconds."""
    cell = cells[0].strip()
    if not _NUMBER.fullmatch(cell):
        return parse_iso_time(cells)
    seconds = float(cell)
    if not abs(seconds) <= MAX_UNIX_SECONDS:
        raise BadCellError(f"time {cell[:40]!r} is beyond the year 5000: seconds are expected, not less")
    return seconds


def parse_iso_time(cells: Sequence[str]) -> float:
    """ISO-8601 alone (without an offset: UTC): what an index without a name must hold."""
    cell = cells[0].strip()
    if cell.isdigit() and len(cell) < 8:  # 20240101 is a date, 2024 is none
        raise BadCellError(f"time is not ISO-8601 (nor seconds): {cell!r}")
    try:
        stamp = datetime.fromisoformat(cell)
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadCellError(f"time is not ISO-8601 (nor seconds): {cell[:40]!r}") from None


def finish_rts_times(keys: array[float]) -> tuple[array[float], str]:
    """Turn `parse_rts_time`'s keys into Unix seconds, and say what step was found.

    A day has as many steps as the largest Period that at least half the days have, where that is 24, 48 or
    96; else 288 (RTS-GMLC's real-time files), so that a stray Period does not change the step.
    """
    days = {int(key) // _PERIOD_KEY for key in keys}
    periods = Counter(int(key) % _PERIOD_KEY for key in keys)
    common = max((period for period, count in periods.items() if 2 * count >= len(days)), default=0)
    a_day = common if common in PERIODS_A_DAY else PERIODS_A_DAY[-1]
    step = DAY_SECONDS / a_day
    epoch = date(1970, 1, 1).toordinal()
    times = array(
        "d",
        (
            (int(key) // _PERIOD_KEY - epoch) * DAY_SECONDS + (int(key) % _PERIOD_KEY - 1) * step
            for key in keys
        ),
    )
    return times, f"{a_day} steps of {step:g} s a day"


def _whole(cell: str) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise BadCellError(f"not a whole number: {text[:40]!r}" if text else "missing")
    return int(text)


def _quote(fields: Sequence[str]) -> str:
    return repr(",".join(fields)[:120])
