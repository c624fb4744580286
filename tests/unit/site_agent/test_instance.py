"""An instance's back-off and its cap on restarts."""

from __future__ import annotations

import random

import pytest
from support.fake_drivers import specs

from fleet.instance import IllegalMoveError, InstanceState
from site_agent.instance import Instance, RestartRule

RULE = RestartRule(backoff_seconds=1.0, max_backoff_seconds=8.0, max_per_hour=6)


def instance() -> Instance:
    return Instance(spec=specs(1)[0])


def test_the_back_off_doubles_up_to_its_limit() -> None:
    """With a jitter of a fifth."""
    one, rng = instance(), random.Random(1)
    waits = [one.fail("x", RULE, rng, float(number)) for number in range(5)]
    for wait, plain in zip(waits, (1, 2, 4, 8, 8), strict=True):
        assert wait == pytest.approx(plain, rel=0.2)


def test_beyond_the_cap_it_waits_for_the_hour_to_pass() -> None:
    """Counted from the first of the failures."""
    one, rng = instance(), random.Random(1)
    for number in range(6):
        one.fail("out of memory", RULE, rng, 100.0 * number)
    assert not one.can_start(3599.0)
    assert one.is_failing(3599.0)
    assert one.can_start(3600.0)
    assert one.last_fault == "out of memory"


def test_a_stable_minute_forgets_the_failures_in_a_row() -> None:
    """An engine that crashes once a day restarts at once."""
    one, rng = instance(), random.Random(1)
    for number in range(4):
        one.fail("x", RULE, rng, float(number))
    one.move(InstanceState.STARTING, 50.0)
    one.move(InstanceState.READY, 52.0)
    assert one.fail("x", RULE, rng, 200.0) == pytest.approx(1, rel=0.2)


def test_only_legal_moves_are_made() -> None:
    """A stopped instance cannot drain."""
    with pytest.raises(IllegalMoveError, match="stopped cannot become draining"):
        instance().move(InstanceState.DRAINING, 0.0)
