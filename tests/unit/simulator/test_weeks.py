"""The weeks that are reported, and the sizes of sites: rules fixed before any run."""

from __future__ import annotations

import ast
import math
import re
from array import array
from pathlib import Path

import pytest
from support import official_data

from power_feed.wind_files import read_wind_file
from power_feed.wind_series import WindSeries
from simulator.weeks import (
    FTS,
    RTS,
    Days,
    WeekError,
    mean_capacity_factor,
    median_week,
    named_days,
    peak_ratios,
    percentile,
    steps_of,
    week_names,
)

HOUR = 3600.0
MEDIANS = [(175, 181), (141, 147)]
"""Days of FTS-213, and of RTS-GMLC (20–26 May 2020); found once with numpy, by the same rule."""


def series(days: dict[str, list[float]], *, period_seconds: float = 6 * HOUR) -> WindSeries:
    """One value per day and site, repeated over the day's steps."""
    per_day = int(86_400 / period_seconds)
    return WindSeries(
        name="made-up.csv",
        period_seconds=period_seconds,
        ratios={
            site: array("d", [value for value in values for _ in range(per_day)])
            for site, values in days.items()
        },
    )


def weeks(*factors: float) -> list[float]:
    """A day's value for each day of these weeks, after two days of training."""
    return [0.9, 0.9] + [factor for factor in factors for _ in range(7)]


def test_days_count_from_one_and_include_both_ends() -> None:
    """Days 2:3 of a record with four steps a day."""
    record = series({"a": [0.1, 0.2, 0.3, 0.4]})
    assert steps_of(record, Days(name="x", first=2, last=3)) == range(4, 12)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (5, 4), (-1, 1)])
def test_days_that_cannot_be_are_an_error(first: int, last: int) -> None:
    """The message says how days count."""
    with pytest.raises(WeekError, match="days count from 1"):
        Days(name="x", first=first, last=last)


def test_days_beyond_the_record_are_an_error() -> None:
    """It says how long the record is."""
    with pytest.raises(WeekError, match="it has 4 whole days"):
        steps_of(series({"a": [0.1, 0.2, 0.3, 0.4]}), Days(name="x", first=3, last=5))


def test_a_step_that_does_not_divide_a_day_is_an_error() -> None:
    """Days would not begin where a step does."""
    odd = WindSeries(name="odd.csv", period_seconds=7 * HOUR, ratios={"a": array("d", [0.0] * 30)})
    with pytest.raises(WeekError, match="does not divide a day"):
        steps_of(odd, Days(name="x", first=1, last=1))


def test_each_site_counts_alike_and_gaps_are_left_out() -> None:
    """A site with half its steps missing weighs as much as the other."""
    record = series({"a": [0.2, math.nan], "b": [0.4, 0.6]})
    assert mean_capacity_factor(record, range(8)) == pytest.approx((0.2 + 0.5) / 2)


def test_the_median_week_is_the_middle_one() -> None:
    """Of 0.5, 0.1, 0.3 the third."""
    record = series({"a": weeks(0.5, 0.1, 0.3)})
    assert median_week(record, first_day=3, weeks=3) == Days(name="median", first=17, last=23)


def test_of_equal_weeks_the_earlier_is_the_median() -> None:
    """Ties: the earlier."""
    record = series({"a": weeks(0.5, 0.3, 0.3)})
    assert median_week(record, first_day=3, weeks=3).first == 10


def test_a_record_too_short_for_the_weeks_is_an_error() -> None:
    """No week is made up."""
    with pytest.raises(WeekError):
        median_week(series({"a": weeks(0.5)}), first_day=3, weeks=2)


def test_a_week_without_a_measurement_is_an_error() -> None:
    """It has no capacity factor."""
    with pytest.raises(WeekError, match="nothing was measured"):
        median_week(series({"a": weeks(math.nan)}), first_day=3, weeks=1)


def test_percentiles_are_linear_between_ranks() -> None:
    """As numpy's default; NaN is no value."""
    assert percentile([4.0, 1.0, math.nan, 2.0, 3.0], 40.0) == pytest.approx(2.2)
    assert percentile([7.0], 30.0) == 7.0


def test_a_site_of_size_zero_is_an_error() -> None:
    """A percentile below which there is no wind."""
    with pytest.raises(WeekError, match="take a higher one"):
        peak_ratios(series({"a": [0.0, 0.0, 1.0]}), 20.0)


def test_an_unknown_week_is_an_error_that_names_the_known() -> None:
    """`fts-999` is none."""
    with pytest.raises(WeekError, match="fts-127, fts-148, fts-median"):
        named_days(FTS, series({"a": [0.1]}), "fts-999")


def test_training_and_reported_days_never_meet() -> None:
    """What is tuned is never what is shown."""
    for wind in (FTS, RTS):
        assert all(days.first > wind.training.last and days.count == 7 for days in wind.reported)


@pytest.mark.official_data
def test_the_median_weeks_of_the_official_records() -> None:
    """The rule, on the files: these weeks, whoever runs it."""
    fts = read_wind_file(official_data.path("fts213_Wind_data.csv"))
    rts = read_wind_file(official_data.path("rts_gmlc_REAL_TIME_wind.csv"))
    assert week_names(FTS)[-1] == "fts-median"
    found = named_days(FTS, fts, "fts-median"), named_days(RTS, rts, "rts-median")
    assert [(days.first, days.last) for days in found] == MEDIANS
    assert mean_capacity_factor(rts, steps_of(rts, RTS.reported[0])) < 0.1


@pytest.mark.official_data
@pytest.mark.parametrize(("percent", "use"), [(30.0, 0.77), (40.0, 0.71), (50.0, 0.64)])
def test_right_sizing_matches_the_facts(percent: float, use: float) -> None:
    """FACTS.md: what part of the clusters' peak the wind carries, all FTS sites together."""
    fts = read_wind_file(official_data.path("fts213_Wind_data.csv"))
    peaks = peak_ratios(fts, percent)
    carried = sum(math.fsum(min(value, peaks[site]) for value in fts.ratios[site]) for site in fts.sites)
    assert carried / (fts.steps * sum(peaks.values())) == pytest.approx(use, abs=0.015)


DECIDING = ("fleet", "gateway", "router", "site_agent")
"""Packages that decide; the feed knows file formats, the simulator which weeks are reported."""
NAMES = re.compile(r"fts.?213|rts.?gmlc|\bfts\b|\brts\b|azure.?20|conv-20|code-20", re.IGNORECASE)


def test_no_decision_knows_a_data_set() -> None:
    """Outside comments, where figures have their source: no name of a wind record or trace."""
    root = Path(__file__).resolve().parents[3]
    found = []
    for package in DECIDING:
        for path in sorted((root / package).rglob("*.py")):
            if path == root / "fleet" / "mixes.py":
                continue  # the published mixes of classes, for `heron demo` and tests
            for node in ast.walk(ast.parse(path.read_text())):
                texts = [getattr(node, name, None) for name in ("id", "attr", "name", "arg")]
                if isinstance(node, ast.Constant) and not _is_docstring_like(node):
                    texts.append(node.value)
                found += [
                    f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}: {text}"
                    for text in texts
                    if isinstance(text, str) and NAMES.search(text)
                ]
    assert not found, found


def _is_docstring_like(node: ast.Constant) -> bool:
    """Prose: text with a space and a full stop or colon in it."""
    return isinstance(node.value, str) and " " in node.value and any(mark in node.value for mark in ".:")
