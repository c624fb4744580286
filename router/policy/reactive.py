"""`reactive`: from latency, KV-cache use and queue depth alone. Pure.

Stands for XWind (arXiv 2605.23348, of which only the abstract was at hand): its cross-site router steers by
inference latency, KV-cache use and queue depth, knows nothing of the workload, of power or of a plan, and
leaves it to each site to live within its power. How it combines the three is not public; here they multiply,
so that a site that is bad in one respect is avoided however good it is in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from fleet.request import RequestFeatures
from router.policy.baselines import STALE_WEIGHT, Baseline
from router.policy.candidate import Candidate
from router.policy.figures import known, or_equal, with_mean
from router.policy.parameters import PolicyParameters
from router.policy.snapshot import Freshness, ModelView, Snapshot

LEAST_FREE_RATIO = 0.01
"""A full KV cache still gets a hundredth, so that a fleet that is full everywhere is used evenly."""
Exponent = Annotated[float, Field(ge=0, le=8)]


class ReactiveParameters(PolicyParameters):
    """`[router.policy_parameters.reactive]`: how much each signal counts; 0 leaves it out."""

    latency_exponent: Exponent = 2.0
    """1: a site that takes twice as long gets half as much."""
    kv_exponent: Exponent = 2.0
    """1: in proportion to the free part of the KV cache."""
    queue_exponent: Exponent = 0.3
    """1: one waiting request per instance halves the weight."""
    reference_output_tokens: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Latency is that of an answer of so many tokens, whatever the request: blind to the workload."""


class Reactive(Baseline):
    """The product of the three signals; an unknown one counts as the mean site's."""

    name = "reactive"
    Parameters = ReactiveParameters

    def __init__(self, parameters: ReactiveParameters) -> None:
        self._parameters = parameters

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002 - blind to the workload
        context: Snapshot,  # noqa: ARG002 - live signals only
        *,
        turn: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Sequence[float]:
        """By latency, KV use and queue depth."""
        own = self._parameters
        latencies = with_mean([self._seconds(candidate.view) for candidate in candidates])
        best = min(latencies)
        free = with_mean([_free_ratio(candidate.view) for candidate in candidates])
        queues = with_mean([_waiting(candidate.view) for candidate in candidates], default=0.0)
        weights = []
        for index, candidate in enumerate(candidates):
            latency = latencies[index]
            weight = (best / latency) ** own.latency_exponent if latency > 0 else 1.0
            weight *= max(free[index], LEAST_FREE_RATIO) ** own.kv_exponent
            weight /= (1.0 + queues[index]) ** own.queue_exponent
            weights.append(weight if candidate.freshness is Freshness.FRESH else weight * STALE_WEIGHT)
        return or_equal(weights)

    def _seconds(self, view: ModelView) -> float | None:
        first, gap = known(view.ttft_seconds_p50), known(view.itl_seconds_p50)
        if first is None or gap is None:
            return None
        return first + gap * self._parameters.reference_output_tokens


def _free_ratio(view: ModelView) -> float | None:
    used = known(view.kv_cache_usage_ratio)
    return None if used is None else max(0.0, 1.0 - used)


def _waiting(view: ModelView) -> float | None:
    waiting = known(view.waiting_requests)
    return None if waiting is None else waiting / (view.ready_instances or 1)
