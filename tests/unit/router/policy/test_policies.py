"""The registry, the parameters, and the plain baselines' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.views import FEATURES, candidate, info, outlook, snapshot_of

from router.policy.baselines import watts_of
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


def test_static_weights_are_installed_gpus_however_stale_or_short_the_site():
    """One without a SiteInfo counts as the mean."""
    context = snapshot_of(CANDIDATES, a={"info": info("a", 4)}, c={"info": info("c", 12)})
    assert weights("static_weighted", context=context) == [4.0, 8.0, 12.0]
    assert weights("static_weighted") == [1.0, 1.0, 1.0]


def test_power_weights_are_granted_watts_else_the_cap_else_the_mean():
    """No power at all anywhere: all equal, for a site that still serves may finish it."""
    context = snapshot_of(CANDIDATES, b={"cap_watts": 1000.0}).with_power(outlook("a", 3000.0))
    assert weights("power_weighted", context=context) == [3000.0, 1000.0, 2000.0]
    dead = NOTHING_KNOWN
    for site_id in "abc":
        dead = dead.with_power(outlook(site_id, 0.0))
    assert weights("power_weighted", context=dead) == [1.0, 1.0, 1.0]
    assert watts_of(NOTHING_KNOWN, "a") is None


def test_old_power_is_that_of_so_long_ago():
    """Until so much was seen the oldest counts; a clock that jumps back starts anew."""
    policy = make_policy("power_weighted", {"age_seconds": 64.0})
    base = snapshot_of(CANDIDATES)

    def weigh(watts: float, now: float) -> float:
        context = base.with_power(outlook("a", watts)).with_power(outlook("b", 100.0))
        return policy.weigh(CANDIDATES, FEATURES, context, turn=0, now=now)[0]

    seen = [weigh(10.0 + step, 1000.0 + step) for step in range(200)]
    assert seen[50] == 10.0
    assert seen[64:] == [10.0 + step for step in range(136)]
    assert weigh(500.0, 100.0) == 500.0


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
