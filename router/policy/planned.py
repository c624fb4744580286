"""`planned`: the plan's fractions per class, and nothing else while it holds. Pure.

Stands for Heron the paper as far as its abstract tells (arXiv 2505.09989): a planner that knows the power of
all sites decides what part of each request class each site serves, and requests are spread by that. Within a
site, packing requests onto few instances is the agent's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fleet.request import RequestFeatures
from router.policy.baselines import Baseline
from router.policy.candidate import Candidate
from router.policy.figures import with_mean
from router.policy.parameters import PolicyParameters
from router.policy.snapshot import Snapshot


class PlannedParameters(PolicyParameters):
    """`[router.policy_parameters.planned]`."""

    spill: bool = True
    """When all sites that the plan names for a class are full: True, it goes where there is room; False, it
    waits for them."""


class Planned(Baseline):
    """By the plan's fractions; where there is no plan for this work, by room."""

    name = "planned"
    Parameters = PlannedParameters

    def __init__(self, parameters: PlannedParameters) -> None:
        self.may_hold = not parameters.spill

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,
        context: Snapshot,
        *,
        turn: int,  # noqa: ARG002
        now: float,
    ) -> Sequence[float]:
        """Fractions of this class, of the sites that have room."""
        plan = context.plan
        if plan is not None and plan.is_valid(now):
            by_site = plan.fractions(features.model, features.request_class)
            if by_site is not None:
                parts = [by_site.get(candidate.view.site_id, 0.0) for candidate in candidates]
                weights = [part if 0.0 < part <= 1.0 else 0.0 for part in parts]
                if self.may_hold or sum(weights) > 0.0:
                    return weights
        return with_mean([candidate.room_requests for candidate in candidates])

    def shortlist(
        self, features: RequestFeatures, context: Snapshot, count: int, *, now: float, rng: random.Random
    ) -> Sequence[str]:
        """Sites that the plan names for this class."""
        plan = context.plan
        if plan is None or not plan.is_valid(now):
            return ()
        return plan.draw(features.model, features.request_class, count, rng)
