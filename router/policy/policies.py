"""The routing policies: one Protocol, one registry.

A policy only weighs candidates; `dispatch` filters before it and samples after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fleet.request import RequestFeatures
from router.policy.snapshot import Freshness, ModelView

FRESH = Freshness.FRESH
STALE_WEIGHT = 0.25
"""A stale site is still used, but a fresh one with the same room gets four times as much."""


class Candidate(NamedTuple):
    """A site that passed the filter (a tuple: several are made per request)."""

    view: ModelView
    room_requests: float
    """At least 1."""
    freshness: Freshness


class Policy(Protocol):
    """Weighs candidates."""

    def __call__(
        self, candidates: Sequence[Candidate], features: RequestFeatures, *, turn: int, now: float
    ) -> Sequence[float]:
        """One weight ≥ 0 per candidate, not all 0; a request goes to each in proportion.

        `turn` counts decisions from 0 and is all the state a policy gets.
        """


def round_robin(
    candidates: Sequence[Candidate],
    features: RequestFeatures,  # noqa: ARG001 - blind by definition
    *,
    turn: int,
    now: float,  # noqa: ARG001
) -> Sequence[float]:
    """In turn over the serving sites, whatever room they have."""
    chosen = turn % len(candidates)
    return [1.0 if index == chosen else 0.0 for index in range(len(candidates))]


def least_loaded(
    candidates: Sequence[Candidate],
    features: RequestFeatures,  # noqa: ARG001 - one request weighs as another
    *,
    turn: int,  # noqa: ARG001
    now: float,  # noqa: ARG001
) -> Sequence[float]:
    """By room: sampling in proportion to it fills sites evenly and does not herd."""
    return [room if freshness is FRESH else room * STALE_WEIGHT for _, room, freshness in candidates]


POLICIES: Mapping[str, Policy] = MappingProxyType({"round_robin": round_robin, "least_loaded": least_loaded})
DEFAULT_POLICY = "least_loaded"
