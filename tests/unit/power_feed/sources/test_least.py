"""The least of several sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from power_feed.quality import QualityChecker, QualityLimits
from power_feed.sources.interface import Measurement, Measures
from power_feed.sources.least import Least
from power_feed.sources.playback import Playback
from power_feed.sources.schedule import Schedule

START = 1000.0


@dataclass
class LatestValue:
    """A live source, once a second, of which the test says what came last."""

    watts: float | None
    observed_at_unix_seconds: float
    period_seconds: float = 1.0
    speed: float = 1.0
    description: str = "live"
    measures: Measures = "available"

    def measurement(self, at_unix_seconds: float) -> Measurement:
        return Measurement(observed_at_unix_seconds=self.observed_at_unix_seconds, watts=self.watts)

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        return None


def wind(*ratios: float | None) -> Playback:
    return Playback(
        description="wind",
        ratio=lambda step: ratios[step],
        steps=len(ratios),
        record_period_seconds=10.0,
        nameplate_watts=100.0,
        start_unix_seconds=START,
        speed=2.0,
    )


TRIP = Schedule(points=((0.0, 1.0), (7.5, 0.2)), nameplate_watts=100.0, start_unix_seconds=START)


def test_a_trip_over_wind_gives_the_smaller_of_both() -> None:
    """Wind below the trip stays; above it the trip holds, from its very instant."""
    source = Least(sources=(wind(0.5, 0.6, 0.1), TRIP))
    assert source.measurement(START + 1).watts == 50.0
    assert source.measurement(START + 7.5).watts == 20.0
    assert source.measurement(START + 11).watts == 10.0
    assert source.next_change_after(START + 7) == START + 7.5


def test_where_one_knows_nothing_nothing_is_known() -> None:
    """A gap in the wind is not covered by the trip's value."""
    assert Least(sources=(wind(None), TRIP)).measurement(START + 1).watts is None


def test_one_that_has_fallen_silent_is_not_hidden_by_the_others_age() -> None:
    """A grid limit over dead telemetry: the least is not known, however new the limit is."""
    live = LatestValue(watts=60.0, observed_at_unix_seconds=START)
    limit = LatestValue(watts=90.0, observed_at_unix_seconds=START + 3)
    source = Least(sources=(live, limit))
    assert source.measurement(START + 3).watts == 60.0
    limit.observed_at_unix_seconds = START + 4
    assert source.measurement(START + 4).watts is None
    live.observed_at_unix_seconds = START + 4
    assert source.measurement(START + 4).watts == 60.0


@pytest.mark.parametrize("order", [1, -1])
def test_no_number_is_not_hidden_by_the_others(order: int) -> None:
    """NaN is less than nothing and more than nothing, wherever it stands in the list."""
    broken, limit = LatestValue(watts=math.nan, observed_at_unix_seconds=START), wind(0.5)
    assert Least(sources=(broken, limit)[::order]).measurement(START + 1).watts is None


def test_a_slow_value_that_stands_while_a_fast_one_is_measured_is_neither_stuck_nor_confirmed() -> None:
    """Only the limit is new each second: no word for the wind that stands still, nor for a spike in it."""
    live = LatestValue(watts=50.0, observed_at_unix_seconds=START, period_seconds=60.0)
    limit = LatestValue(watts=900.0, observed_at_unix_seconds=START)
    source = Least(sources=(live, limit))
    checker = QualityChecker(limits=QualityLimits(nameplate_watts=1000.0, period_seconds=60.0))

    def judge(second: float) -> str:
        limit.observed_at_unix_seconds = START + second
        verdict = checker.judge(source.measurement(START + second), START + second)
        assert verdict is not None
        assert verdict.observed_at_unix_seconds == START + second
        return " ".join((verdict.quality, f"{verdict.watts:g}", *verdict.failed))

    assert {judge(second) for second in range(50)} == {"good 50"}
    live.watts, live.observed_at_unix_seconds = 850.0, START + 50
    limit.watts = 100.0
    assert judge(50) == "good 100"
    limit.watts = 900.0  # the limit goes, and what stands below it was not judged before
    assert [judge(second) for second in (51, 52, 53, 54)] == 4 * ["suspect 850 ramp"]
    live.observed_at_unix_seconds = START + 55
    assert judge(55) == "suspect 850 ramp"
    live.observed_at_unix_seconds = START + 56
    assert judge(56) == "good 850"


def test_it_is_as_slow_as_the_slowest() -> None:
    """Readers walk down by the period of the wind, not of the script."""
    source = Least(sources=(wind(0.5), TRIP))
    assert (source.period_seconds, source.speed) == (5.0, 1.0)
    assert source.description == "least of wind, schedule"
    assert source.measures == "available"


def test_one_that_ended_has_no_more_changes() -> None:
    """The others' changes still count."""
    source = Least(sources=(wind(0.5), TRIP))
    assert source.next_change_after(START + 100) == START + 101
    assert Least(sources=(wind(0.5),)).next_change_after(START + 100) is None
