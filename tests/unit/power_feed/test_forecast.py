"""Persistence with quantiles of its own errors."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.forecast import (
    MAX_ERRORS,
    MAX_WAITING,
    STANDARD_HORIZONS_SECONDS,
    ErrorWindow,
    Forecaster,
    QuantileForecast,
    wide_error_ratio,
)

QUARTER = 900.0


def fed(values: list[float], period: float = QUARTER, *, has_moods: bool = False) -> Forecaster:
    subject = Forecaster(1000.0, has_moods=has_moods)
    for step, value in enumerate(values):
        subject.observe(value, step * period)
    return subject


def at(subject: Forecaster, horizon: float) -> QuantileForecast:
    [point] = subject.quantiles((horizon,))
    return point


def test_nothing_is_forecast_before_anything_was_measured() -> None:
    """No value is invented."""
    assert Forecaster(1000.0).quantiles((60.0,)) == ()


def test_too_little_history_gives_a_wide_forecast_around_now() -> None:
    """As wide as WIDE_ERRORS says, at every horizon, and never outside 0 … nameplate."""
    points = fed([500.0]).quantiles()
    assert [point.horizon_seconds for point in points] == list(STANDARD_HORIZONS_SECONDS)
    for point in points:
        assert point.p50_watts == 500.0
        wide = 1000.0 * wide_error_ratio(point.horizon_seconds)
        assert point.p10_watts == pytest.approx(max(0.0, 500.0 - wide))
        assert point.p90_watts == pytest.approx(min(1000.0, 500.0 + wide))
    spreads = [point.p90_watts - point.p10_watts for point in points]
    assert spreads == sorted(spreads)


def test_the_spread_is_learnt_by_level() -> None:
    """A farm that stands at 0 and swings in the middle: certain of the one, uncertain of the other."""
    rng = random.Random(5)
    values = []
    for _ in range(200):
        values += [0.0] * 5
        values += [500.0 + rng.uniform(-200, 200) for _ in range(5)]
    calm = at(fed([*values, 0.0, 0.0, 0.0]), QUARTER)
    swinging = at(fed([*values, 500.0]), QUARTER)
    assert calm.p10_watts == 0.0
    assert calm.p50_watts == 0.0
    assert swinging.p90_watts - swinging.p10_watts > 300.0


def test_quantiles_are_those_of_the_errors_that_were() -> None:
    """A random walk of ±10 W: p10 and p90 lie at its steps."""
    rng = random.Random(1)
    value, values = 500.0, []
    for _ in range(2000):
        value = min(900.0, max(100.0, value + rng.choice((-10.0, 10.0))))
        values.append(value)
    point = at(fed(values), QUARTER)
    assert point.p10_watts == pytest.approx(value - 10.0, abs=1.0)
    assert point.p90_watts == pytest.approx(value + 10.0, abs=1.0)


def test_below_the_sources_period_the_spread_grows_with_the_root_of_time() -> None:
    """Nothing can be observed there."""
    rng = random.Random(2)
    subject = fed([rng.uniform(450.0, 550.0) for _ in range(500)])
    quarter, ninth = at(subject, QUARTER), at(subject, QUARTER / 9)
    now = at(subject, 0.0).p50_watts
    assert now - ninth.p10_watts == pytest.approx((now - quarter.p10_watts) / 3, rel=1e-6)


def test_a_gap_judges_no_forecast() -> None:
    """What was meant for 15 minutes is not compared with what came after five hours."""
    subject = Forecaster(1000.0)
    for step in range(200):
        subject.observe(500.0 if step % 2 else 100.0, step * 5 * 3600.0)
    point = at(subject, QUARTER)
    wide = wide_error_ratio(QUARTER)
    assert point.p90_watts - point.p10_watts == pytest.approx(2 * wide * 1000.0)


def test_what_is_no_number_or_came_before_is_left_out() -> None:
    """And a clock that was set back begins anew, with what was learnt."""
    subject = fed([500.0, 400.0])
    subject.observe(math.nan, 2 * QUARTER)
    subject.observe(900.0, QUARTER)
    assert at(subject, 0.0).p50_watts == 400.0
    subject.observe(300.0, -QUARTER * 100)
    assert at(subject, 0.0).p50_watts == 300.0


def test_a_farm_without_a_nameplate_is_refused() -> None:
    """Shares of nothing are nothing."""
    with pytest.raises(ValueError, match="must be above 0"):
        Forecaster(0.0)


def test_a_window_keeps_the_last_errors_only() -> None:
    """The oldest leave, whatever their size."""
    window = ErrorWindow()
    for value in range(MAX_ERRORS + 100):
        window.add(float(-value))
    assert len(window) == MAX_ERRORS
    assert window.quantile(1.0) == -100.0
    assert window.quantile(0.0) == -float(MAX_ERRORS + 99)


def test_memory_is_bounded_however_fast_measurements_come() -> None:
    """Some hours of ten a second, with moods as well."""
    subject = Forecaster(1000.0, has_moods=True)
    rng = random.Random(3)
    for step in range(100_000):
        subject.observe(rng.uniform(0, 1000), step * 0.1)
    for errors in subject._errors:
        waiting, kept = errors.counts
        assert waiting <= MAX_WAITING + 2
        assert kept <= MAX_ERRORS * 9 * (1 + 1 + 9)


def test_moods_tell_a_rising_farm_from_a_falling_one() -> None:
    """Where power goes on as it went, knowing how it went makes for a better median and a narrower band."""
    values = [500.0 + 400.0 * math.sin(step / 8) for step in range(4000)]
    off, width = {}, {}
    for has_moods in (False, True):
        subject = fed(values[:3500], has_moods=has_moods)
        off[has_moods] = width[has_moods] = 0.0
        for step in range(3500, 3999):
            subject.observe(values[step], step * QUARTER)
            point = at(subject, QUARTER)
            off[has_moods] += abs(values[step + 1] - point.p50_watts)
            width[has_moods] += point.p90_watts - point.p10_watts
    assert off[True] < 0.85 * off[False]
    assert width[True] < 0.85 * width[False]


@given(
    values=st.lists(st.floats(-100.0, 2000.0), min_size=1, max_size=200),
    period=st.sampled_from([0.5, 1.0, 60.0, 300.0, 900.0]),
    horizons=st.lists(st.floats(0.0, 100_000.0), min_size=1, max_size=8),
    has_moods=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_quantiles_are_in_order_and_within_the_farm(
    values: list[float], period: float, horizons: list[float], has_moods: bool
) -> None:
    """0 ≤ p10 ≤ p50 ≤ p90 ≤ nameplate at every horizon, whatever was measured."""
    for point in fed(values, period, has_moods=has_moods).quantiles(horizons):
        assert 0.0 <= point.p10_watts <= point.p50_watts <= point.p90_watts <= 1000.0
