"""What a request looks at in a large fleet."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.views import FEATURES, loads, view

from router.policy.dispatch import choose
from router.policy.policies import make_policy
from router.policy.spread import spread


@given(st.integers(1, 300), st.integers(0, 2**32), st.lists(st.integers(0, 400), max_size=5))
def test_every_site_is_met_once_whatever_comes_first(count: int, start: int, first: list[int]):
    """Named ones first; names that are not there are passed over."""
    views = [view(f"{number:04d}") for number in range(count)]
    names = [f"{number:04d}" for number in first]
    met = [one.site_id for one in spread(views, names, start=start)]
    assert sorted(met) == [one.site_id for one in views]
    known = [name for name in dict.fromkeys(names) if int(name) < count]
    assert met[: len(known)] == known


def pick(policy: str, rooms: list[float], seed: int, turn: int = 1) -> str | None:
    views = [view(f"{number:04d}", headroom_requests=room) for number, room in enumerate(rooms)]
    chosen = choose(
        views,
        loads(*(one.site_id for one in views)),
        policy=make_policy(policy),
        features=FEATURES,
        excluded={},
        is_resume=False,
        reserve_ratio=0.0,
        turn=turn,
        now=101.0,
        rng=random.Random(seed),
    )
    return None if chosen is None else chosen.site_id


def test_the_one_site_with_room_is_found_among_many():
    """However many are full."""
    rooms = [0.0] * 500
    assert pick("least_loaded", rooms, 1) is None
    rooms[137] = 5.0
    assert pick("least_loaded", rooms, 1) == "0137"


def test_a_large_fleet_is_used_evenly():
    """No site is looked at more than another."""
    counts = Counter(pick("least_loaded", [10.0] * 100, seed) for seed in range(2000))
    assert len(counts) == 100
    assert max(counts.values()) < 45  # mean 20


def test_in_turn_means_every_site_of_a_large_fleet():
    """Each once in as many turns as there are sites."""
    met = [pick("round_robin", [10.0] * 100, 1, turn) for turn in range(100)]
    assert len(set(met)) == 100
