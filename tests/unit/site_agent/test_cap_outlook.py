"""The cap that the governor plans with."""

from __future__ import annotations

import pytest

from site_agent.cap_outlook import CapOutlook


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
