"""The plan as decisions read it: whose share of which work, and until when. Pure.

Rule: a plan is a prior. Where it says nothing of a model and class, or is over, it says nothing (`None`),
which is not the same as nothing for a site (0).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from fleet.records import Plan, PlanTarget


class Shares(NamedTuple):
    """One class of one model: sites in order of name, and the running sum of their fractions."""

    site_ids: tuple[str, ...]
    sums: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """One plan that this router has taken; immutable but for what it remembers of itself."""

    epoch: int
    valid_until_at: float
    """Monotonic seconds here; its writer's clock is not asked."""
    weights: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """model → request class → site → fraction."""
    targets: Mapping[str, Sequence[PlanTarget]] = field(default_factory=dict)
    """site → instances per configuration."""
    _shares: dict[tuple[str, str], Shares] = field(default_factory=dict, repr=False, compare=False)

    def is_valid(self, now: float) -> bool:
        """Whether it still holds."""
        return now <= self.valid_until_at

    def fractions(self, model: str, request_class: str) -> Mapping[str, float] | None:
        """Site → fraction of this work; None where the plan says nothing of it, or nobody gets any."""
        by_site = self.weights.get(model, {}).get(request_class)
        return by_site or None

    def fraction(self, model: str, request_class: str, site_id: str) -> float | None:
        """The site's part of this work, 0 where others get it all; None where the plan does not say."""
        by_site = self.fractions(model, request_class)
        return None if by_site is None else by_site.get(site_id, 0.0)

    def draw(self, model: str, request_class: str, count: int, rng: random.Random) -> list[str]:
        """At most `count` sites, in proportion to their fractions; for fleets too large to look at all."""
        key = (model, request_class)
        shares = self._shares.get(key)
        if shares is None:
            by_site = self.fractions(model, request_class) or {}
            some = sorted((site_id, part) for site_id, part in by_site.items() if part > 0)
            shares = self._shares[key] = Shares(
                tuple(site_id for site_id, _ in some), tuple(accumulate(part for _, part in some))
            )
        if not shares.site_ids:
            return []
        last, total = len(shares.site_ids) - 1, shares.sums[-1]
        drawn = (bisect_right(shares.sums, rng.random() * total) for _ in range(count))
        return list(dict.fromkeys(shares.site_ids[min(index, last)] for index in drawn))


def plan_view(plan: Plan, *, arrived_at: float) -> PlanView:
    """A plan that arrived at `arrived_at` (monotonic); what it says of its own clock is not used."""
    return PlanView(
        epoch=plan.epoch,
        valid_until_at=arrived_at + plan.valid_for_seconds,
        weights=plan.weights,
        targets=plan.targets,
    )
