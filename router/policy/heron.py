"""`heron`: the plan as feed-forward, live signals as correction, and the forecast. Ours. Pure.

For each site that passed the filter:

1. When would the request end there? Round trip, queue and prefill, expected tokens × gap (`SiteForecast`).
2. Does the site's power last until then? From draw, cap and the forecast's quantiles: the chance that the
   work breaks off, and how much slower it runs if clocks must fall (`power_risk`). A break costs the time to
   see it, and reading prompt and answer again elsewhere.
3. How much can the site still take? Its room ÷ that time: requests per second, by Little's law. Room is the
   site's own word, inside its cap, so this is what its watts can do, not its watts.
4. What did the plan say? Its fraction for this class, never quite 0, to a power below 1: a prior that live
   figures correct.
5. Sites of one farm share its power, and a busy replica draws nearly the same at any batch: the scarcer the
   farm's power, the more of its weight goes to its fullest site that has room, so that others can stop.

What is missing counts as the mean of the other sites, so with nothing known but room this is `least_loaded`
with a sharper preference. It never holds a request back: whoever passed the filter may be asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from fleet.request import RequestFeatures
from router.policy.baselines import STALE_WEIGHT, Baseline
from router.policy.candidate import Candidate
from router.policy.figures import known, or_equal, with_mean
from router.policy.parameters import PolicyParameters
from router.policy.site_forecast import SiteForecast
from router.policy.snapshot import Freshness, Snapshot

FRESH = Freshness.FRESH
MAX_REMEMBERED = 20_000
"""Sites' models worked out; beyond that all are worked out anew."""
LEAST_SECONDS, MOST_SECONDS = 1e-3, 1e6
"""No request ends sooner or later: bounds what one site can weigh against another."""
MOST_ROOM = 1e6
"""More requests than any site runs at once; the same."""
PLAN_FLOOR = 0.02
"""Of the whole: what a site that the plan leaves out counts with, so that room nobody planned is not lost."""

Ratio = Annotated[float, Field(ge=0, le=1)]
Exponent = Annotated[float, Field(ge=0, le=8)]


class HeronParameters(PolicyParameters):
    """`[router.policy_parameters.heron]`. 0 takes a part out (for an ablation)."""

    room_exponent: Exponent = 1.5
    """How much more room counts; above 1 the emptiest is preferred, and little of that is left to chance."""
    time_exponent: Exponent = 1.5
    """How much the expected time counts."""
    plan_exponent: Exponent = 0.5
    """How much the plan's fraction counts; 0: no plan is read."""
    forecast: bool = True
    """Whether power to come is looked at."""
    risk_exponent: Exponent = 2.0
    """The chance that power lasts, to this power, beside what a break costs in time."""
    break_seconds: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Lost in a break before another site reads the prompt again."""
    margin_ratio: Ratio = 0.05
    """The site agents' `margin_ratio`: of a grant, what they leave unused."""
    packing: Ratio = 0.8
    """Of a farm's weight, what goes to its fullest site when it has no power at all."""


