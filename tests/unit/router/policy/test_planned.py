"""The plan's fractions while it holds."""

from __future__ import annotations

import random
from typing import Any

from support.views import FEATURES, candidate

from router.policy.plan_view import PlanView
from router.policy.policies import make_policy
from router.policy.snapshot import Snapshot

CANDIDATES = [candidate("a", 5.0), candidate("b", 7.0)]


def weights(parts: dict[str, float], now: float = 100.0, **parameters: Any) -> list[float]:
    plan = PlanView(epoch=1, valid_until_at=150.0, weights={"m": {"SS": parts}})
    policy = make_policy("planned", parameters)
    return list(policy.weigh(CANDIDATES, FEATURES, Snapshot(plan=plan), turn=0, now=now))


def test_weights_are_the_plans_fractions():
    """Of the sites that have room."""
    assert weights({"a": 0.25, "b": 0.5, "x": 0.25}) == [0.25, 0.5]
    assert weights({"b": 1.0}) == [0.0, 1.0]


def test_what_the_plan_does_not_place_goes_by_room():
    """No word of the class, an expired plan, or all its sites full."""
    assert weights({}) == [5.0, 7.0]
    assert weights({"b": 1.0}, now=151.0) == [5.0, 7.0]
    assert weights({"x": 1.0}) == [5.0, 7.0]


def test_without_spill_it_waits_for_the_planned_sites():
    """All 0."""
    assert weights({"x": 1.0}, spill=False) == [0.0, 0.0]
    assert make_policy("planned", {"spill": False}).may_hold


def test_in_a_large_fleet_the_planned_sites_are_looked_at_first():
    """While the plan holds."""
    plan = PlanView(epoch=1, valid_until_at=150.0, weights={"m": {"SS": {"b": 1.0}}})
    policy = make_policy("planned")
    context = Snapshot(plan=plan)
    rng = random.Random(1)
    assert list(policy.shortlist(FEATURES, context, 16, now=100.0, rng=rng)) == ["b"]
    assert list(policy.shortlist(FEATURES, context, 16, now=151.0, rng=rng)) == []
