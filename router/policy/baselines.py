"""The plain baselines (DESIGN §6): in turn, by GPUs, by power, by room. Pure.

Each stands for what a careful operator would run without Heron, behind the same filter: no policy sends to a
site that is dark, draining, ejected or without room.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fleet.request import RequestFeatures
from router.policy.candidate import Candidate
from router.policy.parameters import NoParameters
from router.policy.snapshot import Freshness, Snapshot

FRESH = Freshness.FRESH
STALE_WEIGHT = 0.25
"""A stale site is still used, but a fresh one with the same room gets four times as much."""


class Baseline:
    """What the plain ones have in common."""

    may_hold = False
    is_in_turn = False

    def shortlist(
        self,
        features: RequestFeatures,  # noqa: ARG002
        context: Snapshot,  # noqa: ARG002
        count: int,  # noqa: ARG002
        *,
        now: float,  # noqa: ARG002
        rng: random.Random,  # noqa: ARG002
    ) -> Sequence[str]:
        """Nobody in particular."""
        return ()


class RoundRobin(Baseline):
    """In turn over the serving sites, whatever room they have: the plain load balancer."""

    name = "round_robin"
    is_in_turn = True
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        pass

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002 - blind by definition
        context: Snapshot,  # noqa: ARG002
        *,
        turn: int,
        now: float,  # noqa: ARG002
    ) -> Sequence[float]:
        """All to the one whose turn it is."""
        weights = [0.0] * len(candidates)
        weights[turn % len(candidates)] = 1.0
        return weights


class LeastLoaded(Baseline):
    """By room: sampling in proportion to it fills sites evenly and does not herd. Greedy for headroom."""

    name = "least_loaded"
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        pass

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002 - one request weighs as another
        context: Snapshot,  # noqa: ARG002
        *,
        turn: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Sequence[float]:
        """The room; of a stale site a part of it."""
        return [room if freshness is FRESH else room * STALE_WEIGHT for _, room, freshness, _ in candidates]
