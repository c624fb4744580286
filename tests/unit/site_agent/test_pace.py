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
    pace.stopped(["a", "b", "c"])
    pace.started("a", 0.0)
    pace.started("b", 1800.0)
    assert not pace.may_start("c", 3599.0)
    assert pace.may_start("c", 3600.0)


def test_only_starts_after_an_ordered_stop_are_counted() -> None:
    """One that ends by itself uses up nobody's, and its own only once for each stop."""
    pace = Pace(rule=GovernorRule(max_starts_per_hour=2))
    pace.stopped(["a"])
    for second in range(5):
        pace.started("a", float(second))
    pace.stopped(["b"])
    assert pace.may_start("b", 10.0)
    pace.started("b", 10.0)
    pace.stopped(["a", "b"])
    assert not pace.may_start("b", 11.0)
    assert pace.may_start("c", 11.0)