class Heron(Baseline):
    """See the module."""

    name = "heron"
    Parameters = HeronParameters

    def __init__(self, parameters: HeronParameters) -> None:
        self._own = parameters
        self._forecasts: dict[tuple[str, str], SiteForecast] = {}

    def weigh(
        self,
        candidates: Sequence[Candidate],
        features: RequestFeatures,
        context: Snapshot,
        *,
        turn: int,  # noqa: ARG002
        now: float,
    ) -> Sequence[float]:
        """The five steps above."""
        own = self._own
        forecasts = [self._forecast(candidate, context) for candidate in candidates]
        times = with_mean(
            [one.seconds(candidate, features) for one, candidate in zip(forecasts, candidates, strict=True)]
        )
        lasts: Sequence[float] = ()
        if own.forecast and context.power:
            times, lasts = self._with_risk(forecasts, times, features, now)
        fractions = self._fractions(candidates, features, context, now)
        weights = []
        room_exponent, time_exponent = own.room_exponent, own.time_exponent
        for index, (_, room, freshness, _) in enumerate(candidates):
            seconds = min(max(times[index], LEAST_SECONDS), MOST_SECONDS)
            weight = min(room, MOST_ROOM) ** room_exponent / seconds**time_exponent
            if lasts:
                weight *= lasts[index]
            if fractions:
                weight *= fractions[index]
            if freshness is not FRESH:
                weight *= STALE_WEIGHT
            weights.append(weight)
        if own.packing > 0 and context.power:
            self._pack(forecasts, weights)
        return or_equal(weights)

    def shortlist(
        self, features: RequestFeatures, context: Snapshot, count: int, *, now: float, rng: random.Random
    ) -> Sequence[str]:
        """Sites that the plan names for this class."""
        plan = context.plan
        if plan is None or not self._own.plan_exponent or not plan.is_valid(now):
            return ()
        return plan.draw(features.model, features.request_class, count, rng)

    def _forecast(self, candidate: Candidate, context: Snapshot) -> SiteForecast:
        view = candidate.view
        key = (view.site_id, view.model)
        site, outlook = context.sites.get(view.site_id), context.power.get(view.site_id)
        kept = self._forecasts.get(key)
        if kept is None or not kept.is_of(view, site, outlook):
            if len(self._forecasts) >= MAX_REMEMBERED:
                self._forecasts.clear()
            kept = self._forecasts[key] = SiteForecast(view, site, outlook, self._own.margin_ratio)
        return kept

    def _with_risk(
        self,
        forecasts: Sequence[SiteForecast],
        times: Sequence[float],
        features: RequestFeatures,
        now: float,
    ) -> tuple[list[float], list[float]]:
        """Times with what to expect of power in them, and the chances that it lasts, each to its exponent."""
        risks = [one.risk(seconds, now) for one, seconds in zip(forecasts, times, strict=True)]
        lost = with_mean([None if risk is None else risk.lost_ratio for risk in risks], default=0.0)
        slow = with_mean([None if risk is None else risk.slow_ratio for risk in risks])
        if max(lost) <= 0.0 and max(slow) <= 1.0:
            return list(times), []
        rates = with_mean([one.prefill_tokens_per_second for one in forecasts], default=0.0)
        again = max(rates)
        read_again = (features.prompt_tokens + features.expected_output_tokens / 2) / again if again else 0.0
        cost = self._own.break_seconds + read_again
        times = [
            seconds * slower + part * cost for seconds, slower, part in zip(times, slow, lost, strict=True)
        ]
        return times, [(1.0 - part) ** self._own.risk_exponent for part in lost]

    def _fractions(
        self, candidates: Sequence[Candidate], features: RequestFeatures, context: Snapshot, now: float
    ) -> Sequence[float]:
        """What the plan's word multiplies each with; empty: it says nothing."""
        plan, exponent = context.plan, self._own.plan_exponent
        if plan is None or not exponent or not plan.is_valid(now):
            return ()
        by_site = plan.fractions(features.model, features.request_class)
        if by_site is None:
            return ()
        parts = [known(by_site.get(candidate.view.site_id)) or 0.0 for candidate in candidates]
        return [(PLAN_FLOOR + (1.0 - PLAN_FLOOR) * min(part, 1.0)) ** exponent for part in parts]

    def _pack(self, forecasts: Sequence[SiteForecast], weights: list[float]) -> None:
        """Within each farm of several sites: to the fullest, the more the less power there is."""
        farms: dict[str, list[int]] = {}
        for index, one in enumerate(forecasts):
            if one.farm_id is not None:
                farms.setdefault(one.farm_id, []).append(index)
        for members in farms.values() if len(farms) < len(forecasts) else ():
            if len(members) < 2:
                continue
            part = self._own.packing * _scarcity([forecasts[index] for index in members])
            if part <= 0.0:
                continue
            fullest = max(members, key=lambda index: (forecasts[index].running_ratio or 0.0, -index))
            total = sum(weights[index] for index in members)
            for index in members:
                weights[index] *= 1.0 - part
            weights[fullest] += part * total


def _scarcity(sites: Sequence[SiteForecast]) -> float:
    """1: these sites have no power; 0: all that they can use, or nobody knows."""
    granted = most = 0.0
    for one in sites:
        if one.outlook is None or not one.max_site_watts:
            return 0.0
        watts = known(one.outlook.granted_power_watts)
        granted += min(watts or 0.0, one.max_site_watts)
        most += one.max_site_watts
    return 1.0 - granted / most
