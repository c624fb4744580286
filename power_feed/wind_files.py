"""Reads wind files: RTS-GMLC, FTS-213 and plain CSV. `read_wind` is pure; `read_wind_file` opens the file.

Rule: nothing is skipped in silence. A row that cannot be used is counted with its line and reason, a cell
that cannot be used leaves its step unmeasured, and a file of another kind is refused with what was expected.
One pass, eight bytes a cell: a year of 5-minute steps is 3 MB a site.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from power_feed.wind_grid import Grid, lay_grid
from power_feed.wind_series import RefusalLog, WindFileError, WindSeries
from power_feed.wind_table import (
    EXPECTED,
    BadCellError,
    WindFormat,
    WindHeader,
    finish_rts_times,
    parse_header,
    parse_power,
)

Unit = Literal["per_unit", "mw"]

MAX_LINE_BYTES = 64 << 10
"""A row of 256 columns has 5 KB; what is longer is no row, and must not be collected in memory."""
MAX_ROWS = 4_000_000
RTS_NAMEPLATES_MEGAWATTS: Mapping[str, float] = {
    "309_WIND_1": 148.3,
    "317_WIND_1": 799.1,
    "303_WIND_1": 847.0,
    "122_WIND_1": 713.5,
}
"""RTS-GMLC, SourceData/gen.csv."""
MAX_RATIO = 10.0
"""Above ten times nameplate a number is a fault of the file; below, the quality checks judge it."""
PER_UNIT_LIMIT = 1.2
PER_UNIT_SHARE = 0.99
"""`auto`: shares of nameplate if 99 % of all values are at most 1.2, else MW."""
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"PK\x03\x04", "a ZIP archive or spreadsheet: save it as CSV"),
    (b"PAR1", "Parquet: save it as CSV"),
    (b"\x89HDF", "HDF5 or netCDF: save it as CSV"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindOptions:
    """How to read a file where its header does not say."""

    format: WindFormat | None = None
    """None: by the header."""
    unit: Unit | None = None
    """None: MW for RTS-GMLC, shares for FTS-213, by the stated rule for a plain file."""
    nameplates_megawatts: Mapping[str, float] = field(default_factory=dict)
    """Column → MW, for files in MW; known for RTS-GMLC, else the column's largest value, with a note."""
    nameplate_megawatts: float | None = None
    """Of the columns that are not in `nameplates_megawatts`."""
    flag_columns: frozenset[str] = frozenset()
    """Columns that hold no power (a curtailment flag): kept as they are."""
    unit_advice: str = "say unit = per_unit or mw to be sure"
    nameplate_advice: str = "say nameplate_megawatts to be sure"
    """How notes on what was guessed end: what the caller's user can do."""


def read_wind_file(path: Path, options: WindOptions | None = None) -> WindSeries:
    """Read a file; the rule of `read_wind`.

    Raises:
        WindFileError: it cannot be opened, or is no wind file.
    """
    try:
        with path.open("rb") as file:
            return read_wind(_lines(file, path.name), name=path.name, options=options)
    except OSError as error:
        raise WindFileError(f"{path}: cannot be read: {error.strerror}") from None


def read_wind(lines: Iterable[str], *, name: str, options: WindOptions | None = None) -> WindSeries:
    """Read a record from its lines; `name` is what messages call it.

    Raises:
        WindFileError: not a wind file, or one without two usable rows.
    """
    options = options or WindOptions()
    source = iter(lines)
    first = next(source, None)
    if first is None or not first.strip("\ufeff \t\r\n"):
        raise WindFileError(f"{name}: {'empty' if first is None else 'line 1 is empty'}; {EXPECTED}")
    first = first.removeprefix("\ufeff")
    _refuse_other_text(first, name)
    header = parse_header(_split(first), name=name, wanted=options.format)
    log = RefusalLog()
    times, line_numbers, cells = _read_rows(source, header, log, name)
    notes: list[str] = []
    if not times:
        raise WindFileError(
            f"{name}: none of its rows can be used; {log.close().describe() or 'there is none'}; {EXPECTED}"
        )
    if header.format == "rts_gmlc":
        times, step = finish_rts_times(times)
        notes.append(f"{name}: {step}, by its Period column")
    grid = lay_grid(times, line_numbers, log, name=name)
    ratios = {}
    power = {site: cells[site] for site in header.sites if site not in options.flag_columns}
    if not power:
        raise WindFileError(f"{name}: no column of power, only flags ({', '.join(header.sites)})")
    unit = _unit(header.format, options, power, name, notes)
    nameplates = {}
    for site in header.sites:
        scale = 1.0
        if site in power and unit == "mw":
            scale = _nameplate_megawatts(site, header.format, options, power[site], name, notes)
            nameplates[site] = scale
        ratios[site] = _on_grid(site, cells[site], grid, scale, line_numbers, log)
    return WindSeries(
        name=name,
        period_seconds=grid.period_seconds,
        ratios=ratios,
        first_unix_seconds=None if header.format == "fts213" else grid.first_seconds,
        refusals=log.close(),
        missing_steps=grid.steps - len(grid.rows),
        nameplates_megawatts=nameplates,
        notes=tuple(notes),
    )


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    head = file.read(4096)
    file.seek(0)
    for magic, what in _OTHER_KINDS:
        if head.startswith(magic):
            raise WindFileError(f"{name}: {what}; {EXPECTED}")
    if b"\0" in head:
        raise WindFileError(f"{name}: binary, not text; {EXPECTED}")
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise WindFileError(f"{name}: line {number} has more than {MAX_LINE_BYTES} bytes; {EXPECTED}")
        yield raw.decode("utf-8", "replace")


