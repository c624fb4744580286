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

import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from fleet.request import RequestFeatures
from router.policy.baselines import STALE_WEIGHT, Baseline
from router.policy.candidate import Candidate
from router.policy.figures import known, or_equal, with_mean
from router.policy.parameters import PolicyParameters
from router.policy.plan_view import PlanView
from router.policy.power_risk import NO_RISK, Risk
from router.policy.site_forecast import SiteForecast, horizon_bits
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
        self._forecasts: dict[str, dict[str, SiteForecast]] = {}
        """model → site → what was worked out."""
        self._farm_of: dict[str, str] = {}
        self._shares_farm = False
        """Whether any two sites are of one farm."""
        self._plan: PlanView | None = None
        self._factors: dict[tuple[str, str], dict[str, float]] = {}
        """Of that plan: (model, class) → site → factor."""

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
        forecasts, times = self._foresee(candidates, features, context)
        if math.isnan(sum(times)):
            times = with_mean(times)
        weights = []
        room_exponent, time_exponent = own.room_exponent, own.time_exponent
        for (_, room, freshness, _), seconds in zip(candidates, times, strict=True):
            weight = (room if room < MOST_ROOM else MOST_ROOM) ** room_exponent / seconds**time_exponent
            weights.append(weight if freshness is FRESH else weight * STALE_WEIGHT)
        if context.power:
            if own.forecast:
                self._look_ahead(forecasts, times, weights, features, now)
            if self._shares_farm and own.packing > 0:
                _pack(forecasts, weights, own.packing)
        if context.plan is not None:
            factors = self._plan_factors(context.plan, features, now)
            if factors:
                least = PLAN_FLOOR**own.plan_exponent
                for index, candidate in enumerate(candidates):
                    weights[index] *= factors.get(candidate.view.site_id, least)
        return or_equal(weights)

    def shortlist(
        self, features: RequestFeatures, context: Snapshot, count: int, *, now: float, rng: random.Random
    ) -> Sequence[str]:
        """Sites that the plan names for this class."""
        plan = context.plan
        if plan is None or not self._own.plan_exponent or not plan.is_valid(now):
            return ()
        return plan.draw(features.model, features.request_class, count, rng)

    def _foresee(
        self, candidates: Sequence[Candidate], features: RequestFeatures, context: Snapshot
    ) -> tuple[list[SiteForecast], list[float]]:
        """What is worked out of each site, and the seconds from now to the last token, should the request go
        there and nothing change, within bounds; NaN where that cannot be said.

        Time to first token is the site's recent median, which has its queue in it, or reading this prompt
        where that is longer; prompts that this router sent there since that report are read before it.
        """
        prompt, output = features.prompt_tokens, features.expected_output_tokens
        power = context.power
        by_site = self._forecasts.get(features.model)
        if by_site is None or len(by_site) > MAX_REMEMBERED:
            by_site = self._forecasts[features.model] = {}
        forecasts, times = [], []
        for view, _, _, load in candidates:
            site_id = view.site_id
            outlook = power.get(site_id)
            kept = by_site.get(site_id)
            if kept is None or kept.view is not view or kept.outlook is not outlook:
                kept = by_site[site_id] = SiteForecast(
                    view, context.sites.get(site_id), outlook, self._own.margin_ratio
                )
                self._note_farm(site_id, kept)
            forecasts.append(kept)
            seconds = kept.first_seconds
            alone = prompt * kept.prompt_token_seconds
            if alone > 0.0:
                if alone > seconds:
                    seconds = alone
                added = load.added_since(view)
                if added > 0:
                    seconds += added * alone
            seconds += kept.gap_seconds * output
            if load.round_trip_seconds is not None:
                seconds += load.round_trip_seconds
            if seconds < LEAST_SECONDS:
                seconds = LEAST_SECONDS
            elif seconds > MOST_SECONDS:
                seconds = MOST_SECONDS
            times.append(seconds)
        return forecasts, times

    def _look_ahead(
        self,
        forecasts: Sequence[SiteForecast],
        times: Sequence[float],
        weights: list[float],
        features: RequestFeatures,
        now: float,
    ) -> None:
        """Correct the weights by what to expect of power until the slowest of them would be through."""
        bits = horizon_bits(max(times))
        risks = []
        is_any = is_unknown = False
        for one in forecasts:
            risk = one.risks[bits] if bits in one.risks else one.risk(bits, now)
            risks.append(risk)
            if risk is None:
                is_unknown = True
            elif risk is not NO_RISK:
                is_any = True
        if not is_any:
            return
        if is_unknown:
            lost = with_mean([None if risk is None else risk.lost_ratio for risk in risks])
            slow = with_mean([None if risk is None else risk.slow_ratio for risk in risks])
            risks = [Risk(*both) for both in zip(lost, slow, strict=True)]
        own = self._own
        again = min(one.prompt_token_seconds for one in forecasts)
        cost = own.break_seconds + (features.prompt_tokens + features.expected_output_tokens / 2) * again
        for index, risk in enumerate(risks):
            if risk is not None and risk is not NO_RISK:
                lost_ratio, slow_ratio = risk
                longer = slow_ratio + lost_ratio * cost / times[index]
                weights[index] *= (1.0 - lost_ratio) ** own.risk_exponent / longer**own.time_exponent

    def _plan_factors(self, plan: PlanView, features: RequestFeatures, now: float) -> Mapping[str, float]:
        """What the plan's word multiplies each site with; empty: it says nothing."""
        exponent = self._own.plan_exponent
        if not exponent or not plan.is_valid(now):
            return {}
        if plan is not self._plan:
            self._plan, self._factors = plan, {}
        key = (features.model, features.request_class)
        factors = self._factors.get(key)
        if factors is None:
            parts = plan.fractions(*key) or {}
            factors = self._factors[key] = {
                site_id: (PLAN_FLOOR + (1.0 - PLAN_FLOOR) * min(known(part) or 0.0, 1.0)) ** exponent
                for site_id, part in parts.items()
            }
        return factors

    def _note_farm(self, site_id: str, one: SiteForecast) -> None:
        farm_id = one.farm_id
        if farm_id is not None and self._farm_of.get(site_id) != farm_id:
            if len(self._farm_of) > MAX_REMEMBERED:
                self._farm_of.clear()
            self._farm_of[site_id] = farm_id
            self._shares_farm = len(set(self._farm_of.values())) < len(self._farm_of)


def _pack(forecasts: Sequence[SiteForecast], weights: list[float], packing: float) -> None:
    """Within each farm of several sites: to the fullest, the more the less power there is."""
    farms: dict[str, list[int]] = {}
    for index, one in enumerate(forecasts):
        if one.farm_id is not None:
            farms.setdefault(one.farm_id, []).append(index)
    for members in farms.values():
        if len(members) < 2:
            continue
        part = packing * _scarcity([forecasts[index] for index in members])
        if part <= 0.0:
            continue
        fullest = max(members, key=lambda index: (forecasts[index].running_ratio, -index))
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
