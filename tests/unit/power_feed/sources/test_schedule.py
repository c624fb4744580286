"""Scripted power."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.sources.schedule import Schedule

START = 1_700_000_000.25


def schedule(start: float | None = START, period: float = 1.0) -> Schedule:
    return Schedule(
        points=((0.0, 0.6), (20.4, 0.1), (40.0, 0.6)),
        nameplate_watts=1000.0,
        start_unix_seconds=start,
        period_seconds=period,
    )


def test_each_point_holds_until_the_next() -> None:
    """The fall is there at its very instant, and not before."""
    source = schedule()
    fall = START + 20.4
    assert source.measurement(fall - 0.001).watts == 600.0
    at_fall = source.measurement(fall)
    assert (at_fall.watts, at_fall.observed_at_unix_seconds) == (100.0, fall)
    assert source.measurement(START + 1e6).watts == 600.0
    assert at_fall.is_held


def test_the_next_change_is_the_point_where_it_comes_first() -> None:
    """Measured every second, and at the fall as well."""
    source = schedule()
    assert source.next_change_after(START + 20.0) == START + 20.4
    assert source.next_change_after(START + 20.4) == START + 21.0


def test_a_value_that_stays_is_measured_again_each_period() -> None:
    """A schedule that says nothing new is still heard."""
    source = schedule()
    assert source.measurement(START + 5.5).observed_at_unix_seconds == START + 5.0
    assert source.measurement(START + 6.5).observed_at_unix_seconds == START + 6.0


def test_before_its_start_the_first_point_holds() -> None:
    """Also while the start is not known at all."""
    assert schedule().measurement(START - 100).watts == 600.0
    unknown = schedule(start=None)
    assert unknown.measurement(START + 30).watts == 600.0
    assert START + 30 < unknown.next_change_after(START + 30) <= START + 31


@given(
    at=st.floats(min_value=START - 1e4, max_value=START + 1e4),
    period=st.floats(min_value=0.02, max_value=100),
)
@settings(max_examples=200, deadline=None)
def test_a_change_is_later_and_seen_at_its_very_instant(at: float, period: float) -> None:
    """Sleeping until the next change never spins and never misses one."""
    source = schedule(period=period)
    change = source.next_change_after(at)
    assert at < change <= at + period * 1.001
    assert source.measurement(at).observed_at_unix_seconds <= at
    assert source.measurement(at).observed_at_unix_seconds < change