def _refuse_other_text(first: str, name: str) -> None:
    start = first.lstrip()
    if start.startswith(("{", "[")):
        raise WindFileError(f"{name}: JSON, not CSV; {EXPECTED}")
    if start.startswith("<"):
        raise WindFileError(f"{name}: HTML or XML, not CSV (a download that failed?); {EXPECTED}")
    if "," not in first and (";" in first or "\t" in first):
        raise WindFileError(f"{name}: columns must be separated by commas; {EXPECTED}")


def _split(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]))
    except (csv.Error, StopIteration):
        return [line]


def _read_rows(
    lines: Iterator[str], header: WindHeader, log: RefusalLog, name: str
) -> tuple[array[float], array[int], dict[str, array[float]]]:
    """Times on the file's scale, line numbers, and cells in the file's unit with NaN for unusable ones."""
    times, numbers = array("d"), array("q")
    columns = [array("d") for _ in header.sites]
    blank: list[int] = []
    for number, line in enumerate(islice(lines, MAX_ROWS + 1), start=2):
        if number > MAX_ROWS + 1:
            raise WindFileError(f"{name}: more than {MAX_ROWS} rows: cut it into smaller files")
        if not line.strip():
            blank.append(number)  # at the end of a file it is no row
            continue
        for empty in blank:
            log.add(empty, "empty line")
        blank.clear()
        fields = _split(line)
        if len(fields) != header.columns:
            log.add(number, f"{len(fields)} columns, the header has {header.columns}")
            continue
        try:
            time = header.parse_time(fields)
        except BadCellError as error:
            log.add(number, str(error))
            continue
        times.append(time)
        numbers.append(number)
        for site, column, cell in zip(header.sites, columns, fields[header.time_columns :], strict=True):
            try:
                column.append(parse_power(cell))
            except BadCellError as error:
                column.append(math.nan)
                log.add(number, f"{site}: {error}")
    return times, numbers, dict(zip(header.sites, columns, strict=True))


def _unit(
    format_: WindFormat,
    options: WindOptions,
    power: Mapping[str, array[float]],
    name: str,
    notes: list[str],
) -> Unit:
    if options.unit is not None:
        return options.unit
    if format_ != "plain":
        return "mw" if format_ == "rts_gmlc" else "per_unit"
    known = [value for values in power.values() for value in values if not math.isnan(value)]
    small = sum(value <= PER_UNIT_LIMIT for value in known)
    unit: Unit = "per_unit" if small >= PER_UNIT_SHARE * len(known) else "mw"
    what = "shares of nameplate" if unit == "per_unit" else "MW"
    notes.append(
        f"{name}: taken as {what}, since {small} of {len(known)} values are at most {PER_UNIT_LIMIT:g}; "
        f"{options.unit_advice}"
    )
    return unit


def _nameplate_megawatts(
    site: str,
    format_: WindFormat,
    options: WindOptions,
    values: array[float],
    name: str,
    notes: list[str],
) -> float:
    given = options.nameplates_megawatts.get(site, options.nameplate_megawatts)
    if given is None and format_ == "rts_gmlc":
        given = RTS_NAMEPLATES_MEGAWATTS.get(site)
    if given is not None:
        return given
    largest = max((value for value in values if not math.isnan(value)), default=0.0)
    if largest <= 0:
        notes.append(f"{name}: {site} has no value above 0")
        return 1.0
    notes.append(
        f"{name}: the nameplate of {site} is not known: its largest value, {largest:g} MW, is taken; "
        f"{options.nameplate_advice}"
    )
    return largest


def _on_grid(
    site: str, values: array[float], grid: Grid, scale: float, lines: array[int], log: RefusalLog
) -> array[float]:
    ratios = array("d", [math.nan]) * grid.steps
    for row, index in zip(grid.rows, grid.indexes, strict=True):
        ratio = values[row] / scale
        if ratio > MAX_RATIO:
            log.add(lines[row], f"{site}: {ratio:g} times nameplate")
        else:
            ratios[index] = ratio
    return ratios
