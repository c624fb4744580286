"""`selective_push`: only to sites whose queue is short, near ones first; else the request waits here. Pure.

Stands for SkyWalker (arXiv 2505.24095): a balancer per region forwards only while the target's queue is
short, because a request that waits at the balancer can still go anywhere and one that waits at an engine
cannot; it prefers its own region, and other regions take what the own one cannot. Its prefix tree is this
router's affinity (`router.policy.affinity`), which every policy has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from fleet.request import RequestFeatures
from router.policy.baselines import Baseline
from router.policy.candidate import Candidate
from router.policy.figures import known
from router.policy.parameters import PolicyParameters
from router.policy.snapshot import Snapshot


class SelectivePushParameters(PolicyParameters):
    """`[router.policy_parameters.selective_push]`."""

    waiting_per_instance: Annotated[float, Field(ge=0, le=1000)] = 4.0
    """A queue is short up to so many requests that wait, per ready instance: one is read, a few are next.
    SkyWalker's own rule is none; but vLLM counts a prompt that it is reading as one that waits."""
    region: str | None = None
    """This router's own region, as sites name theirs: its sites go first. None: the nearest go first."""
    near_seconds: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Without a region: sites within so much of the shortest round trip are all near. Unknown is near."""


class SelectivePush(Baseline):
    """The nearest sites whose queue is short, in proportion to their room."""

    name = "selective_push"
    may_hold = True
    Parameters = SelectivePushParameters

    def __init__(self, parameters: SelectivePushParameters) -> None:
        self._waiting_per_instance = parameters.waiting_per_instance
        self._region = parameters.region
        self._near_seconds = parameters.near_seconds

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002
        context: Snapshot,
        *,
        turn: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Sequence[float]:
        """Room where the queue is short and the site near; 0 elsewhere, and everywhere if none is short."""
        weights = [candidate.room_requests if self._is_short(candidate) else 0.0 for candidate in candidates]
        near = self._are_near(candidates, context, weights)
        if any(is_near and weight > 0 for is_near, weight in zip(near, weights, strict=True)):
            return [weight if is_near else 0.0 for is_near, weight in zip(near, weights, strict=True)]
        return weights

    def _is_short(self, candidate: Candidate) -> bool:
        view = candidate.view
        waiting = known(view.waiting_requests) or 0.0  # unknown: a site that says nothing is not held back
        return waiting <= self._waiting_per_instance * (view.ready_instances or 1)

    def _are_near(
        self, candidates: Sequence[Candidate], context: Snapshot, weights: Sequence[float]
    ) -> Sequence[bool]:
        if self._region is not None:
            return [
                (site := context.sites.get(candidate.view.site_id)) is not None
                and site.region == self._region
                for candidate in candidates
            ]
        trips = [known(candidate.load.round_trip_seconds) for candidate in candidates]
        open_trips = [
            trip for trip, weight in zip(trips, weights, strict=True) if trip is not None and weight > 0
        ]
        most = min(open_trips, default=0.0) + self._near_seconds
        return [trip is None or trip <= most for trip in trips]
