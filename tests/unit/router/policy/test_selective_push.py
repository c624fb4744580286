"""Push only where the queue is short, near first."""

from __future__ import annotations

from typing import Any

from support.views import FEATURES, candidate, info, snapshot_of

from router.policy.candidate import Candidate
from router.policy.policies import make_policy


def weights(*candidates: Candidate, **parameters: Any) -> list[float]:
    policy = make_policy("selective_push", parameters)
    regions = {
        one.view.site_id: {"region": "north" if one.view.site_id == "a" else "south", "info": info("a")}
        for one in candidates
    }
    context = snapshot_of(candidates, **regions)
    return list(policy.weigh(candidates, FEATURES, context, turn=0, now=100.0))


def test_a_site_with_a_long_queue_gets_nothing():
    """Four per instance are short; unknown is not long."""
    short = candidate("a", 5.0, waiting_requests=8, ready_instances=2)
    long = candidate("b", 50.0, waiting_requests=9, ready_instances=2)
    assert weights(short, long, candidate("c", 7.0)) == [5.0, 0.0, 7.0]
    assert weights(short, long, waiting_per_instance=5) == [5.0, 50.0]


def test_with_long_queues_everywhere_the_request_waits_here():
    """All 0: nowhere now, also with a single candidate."""
    assert weights(candidate("a", waiting_requests=9), candidate("b", waiting_requests=9)) == [0.0, 0.0]
    assert make_policy("selective_push").may_hold


def test_its_own_region_goes_first():
    """Others take what it cannot."""
    assert weights(candidate("a"), candidate("b"), region="north") == [10.0, 0.0]
    full = candidate("a", waiting_requests=9)
    assert weights(full, candidate("b"), region="north") == [0.0, 10.0]


def test_without_a_region_the_nearest_with_a_short_queue_go_first():
    """By the round trip; one that is not measured counts as near."""
    near, far, unknown = candidate("a"), candidate("b"), candidate("c")
    near.load.round_trip_seconds, far.load.round_trip_seconds = 0.005, 0.15
    assert weights(near, far, unknown) == [10.0, 0.0, 10.0]
    busy = candidate("a", waiting_requests=9)
    busy.load.round_trip_seconds = 0.005
    assert weights(busy, far) == [0.0, 10.0]
