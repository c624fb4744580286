"""The policies' weights."""

from __future__ import annotations

import pytest
from support.views import FEATURES, view

from router.policy.policies import DEFAULT_POLICY, POLICIES, Candidate
from router.policy.snapshot import Freshness

CANDIDATES = [
    Candidate(view("a"), 10.0, Freshness.FRESH),
    Candidate(view("b"), 30.0, Freshness.FRESH),
    Candidate(view("c"), 40.0, Freshness.STALE),
]


def test_least_loaded_weighs_by_room_and_stale_sites_less():
    """A stale site's room counts a quarter."""
    assert POLICIES["least_loaded"](CANDIDATES, FEATURES, turn=0, now=100.0) == [10.0, 30.0, 10.0]


def test_round_robin_goes_in_turn():
    """One site after the other, whatever its room."""
    chosen = [
        list(POLICIES["round_robin"](CANDIDATES, FEATURES, turn=turn, now=100.0)).index(1.0)
        for turn in range(4)
    ]
    assert chosen == [0, 1, 2, 0]


def test_the_default_is_registered():
    """And the registry cannot be written to."""
    assert DEFAULT_POLICY in POLICIES
    with pytest.raises(TypeError):
        POLICIES["mine"] = POLICIES[DEFAULT_POLICY]  # type: ignore[index]
