"""What a routing policy is: the one Protocol of DESIGN §6. Pure.

A policy only weighs candidates; `router.policy.dispatch` filters before it and samples after it. What it
knows beyond the candidates it reads from the snapshot, the same that the candidates were taken from: sites
with their SiteInfo, power with its forecast, the plan. What it does not read costs nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from fleet.request import RequestFeatures
from router.policy.candidate import Candidate
from router.policy.snapshot import ModelView, Snapshot


class Policy(Protocol):
    """One object per process; may keep state that is bounded, and decides the same for the same calls."""

    name: str
    """As in the registry."""
    may_hold: bool
    """It may give nobody any weight: the request waits at the router. A single candidate is weighed too."""
    is_choosy: bool
    """Of a request whose class has an SLO it may give nobody any weight: that one waits, others need not. A
    single candidate is weighed too."""
    is_again: bool
    """Set before a choosy one weighs: this request was asked about before."""
    is_in_turn: bool
    """Sites are taken in turn: in a large fleet the first candidates are those whose turn it is."""

    affinity_floor_ratio: float
    """Affinity does not send to a site with less than this of the best one's weight, by capacity."""
    is_told: bool
    """It is told where each request went (`sent`)."""

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,
        context: Snapshot,
        *,
        turn: int,
        now: float,
    ) -> Sequence[float]:
        """One finite weight ≥ 0 per candidate; a request goes to each in proportion. All 0: nowhere now.

        `turn` counts decisions from 0. `candidates` is never empty.
        """

    def is_shut(self, views: Sequence[ModelView], features: RequestFeatures, now: float) -> bool:
        """Of a request that it would not place before: whether it still would not, wherever there were room.
        False where that takes a real look. Only where `is_choosy`.
        """

    def sent(self, view: ModelView, features: RequestFeatures, now: float) -> None:
        """The request goes there; only where `is_told`."""

    def shortlist(
        self, features: RequestFeatures, context: Snapshot, count: int, *, now: float, rng: random.Random
    ) -> Sequence[str]:
        """Of a fleet too large to look at all: at most `count` sites that must be among the candidates."""
