"""The cap that the governor plans with."""

from __future__ import annotations

import math

import pytest

from site_agent.cap_outlook import CapOutlook, later_watts, soon_watts, sure_watts
from site_agent.situation import CapForecast


def outlook() -> CapOutlook:
    return CapOutlook(hold_seconds=3.0, horizon_seconds=2.5)


def test_a_fall_counts_at_once_and_a_rise_when_it_has_lasted() -> None:
    """Three seconds here."""
    caps = outlook()
    assert caps.observe(5000, 0.0) == (5000, 5000)
    assert caps.observe(2000, 0.1) == (2000, 2000)
    assert caps.observe(5000, 0.2) == (5000, 2000)
    assert caps.observe(5000, 3.0) == (5000, 2000)
    assert caps.observe(5000, 3.2) == (5000, 5000)


def test_a_ramp_is_run_ahead_of() -> None:
    """Once three windows in a row have seen it."""
    caps = outlook()
    for tenth in range(45):
        expected, held = caps.observe(6000 - 500 * (tenth // 10), tenth / 10)
    assert expected == pytest.approx(4000 - 500 / 1.05 * 2.5)
    assert held == expected


@pytest.mark.parametrize("second_at", [0.1, 0.5, 1.0])
def test_a_drop_in_two_readings_is_no_ramp(second_at: float) -> None:
    """What falls no further is taken as it is."""
    caps = outlook()
    for tenth in range(100):
        at = tenth / 10
        watts = 6000 - 1000 * (at >= 4) - 1000 * (at >= 4 + second_at)
        expected, _ = caps.observe(watts, at)
        assert expected == watts


def test_what_is_forgotten_holds_nothing() -> None:
    """A cold start needs no hold."""
    caps = outlook()
    caps.observe(0, 0.0)
    caps.forget()
    assert caps.observe(5000, 0.1) == (5000, 5000)


def test_a_ramp_is_not_run_ahead_of_below_firm_power() -> None:
    """What is firm is there at its end: no engine that fits it must go."""
    caps = CapOutlook(hold_seconds=3.0, horizon_seconds=2.5, floor_watts=1300.0)
    expected = [caps.observe(4000.0 - 400.0 * second, float(second))[0] for second in range(9)]
    assert expected[5] < 2000.0
    assert expected[6] == 1300.0
    assert expected[8] == 800.0, "a cap below the floor is obeyed as it is"


def test_turbulence_is_kept_as_headroom_beside_the_noise() -> None:
    """Falls of 50 W every other second: their root mean square a second is 35 W."""
    caps = outlook()
    for second in range(1200):
        _, held = caps.observe(5000 - 50 * (second % 2), float(second))
    assert caps.headroom_watts(held, 0.0, 4.0) == pytest.approx(4 * 35.4, rel=0.02)
    assert caps.headroom_watts(held, 0.04, 4.0) == pytest.approx(
        ((0.04 * held) ** 2 + 141.4**2) ** 0.5, rel=0.02
    )
    for second in range(1200, 2400):
        caps.observe(5000, float(second))
    assert caps.headroom_watts(5000, 0.0, 4.0) < 2


def test_a_deep_fall_is_no_turbulence_and_turbulence_is_bounded() -> None:
    """More than a twentieth in one reading is what the ladder is for."""
    caps = outlook()
    caps.observe(5000, 0.0)
    caps.observe(4000, 1.0)
    assert caps.headroom_watts(4000, 0.04, 6.5) == pytest.approx(160)
    for second in range(2, 1000):
        caps.observe(4000 - 190 * (second % 2), float(second))
    assert caps.headroom_watts(4000, 0.0, 20.0) == pytest.approx(400)


def point(horizon_seconds: float, watts: float) -> CapForecast:
    return CapForecast(horizon_seconds=horizon_seconds, p10_watts=0, p50_watts=watts, p90_watts=9e9)


def test_an_expected_fall_counts_within_the_time_that_is_asked_for() -> None:
    """Its median; interpolated between two horizons, and from now to the first."""
    drop = [point(60, 5000), point(120, 2000)]
    assert soon_watts(5000, drop, age_seconds=0, within_seconds=30) == 5000
    assert soon_watts(5000, drop, age_seconds=0, within_seconds=90) == 3500
    assert soon_watts(5000, drop, age_seconds=30, within_seconds=90) == 2000
    assert soon_watts(5000, [point(100, 4000)], age_seconds=0, within_seconds=50) == 4500


def test_an_expected_rise_raises_nothing_and_nonsense_is_left_out() -> None:
    """Power counts when it is there."""
    assert soon_watts(3000, [point(10, 9000)], age_seconds=0, within_seconds=60) == 3000
    assert soon_watts(3000, [point(10, float("nan"))], age_seconds=0, within_seconds=60) == 3000
    assert soon_watts(3000, [], age_seconds=0, within_seconds=60) == 3000
    assert soon_watts(3000, [point(10, 100)], age_seconds=11, within_seconds=60) == 3000


def test_what_is_sure_is_the_low_quantile_of_what_lies_within_the_time() -> None:
    """Never above what there is now; what is past or later does not count."""
    points = [
        CapForecast(horizon_seconds=at, p10_watts=low, p50_watts=5000, p90_watts=6000)
        for at, low in ((10.0, 3000.0), (60.0, 3500.0), (300.0, 1000.0))
    ]
    assert sure_watts(4000, points, age_seconds=0, within_seconds=60) == 3000
    assert sure_watts(4000, points, age_seconds=20, within_seconds=60) == 3500
    assert sure_watts(2000, points, age_seconds=0, within_seconds=60) == 2000
    assert sure_watts(4000, (), age_seconds=0, within_seconds=60) == 4000


def test_later_are_three_quantiles_of_the_next_half_hour_less_the_headroom() -> None:
    """What is too near to start for, or too far to know, is left out; so is what is no number."""
    points = [
        CapForecast(horizon_seconds=at, p10_watts=1000, p50_watts=2000, p90_watts=high)
        for at, high in ((60.0, 3000.0), (300.0, 3000.0), (900.0, math.nan), (3600.0, 3000.0))
    ]
    assert later_watts(points, age_seconds=0, share=0.5) == (500, 1000, 1500, 500, 1000)
    assert later_watts((), age_seconds=0, share=0.5) == ()
