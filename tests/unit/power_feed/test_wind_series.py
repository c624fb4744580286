"""Refusals and gaps of a series."""

from __future__ import annotations

import math
from array import array

import pytest

from power_feed.wind_series import RefusalLog, Refusals, WindSeries


def test_a_row_counts_once_whatever_is_wrong_with_it() -> None:
    """Two faults of one row are one refused row, with the first reason."""
    log = RefusalLog()
    log.add(9, "north: missing")
    log.add(9, "coast: missing")
    log.add(3, "empty line")
    refusals = log.close()
    assert refusals.total == 2
    assert refusals.describe() == "2 rows refused: line 3: empty line; line 9: north: missing"


def test_nothing_refused_says_nothing() -> None:
    """A clean file has no report."""
    assert Refusals().describe() == ""


def test_a_gap_is_none_and_not_zero() -> None:
    """Zero wind and no measurement are different things."""
    series = WindSeries(name="f", period_seconds=60.0, ratios={"a": array("d", [0.0, math.nan])})
    assert series.ratio("a", 0) == 0.0
    assert series.ratio("a", 1) is None


def test_steps_outside_the_record_are_errors() -> None:
    """Neither the end nor a negative index wraps around."""
    series = WindSeries(name="f", period_seconds=60.0, ratios={"a": array("d", [0.5])})
    with pytest.raises(IndexError):
        series.ratio("a", 1)
    with pytest.raises(IndexError):
        series.ratio("a", -1)
