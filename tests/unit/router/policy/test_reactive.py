"""Latency, KV use and queue depth, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from support.views import FEATURES, candidate

from router.policy.candidate import Candidate
from router.policy.policies import make_policy
from router.policy.snapshot import NOTHING_KNOWN, Freshness

SLOW = {"ttft_seconds_p50": 2.0, "itl_seconds_p50": 0.02}
FAST = {"ttft_seconds_p50": 1.0, "itl_seconds_p50": 0.01}


PLAIN = {"latency_exponent": 1.0, "kv_exponent": 1.0, "queue_exponent": 1.0}
"""In proportion, so that the figures can be seen; the defaults are tuned."""


def weights(*candidates: Candidate, **parameters: Any) -> list[float]:
    policy = make_policy("reactive", PLAIN | parameters)
    return list(policy.weigh(candidates, FEATURES, NOTHING_KNOWN, turn=0, now=100.0))


def test_twice_the_latency_gets_half_as_much():
    """Whatever its room."""
    assert weights(candidate("a", 3.0, **FAST), candidate("b", 90.0, **SLOW)) == [1.0, 0.5]
    assert weights(candidate("a", **FAST), candidate("b", **SLOW), latency_exponent=0) == [1.0, 1.0]


def test_kv_use_and_queue_count_too():
    """The free part; one that waits per instance halves it."""
    used = weights(candidate("a", kv_cache_usage_ratio=0.2), candidate("b", kv_cache_usage_ratio=0.6))
    assert used == pytest.approx([0.8, 0.4])
    busy = candidate("b", waiting_requests=2, ready_instances=2)
    queued = weights(candidate("a", waiting_requests=0), busy)
    assert queued == [1.0, 0.5]


def test_an_unknown_signal_counts_as_the_mean():
    """Neither best nor worst."""
    three = weights(candidate("a", **FAST), candidate("b", **SLOW), candidate("c"))
    assert three == pytest.approx([1.0, 0.5, 2 / 3])


def test_full_everywhere_is_used_evenly_and_stale_less():
    """Nobody is given up."""
    full = {"kv_cache_usage_ratio": 1.0}
    assert weights(candidate("a", **full), candidate("b", **full)) == [0.01, 0.01]
    assert weights(candidate("a"), candidate("b", 1.0, Freshness.STALE)) == [1.0, 0.25]
