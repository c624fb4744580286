"""How fast a site goes up, and down where nothing forces it."""

from __future__ import annotations

from site_agent.pace import Pace
from site_agent.situation import GovernorRule


def test_a_cold_site_takes_every_step_at_once_then_one_a_time() -> None:
    """Nothing was taken down yet, so nothing is held back."""
    pace = Pace(rule=GovernorRule(rise_step_seconds=1.0))
    for _ in range(3):
        assert pace.may_step_up(500.0, 0.0)
        pace.stepped_up(0.0)
    pace.is_cold = False
    pace.stepped_up(10.0)
    assert not pace.may_step_up(500.0, 10.9)
    assert pace.may_step_up(500.0, 11.0)


def test_a_ramp_limit_holds_both_ways_and_from_the_start() -> None:
    """So many watts need so many seconds."""
    pace = Pace(rule=GovernorRule(max_ramp_watts_per_second=100.0))
    assert not pace.is_cold
    pace.stepped_up(0.0)
    pace.stepped_down(0.0)
    assert not pace.may_step_up(500.0, 4.9)
    assert pace.may_step_up(500.0, 5.0)
    assert not pace.may_step_down(500.0, 4.9)
    assert pace.may_step_down(500.0, 5.0)


def test_starts_are_counted_over_the_last_hour() -> None:
    """Not over the clock's hour."""
    pace = Pace(rule=GovernorRule(max_starts_per_hour=2))
    pace.started(0.0)
    pace.started(1800.0)
    assert not pace.may_start(3599.0)
    assert pace.may_start(3600.0)
