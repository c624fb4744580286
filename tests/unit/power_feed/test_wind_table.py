"""Cells and times of the three forms."""

from __future__ import annotations

from array import array

import pytest

from power_feed.wind_table import (
    BadCellError,
    finish_rts_times,
    parse_fts_time,
    parse_header,
    parse_iso_time,
    parse_plain_time,
    parse_power,
    parse_rts_time,
)


@pytest.mark.parametrize("cell", ["0", " 0.5 ", "1e-3", ".5", "5.", "+2"])
def test_numbers_are_power(cell: str) -> None:
    """Plain decimal notation, with blanks around it."""
    assert parse_power(cell) == float(cell)


@pytest.mark.parametrize("cell", ["", " ", "1_000", "0x10", "inf", "NaN", "-1", "1,5", "１", "1e999", "1 2"])
def test_what_is_no_power_is_refused(cell: str) -> None:
    """What Python's float would take and a data file never means is refused too."""
    with pytest.raises(BadCellError):
        parse_power(cell)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (("2020", "2", "30", "1"), "no such day: 2020-2-30"),
        (("2020", "1", "1", "0"), "Period 0"),
        (("2020", "1", "1", "289"), "Period 289"),
        (("2020", "1.5", "1", "1"), "not a whole number"),
        (("", "1", "1", "1"), "missing"),
        (("0", "1", "1", "1"), "no such day"),
    ],
)
def test_rts_times_that_are_none(cells: tuple[str, ...], says: str) -> None:
    """Each fault is named."""
    with pytest.raises(BadCellError, match=says):
        parse_rts_time(cells)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (("0", "0:00"), "Day 0"),
        (("367", "0:00"), "Day 367"),
        (("1", "24:00"), "no such time of day"),
        (("1", "0:60"), "no such time of day"),
        (("1", "noon"), "no h:mm"),
    ],
)
def test_fts_times_that_are_none(cells: tuple[str, ...], says: str) -> None:
    """Each fault is named."""
    with pytest.raises(BadCellError, match=says):
        parse_fts_time(cells)


def test_fts_times_count_from_the_years_start() -> None:
    """Day 2, 0:15 is a day and a quarter of an hour."""
    assert parse_fts_time(("2", "0:15")) == 87_300.0


def test_plain_times_in_milliseconds_are_refused() -> None:
    """A stamp of 13 digits is not seconds."""
    with pytest.raises(BadCellError, match="seconds are expected"):
        parse_plain_time(("1714521600000",))


def test_an_index_without_a_name_must_be_dates() -> None:
    """A running number is no time; a date without dashes is one."""
    with pytest.raises(BadCellError):
        parse_iso_time(("17",))
    assert parse_iso_time(("20240501",)) == 1714521600.0


def test_an_incomplete_day_of_rts_is_five_minutes() -> None:
    """Ten Periods of one day do not make an hourly file."""
    keys = array("d", (parse_rts_time(("2020", "1", "1", str(period))) for period in range(1, 11)))
    times, step = finish_rts_times(keys)
    assert times[1] - times[0] == 300.0
    assert step.startswith("288 steps")


def test_headers_are_recognised_in_any_case() -> None:
    """Case and blanks around names do not matter; the sites' names are kept as written."""
    header = parse_header(["year", " Month", "DAY", "period", "North"], name="f", wanted=None)
    assert (header.format, header.sites) == ("rts_gmlc", ("North",))
