"""The registry, the parameters, and the plain baselines' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.views import FEATURES, candidate

from router.policy.candidate import Candidate
from router.policy.parameters import PolicyParameterError
from router.policy.policies import DEFAULT_POLICY, POLICIES, make_policy
from router.policy.snapshot import NOTHING_KNOWN, Freshness, Snapshot

CANDIDATES = [candidate("a", 10.0), candidate("b", 30.0), candidate("c", 40.0, Freshness.STALE)]


def weights(
    name: str,
    candidates: Sequence[Candidate] = CANDIDATES,
    context: Snapshot = NOTHING_KNOWN,
    *,
    turn: int = 0,
    now: float = 100.0,
    **parameters: Any,
) -> list[float]:
    policy = make_policy(name, parameters)
    return list(policy.weigh(candidates, FEATURES, context, turn=turn, now=now))


def test_least_loaded_weighs_by_room_and_stale_sites_less():
    """A stale site's room counts a quarter."""
    assert weights("least_loaded") == [10.0, 30.0, 10.0]


def test_round_robin_goes_in_turn():
    """One site after the other, whatever its room."""
    assert [weights("round_robin", turn=turn).index(1.0) for turn in range(4)] == [0, 1, 2, 0]


def test_the_default_is_registered():
    """And the registry cannot be written to."""
    assert DEFAULT_POLICY in POLICIES
    with pytest.raises(TypeError):
        POLICIES["mine"] = POLICIES[DEFAULT_POLICY]  # type: ignore[index]


def test_an_unknown_policy_names_those_there_are():
    """Whoever mistyped it sees the right one."""
    with pytest.raises(PolicyParameterError, match=r"no policy 'magic'; allowed are .*least_loaded"):
        make_policy("magic")


def test_an_unknown_parameter_is_an_error():
    """Not one that is silently without effect."""
    with pytest.raises(PolicyParameterError, match=r"least_loaded\.speed = 3: no such parameter"):
        make_policy("least_loaded", {"speed": 3})
