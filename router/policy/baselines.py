"""The plain baselines (DESIGN §6): in turn, by GPUs, by power, by room. Pure.

Each stands for what a careful operator would run without Heron, behind the same filter: no policy sends to a
site that is dark, draining, ejected or without room.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from fleet.request import RequestFeatures
from router.policy.candidate import Candidate
from router.policy.figures import or_equal, with_mean
from router.policy.parameters import NoParameters, PolicyParameters
from router.policy.snapshot import Freshness, ModelView, Snapshot

FRESH = Freshness.FRESH
POLICY_FLOOR_RATIO = 0.25
"""Affinity does not follow into a site that is dark tomorrow, stale, or all but full."""
STALE_WEIGHT = 0.25
"""A stale site is still used, but a fresh one with the same room gets four times as much."""
HISTORY_SAMPLES = 64
"""Of the fleet's power, while old figures are asked for: the age is right within a 64th of it."""


class Baseline:
    """What the plain ones have in common."""

    may_hold = False
    is_choosy: ClassVar[bool] = False
    is_again = False
    is_in_turn: ClassVar[bool] = False
    is_told: ClassVar[bool] = False
    affinity_floor_ratio: ClassVar[float] = POLICY_FLOOR_RATIO

    def is_shut(
        self,
        views: Sequence[ModelView],  # noqa: ARG002
        features: RequestFeatures,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> bool:
        """Not choosy."""
        return False

    def sent(self, view: ModelView, features: RequestFeatures, now: float) -> None:
        """Not told."""

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


class StaticWeighted(Baseline):
    """By installed GPUs, blind to power: a weighted round robin before sites that are each run well alone.

    The usual health check holds: a dark or full site is out, as for every policy. What is left keeps its
    weight, however short of power, slow or stale it is. A site without a SiteInfo counts as the mean one.
    """

    name = "static_weighted"
    Parameters = NoParameters

    def __init__(self, parameters: NoParameters) -> None:
        pass

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002 - blind by definition
        context: Snapshot,
        *,
        turn: int,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Sequence[float]:
        """Installed GPUs."""
        gpus: list[float | None] = []
        for candidate in candidates:
            site = context.sites.get(candidate.view.site_id)
            gpus.append(None if site is None or site.info is None else site.info.gpu_count)
        return or_equal(with_mean(gpus))


class PowerWeightedParameters(PolicyParameters):
    """`[router.policy_parameters.power_weighted]`."""

    age_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Sites are weighed by the power of so long ago: 0 live, 900 as from a feed of 15-minute values. Until
    so much has been seen, by the oldest that was."""


class PowerWeighted(Baseline):
    """By the watts granted to each site: what a fleet does that knows its power but not what watts can do.

    A stronger baseline than `static_weighted`; each site is optimised alone (as DynamoLLM does). A site that
    no feed tells of counts with the cap it reports, and else as the mean one. Stale reports change nothing:
    it does not look at them.
    """

    name = "power_weighted"
    Parameters = PowerWeightedParameters

    def __init__(self, parameters: PowerWeightedParameters) -> None:
        self._age_seconds = parameters.age_seconds
        self._step_seconds = parameters.age_seconds / HISTORY_SAMPLES
        self._history: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=HISTORY_SAMPLES + 2)

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,  # noqa: ARG002
        context: Snapshot,
        *,
        turn: int,  # noqa: ARG002
        now: float,
    ) -> Sequence[float]:
        """Granted watts, now or as they were."""
        if self._age_seconds > 0:
            then = self._watts_then(context, now)
            return or_equal(with_mean([then.get(candidate.view.site_id) for candidate in candidates]))
        return or_equal(with_mean([watts_of(context, candidate.view.site_id) for candidate in candidates]))

    def _watts_then(self, context: Snapshot, now: float) -> Mapping[str, float]:
        history = self._history
        if history and now < history[-1][0]:
            history.clear()  # the clock jumped back
        if not history or now - history[-1][0] >= self._step_seconds:
            seen = {site_id: watts_of(context, site_id) for site_id in context.sites}
            history.append((now, {site_id: watts for site_id, watts in seen.items() if watts is not None}))
        while len(history) > 1 and history[1][0] <= now - self._age_seconds:
            history.popleft()
        return history[0][1]


def watts_of(context: Snapshot, site_id: str) -> float | None:
    """What the site is granted, or else the cap that it reports; None: nobody says."""
    outlook = context.power.get(site_id)
    if outlook is not None:
        return outlook.granted_power_watts
    site = context.sites.get(site_id)
    return None if site is None else site.cap_watts
