"""The plan as decisions read it."""

from __future__ import annotations

import random
from collections import Counter

from router.policy.plan_view import PlanView

PLAN = PlanView(
    epoch=3, valid_until_at=160.0, weights={"m": {"SS": {"a": 0.75, "b": 0.25, "c": 0.0}, "SM": {}}}
)


def test_a_site_that_the_plan_leaves_out_has_none_and_an_unknown_class_says_nothing():
    """0 and None are two things."""
    assert PLAN.fraction("m", "SS", "a") == 0.75
    assert PLAN.fraction("m", "SS", "x") == 0.0
    assert PLAN.fraction("m", "SM", "a") is None
    assert PLAN.fraction("m", "LL", "a") is None
    assert PLAN.fraction("n", "SS", "a") is None


def test_a_plan_holds_until_its_time_is_over():
    """By this machine's clock."""
    assert PLAN.is_valid(160.0)
    assert not PLAN.is_valid(160.1)


def test_draws_follow_the_fractions():
    """And name nobody twice, nor anybody without a part."""
    counts = Counter(name for seed in range(1000) for name in PLAN.draw("m", "SS", 1, random.Random(seed)))
    assert 700 < counts["a"] < 800
    assert counts["a"] + counts["b"] == 1000
    assert sorted(PLAN.draw("m", "SS", 50, random.Random(1))) == ["a", "b"]
    assert PLAN.draw("m", "LL", 5, random.Random(1)) == []
