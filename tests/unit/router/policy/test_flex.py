"""Surplus only, and at a pace."""

from __future__ import annotations

import pytest
from support.views import loads, view

from router.policy.flex import Pace, surplus_room


@pytest.mark.parametrize(
    ("changes", "room", "surplus"),
    [
        ({"capacity_requests": 20.0}, 20.0, 14.0),
        ({"capacity_requests": 20.0}, 6.0, 0.0),
        ({"capacity_requests": 21.0}, 8.0, 1.0),
        ({"capacity_requests": None}, 8.0, 5.0),
        ({"capacity_requests": 20.0, "is_confirmed": False}, 20.0, 0.0),
        ({"capacity_requests": 20.0, "arrived_at": 90.0}, 20.0, 0.0),
    ],
    ids=["free", "at the share", "rounded up", "capacity unknown", "not confirmed", "stale"],
)
def test_what_flex_may_use_of_a_site_s_room(changes: dict[str, object], room: float, surplus: float):
    """Three tenths stay free; what is not fresh is no evidence of surplus."""
    load = loads("a")["a"]
    load.in_flight = 2
    assert surplus_room(view(**changes), load, room, 0.3, 101.0) == surplus


def test_a_pace_of_four_a_second_lets_one_go_each_quarter():
    """And no burst after a rest."""
    pace, gone = Pace(4.0), []
    for tick in range(20):
        now = 100.0 + tick * 0.1
        if pace.is_ready(now):
            pace.take(now)
            gone.append(now)
    assert len(gone) in (8, 9)
    pace.take(200.0)
    assert not pace.is_ready(200.1)


def test_a_fast_pace_is_kept_by_one_who_looks_ten_times_a_second():
    """Whoever comes late for one may take the next at once."""
    pace, gone = Pace(40.0), 0
    for tick in range(10):
        now = 100.0 + tick * 0.1
        while pace.is_ready(now):
            pace.take(now)
            gone += 1
    assert 36 <= gone <= 45
