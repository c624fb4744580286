"""The load to be ready for, and the most of late that it is made of."""

from __future__ import annotations

from site_agent.load_watch import LoadWatch
from site_agent.recent import RecentMost


def test_the_most_of_late_rises_at_once_and_falls_when_the_hold_is_over() -> None:
    """Equal and lower values in between change nothing."""
    recent = RecentMost(hold_seconds=10.0)
    assert recent.most == 0.0
    assert [recent.observe(value, at) for at, value in [(0, 3), (1, 5), (5, 2), (11, 4), (11.1, 1)]] == [
        *(3, 5, 5, 5, 4)
    ]
    recent.forget()
    assert recent.observe(-2, 12.0) == -2


def test_load_is_known_after_a_hold_and_overrun_for_a_hold() -> None:
    """Before that it may yet come; after it, it was long ago."""
    load = LoadWatch(hold_seconds=60.0)
    load.observe(4, 0, 100.0)
    assert not load.is_known(159.0)
    assert load.is_known(160.0)
    assert not load.is_overrun(100.0)
    load.observe(9, 1, 110.0)
    load.observe(2, 0, 111.0)
    assert load.most == 9
    assert load.is_overrun(169.0)
    assert not load.is_overrun(170.0)
