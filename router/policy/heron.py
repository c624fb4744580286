"""`heron`: the plan as feed-forward, live signals as correction, and the forecast. Ours. Pure.

For each site that passed the filter:

1. What would the request cost there, in time? Round trip, queue and prefill, which count more, as the SLO of
   the first token is the tighter one; then expected tokens × gap (`_foresee`).
2. Does the site's power last until then? From draw, cap and the forecast's quantiles: the chance that the
   work breaks off, and how much slower it runs if clocks must fall (`power_risk`). A break costs the time to
   see it, and reading prompt and answer again elsewhere.
3. How much can the site still take? Its own word, inside its cap; but no more than its engines sustain at the
   clocks that its watts allow (`fleet.capacity`): what its watts can do, not its watts.
4. What did the plan say? Its fraction for this class, never quite 0, to a power below 1: a prior that live
   figures correct.
5. Sites of one farm share its power, and a busy replica draws nearly the same at any batch: the scarcer the
   farm's power, the more of its weight goes to its fullest site that has room, so that others can stop.

What is missing counts as the mean of the other sites, so with nothing known but room this is `least_loaded`.
It never holds a request back: whoever passed the filter may be asked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from heapq import heapreplace
from types import MappingProxyType
from typing import ClassVar

from fleet.request import ClassSlo, RequestFeatures
from router.policy.baselines import STALE_WEIGHT, Baseline
from router.policy.candidate import Candidate
from router.policy.figures import known, or_equal, with_mean
from router.policy.heron_parameters import HeronParameters
from router.policy.load import Load
from router.policy.packing import pack
from router.policy.plan_view import PlanView
from router.policy.power_risk import NO_RISK, Risk
from router.policy.site_forecast import EnginesRates, SiteForecast, horizon_bits
from router.policy.site_rate import Engines, work_step
from router.policy.snapshot import Freshness, ModelView, Snapshot
from router.policy.triage import Triage

FRESH = Freshness.FRESH
NOT_ASKED = Risk(-1.0, -1.0)
"""Not worked out yet: None is "unknown"."""
MAX_REMEMBERED = 20_000
"""Sites of one model worked out; beyond that all are worked out anew."""
MAX_MODELS = 256
"""The same of models: sites may name any."""
MOST_BACKLOG_SECONDS = 60.0
"""Of prompts sent and not read; no site that admits work is further behind."""
NOTHING_SENT: Mapping[str, list[float]] = MappingProxyType({})
MOST_INSTANCES = 64
"""Of one site, told apart by what they have to read."""
LEAST_ROOM_RATIO = 0.05
"""Of what a site sustains, what is always left to it: that is an estimate, and its own word is not."""
MOST_ROOM = 1e6
"""More requests than any site runs at once; the same."""
PLAN_FLOOR = 0.02
"""Of the whole: what a site that the plan leaves out counts with, so that room nobody planned is not lost."""

_Asked = tuple[Sequence[ModelView], dict[int, tuple[ClassSlo, list[tuple[Load, float]]]]]


class Heron(Baseline):
    """See the module."""

    name: ClassVar[str] = "heron"
    is_told: ClassVar[bool] = True
    is_choosy: ClassVar[bool] = True
    affinity_floor_ratio: ClassVar[float] = 0.03
    """Its weights fall with the fifth power of time: so a session stays where it takes up to twice as long,
    and leaves a site that will break four of five answers off."""
    Parameters: ClassVar[type[HeronParameters]] = HeronParameters

    def __init__(self, parameters: HeronParameters) -> None:
        self._own = parameters
        self._triage = Triage(
            burst_seconds=parameters.burst_seconds,
            cheapness_exponent=parameters.cheapness_exponent,
            utilisation=parameters.utilisation,
        )
        self._forecasts: dict[str, dict[str, SiteForecast]] = {}
        """model → site → what was worked out."""
        self._rates: dict[Engines | None, EnginesRates] = {}
        self._clear_at: dict[str, dict[str, list[float]]] = {}
        """Model → site → when each of its instances will have read what this router sent there; a heap."""
        self._asked: dict[str, _Asked] = {}
        """Model → the sites that were asked about, and for each `work_step` what it costs at them."""
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
        step = work_step(features.prompt_tokens, features.expected_output_tokens)
        forecasts, costs, ends = self._foresee(candidates, features, context, now)
        is_open = None
        if features.slo is not None and own.burst_seconds > 0.0 and features.tier != "flex":
            is_open = self._sort_out(forecasts, step, features.slo, now)
            if True not in is_open:
                return [0.0] * len(candidates)
        if math.isnan(sum(costs)):
            costs, ends = with_mean(costs), with_mean(ends)
        risks = None
        if own.forecast and context.power:
            risks = _risks(forecasts, horizon_bits(max(ends)), now)
        lost_seconds = 0.0
        if risks is not None:
            tokens = features.prompt_tokens + features.expected_output_tokens / 2
            lost_seconds = own.break_seconds + tokens * min([one.prompt_token_seconds for one in forecasts])
        weights = self._score(candidates, forecasts, costs, ends, risks, lost_seconds, step)
        if self._shares_farm and own.packing > 0 and context.power:
            pack(forecasts, weights, own.packing)
        if context.plan is not None:
            factors = self._plan_factors(context.plan, features, now)
            if factors:
                least = PLAN_FLOOR**own.plan_exponent
                weights = [
                    weight * factors.get(one.view.site_id, least)
                    for weight, one in zip(weights, forecasts, strict=True)
                ]
        if is_open is not None and False in is_open:
            weights = [weight if is_it else 0.0 for is_it, weight in zip(is_open, weights, strict=True)]
            if sum(weights) <= 0.0:
                return [1.0 if is_it else 0.0 for is_it in is_open]
            return weights
        return or_equal(weights)

    def _sort_out(
        self, forecasts: Sequence[SiteForecast], step: int, slo: ClassSlo, now: float
    ) -> list[bool]:
        """Where it is worth its place. A site whose costs nobody knows is open."""
        is_open, found, costs = self._triage.is_open, [], []
        for one in forecasts:
            load = one.load
            trip = load.round_trip_seconds
            asked = one.asked.get(step)
            if asked is not None and asked[0] is slo and asked[1] == trip:
                cost = asked[2]  # as `cost_seconds` answers; this is per request
            else:
                cost = one.cost_seconds(step, slo, trip)
            if cost is None:
                found.append(True)
            elif cost == math.inf:
                found.append(False)
            else:
                costs.append(cost)
                found.append(is_open(load, cost, now))
        if not self.is_again:
            self._triage.note(costs)
        return found

    def is_shut(self, views: Sequence[ModelView], features: RequestFeatures, now: float) -> bool:
        """Whether it is worth its place nowhere, by what was worked out before; False: look properly."""
        slo = features.slo
        if slo is None or self._own.burst_seconds <= 0.0 or features.tier == "flex":
            return False
        kept = self._asked.get(features.model)
        if kept is None or kept[0] is not views:
            if len(self._asked) >= MAX_MODELS:
                self._asked.clear()
            kept = self._asked[features.model] = views, {}
        step = work_step(features.prompt_tokens, features.expected_output_tokens)
        asked = kept[1].get(step)
        if asked is None or (asked[0] is not slo and asked[0] != slo):
            costs = self._costs(views, features.model, step, slo)
            if costs is None:
                return False
            kept[1][step] = asked = slo, costs
        return not self._triage.is_any_open(asked[1], now)

    def _costs(
        self, views: Sequence[ModelView], model: str, step: int, slo: ClassSlo
    ) -> list[tuple[Load, float]] | None:
        """Of every site that serves and where it can be in time: what it costs there. None where that was not
        worked out of some site since its last report, or nobody knows, or none serves."""
        by_site = self._forecasts.get(model)
        if by_site is None or not any(view.is_serving for view in views):
            return None
        costs = []
        for view in views:
            if not view.is_serving:
                continue
            one = by_site.get(view.site_id)
            if one is None or one.view is not view:
                return None
            cost = one.cost_seconds(step, slo, one.load.round_trip_seconds)
            if cost is None:
                return None
            if cost < math.inf:
                costs.append((one.load, cost))
        return costs

    def sent(self, view: ModelView, features: RequestFeatures, now: float) -> None:
        """Its prompt is read there before those that come after it."""
        kept = self._forecasts.get(features.model, {}).get(view.site_id)
        if kept is not None and features.slo is not None and self._own.burst_seconds > 0.0:
            step = work_step(features.prompt_tokens, features.expected_output_tokens)
            cost = kept.cost_seconds(step, features.slo, None)
            if cost is not None and cost < math.inf:  # who goes on at any cost may be past all time
                self._triage.give(kept.load, view.site_id, cost, now)
        if kept is None or not kept.prompt_token_seconds:
            return
        clear_at = self._clear_at.get(features.model)
        if clear_at is None or len(clear_at) > MAX_REMEMBERED:
            if len(self._clear_at) >= MAX_MODELS:
                self._clear_at.clear()
            clear_at = self._clear_at[features.model] = {}
        read, count = clear_at.get(view.site_id), min(kept.instances, MOST_INSTANCES)
        if read is None or len(read) != count:
            read = clear_at[view.site_id] = [now] * count
        begin = read[0]  # a site gives a prompt to the instance that has the least to read
        if not now < begin < now + MOST_BACKLOG_SECONDS:  # idle, or a clock that jumped back
            begin = now
        heapreplace(read, begin + features.prompt_tokens * kept.prompt_token_seconds * kept.instances)

    def shortlist(
        self, features: RequestFeatures, context: Snapshot, count: int, *, now: float, rng: random.Random
    ) -> Sequence[str]:
        """Sites that the plan names for this class."""
        plan = context.plan
        if plan is None or not self._own.plan_exponent or not plan.is_valid(now):
            return ()
        return plan.draw(features.model, features.request_class, count, rng)

    def _foresee(
        self, candidates: Sequence[Candidate], features: RequestFeatures, context: Snapshot, now: float
    ) -> tuple[list[SiteForecast], list[float], list[float]]:
        """What is worked out of each site; what the request would cost there in seconds, those before its
        first token counted more; and in how many seconds it would end. NaN where that cannot be said.

        Time to first token is the site's recent median, which has its queue in it, or reading this prompt
        where that is longer; the prompts that this router sent there before are read before it.
        """
        prompt, output = features.prompt_tokens, features.expected_output_tokens
        first_weight = self._own.first_token_weight
        power, clear_at = context.power, self._clear_at.get(features.model, NOTHING_SENT)
        by_site = self._forecasts.get(features.model)
        if by_site is None or len(by_site) > MAX_REMEMBERED:
            if len(self._forecasts) >= MAX_MODELS:
                self._forecasts.clear()
            by_site = self._forecasts[features.model] = {}
        forecasts, costs, ends = [], [], []
        for view, _, _, load in candidates:
            site_id = view.site_id
            outlook = power.get(site_id) if power else None
            one = by_site.get(site_id)
            if one is None or one.view is not view or one.outlook is not outlook:
                one = by_site[site_id] = SiteForecast(
                    view, context.sites.get(site_id), outlook, load, self._own.margin_ratio, self._rates
                )
                self._note_farm(site_id, one)
                self._triage.reported(
                    site_id,
                    own_requests=load.total_in_flight(),
                    running_requests=known(view.running_requests),
                    now=now,
                )
            seconds = one.first_seconds
            token_seconds = one.prompt_token_seconds
            if token_seconds > 0.0:
                alone = prompt * token_seconds * one.instances
                if alone > seconds:
                    seconds = alone
                read = clear_at.get(site_id)
                if read is not None and (wait := read[0] - now) > 0.0:
                    seconds += wait
            round_trip = load.round_trip_seconds
            if round_trip is not None:
                seconds += round_trip
            end = seconds + one.gap_seconds * output
            forecasts.append(one)
            ends.append(end)
            costs.append(end + first_weight * seconds)
        return forecasts, costs, ends

    def _score(
        self,
        candidates: Sequence[Candidate],
        forecasts: Sequence[SiteForecast],
        costs: Sequence[float],
        ends: Sequence[float],
        risks: Sequence[Risk] | None,
        lost_seconds: float,
        step: int,
    ) -> list[float]:
        """Room ÷ cost, each to its power, both corrected by what to expect of power. Stale sites count less.

        Room as far as the engines sustain it: what they end in the time of a request, less what is there. By
        Little's law a site that ends λ requests a second runs λ × time of them. A site that says too little
        for that has the room that it says. `lost_seconds`: what a break costs.
        """
        own = self._own
        is_asked, time_exponent, room_exponent = own.capacity, own.time_exponent, own.room_exponent
        weights = []
        for index, (view, room, freshness, load) in enumerate(candidates):
            cost, most = costs[index], MOST_ROOM
            running = view.running_requests
            if is_asked and running is not None:
                one = forecasts[index]
                rate = one.rates[step] if step in one.rates else one.rate(step)
                if rate is not None:
                    sustained = rate * ends[index]
                    added = load.added_since(view)
                    most = sustained - running - (added if added > 0 else 0)
                    if most < LEAST_ROOM_RATIO * sustained:
                        most = LEAST_ROOM_RATIO * sustained
            if room < most:
                most = room
            if freshness is not FRESH:
                most *= STALE_WEIGHT
            if risks is not None and (risk := risks[index]) is not NO_RISK:
                lost_ratio, slow_ratio = risk
                cost = cost * slow_ratio + lost_ratio * lost_seconds
                if lost_ratio > 0.0:
                    most *= (1.0 - lost_ratio) ** own.risk_exponent
            if room_exponent != 1.0:
                most **= room_exponent
            weights.append(most / cost**time_exponent)
        return weights

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


def _risks(forecasts: Sequence[SiteForecast], bits: int, now: float) -> Sequence[Risk] | None:
    """What to expect of power until the slowest of them would be through; None: nothing bad anywhere."""
    risks: list[Risk | None] = []
    is_any = is_unknown = False
    for one in forecasts:
        risk = one.risks.get(bits, NOT_ASKED)
        if risk is NOT_ASKED:
            risk = one.risk(bits, now)
        risks.append(risk)
        if risk is None:
            is_unknown = True
        elif risk is not NO_RISK:
            is_any = True
    if not is_any:
        return None
    if is_unknown:
        lost = with_mean([None if risk is None else risk.lost_ratio for risk in risks])
        slow = with_mean([None if risk is None else risk.slow_ratio for risk in risks])
        return [Risk(*both) for both in zip(lost, slow, strict=True)]
    return risks  # type: ignore[return-value]  # none is None
