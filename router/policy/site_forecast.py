"""What `heron` works out of one site's records, once per record and not once per request. Pure.

Rule: unknown stays unknown here (NaN where it is summed up, so that a sum with it is unknown too); what it
counts as is the policy's affair.
"""

from __future__ import annotations

import math

from fleet.capacity import Slo
from fleet.request import ClassSlo
from router.policy.figures import known
from router.policy.load import Load
from router.policy.outlook import PowerOutlook, Quantiles
from router.policy.power_risk import PowerNeed, Risk, risk_of
from router.policy.site_rate import Engines, engines_of, engines_rate
from router.policy.snapshot import ModelView, SiteView

LEAST_SECONDS, MOST_SECONDS = 1e-3, 1e4
"""Of a first token or a gap; what is reported beyond is taken to be this. They bound what one site can weigh
against another, so that no weight is ever 0 or infinite."""
LEAST_PREFILL_RATE = 1e-2
MOST_HORIZON_BITS = 16
"""Horizons are powers of two, up to 18 hours."""


MOST_COSTS = 4096
"""Kept per kind of engines: sizes that came, at the round trips that were."""
MOST_KINDS = 1024
"""Of engines kept in mind: a site's own, at each clock."""


def horizon_bits(seconds: float) -> int:
    """The least power of two that is not less."""
    return min(MOST_HORIZON_BITS, max(0, math.frexp(seconds)[1])) if seconds > 1.0 else 0


class EnginesRates:
    """What some engines sustain, worked out once for all sites that have such, whenever they do."""

    __slots__ = ("costs", "engines", "rates")

    def __init__(self, engines: Engines | None) -> None:
        self.engines = engines
        """None: nobody knows."""
        self.rates: dict[int, float | None] = {}
        """By `work_step`."""
        self.costs: dict[tuple[int, int], tuple[ClassSlo, float | None]] = {}
        """By `work_step` and hundredths of a second of round trip: for which SLO, and what it is."""


def rates_of(engines: Engines | None, known: dict[Engines | None, EnginesRates]) -> EnginesRates:
    """Out of `known`, or new in it."""
    found = known.get(engines)
    if found is None:
        if len(known) >= MOST_KINDS:
            known.clear()
        found = known[engines] = EnginesRates(engines)
    return found


class SiteForecast:
    """One model at one site, as of its last records."""

    __slots__ = (
        "_asked_alone",
        "_kept",
        "_need",
        "_site",
        "asked",
        "first_seconds",
        "gap_seconds",
        "instances",
        "load",
        "outlook",
        "prompt_token_seconds",
        "rates",
        "risks",
        "view",
    )

    def __init__(
        self,
        view: ModelView,
        site: SiteView | None,
        outlook: PowerOutlook | None,
        load: Load,
        margin_ratio: float,
        known_rates: dict[Engines | None, EnginesRates],
    ) -> None:
        """`known_rates`: what is known of any engines, of this site or another; what is new goes there."""
        self.view = view
        self.load = load
        self.outlook = outlook
        self._site = site
        rate = known(view.prefill_tokens_per_second)
        rate = max(rate, LEAST_PREFILL_RATE) if rate else None
        first, gap = known(view.ttft_seconds_p50), known(view.itl_seconds_p50)
        self.prompt_token_seconds = 1.0 / rate if rate else 0.0
        """Of all its instances together; 0 where unknown: a prompt then takes what prompts took lately."""
        self.instances = view.ready_instances or 1
        self.first_seconds = min(max(first or 0.0, LEAST_SECONDS), MOST_SECONDS)
        self.gap_seconds = math.nan if gap is None or (first is None and not rate) else min(gap, MOST_SECONDS)
        """NaN where no time can be said."""
        self._need: PowerNeed | None = None
        draw = None if site is None or outlook is None else known(site.draw_watts)
        if draw:
            info = site.info if site is not None else None
            if info is None:
                self._need = PowerNeed(draw, 0.0, margin_ratio, 0.0)
            else:
                idle = info.server_idle_watts
                self._need = PowerNeed(draw, min(idle, draw), margin_ratio, info.safe_floor_watts)
        self._kept = rates_of(engines_of(view, None if site is None else site.info), known_rates)
        self.rates = self._kept.rates
        """By `work_step`; what is not there is worked out by `rate`."""
        self.asked: dict[int, tuple[ClassSlo, float | None, float | None]] = {}
        """By `work_step`: for which SLO and round trip, and what it cost; of this report alone."""
        self._asked_alone: dict[int, tuple[ClassSlo, float | None, float | None]] = {}
        """The same without the network."""
        self.risks: dict[int, Risk | None] = {}
        """By `horizon_bits`; what is not there is worked out by `risk`."""

    @property
    def farm_id(self) -> str | None:
        """None where the site does not say."""
        return None if self._site is None or self._site.info is None else self._site.info.farm_id

    @property
    def max_site_watts(self) -> float | None:
        """None where the site does not say."""
        return None if self._site is None or self._site.info is None else self._site.info.max_site_watts

    @property
    def running_ratio(self) -> float:
        """How full it is; 0 where it does not say."""
        running, capacity = known(self.view.running_requests), known(self.view.capacity_requests)
        return running / capacity if running and capacity else 0.0

    def rate(self, step: int) -> float | None:
        """Requests of this size per second that its engines sustain as they run now (`site_rate`)."""
        engines = self._kept.engines
        rate = self.rates[step] = None if engines is None else engines_rate(engines, step)
        return rate

    def cost_seconds(self, step: int, slo: ClassSlo, round_trip_seconds: float | None) -> float | None:
        """Of the site's time, what a request of this size takes within its SLO; infinite where it cannot be
        in time, None where nobody knows, or the profile's engine could not hold it. The round trip
        counts to the next hundredth of a second."""
        kept = self.asked if round_trip_seconds is not None else self._asked_alone
        asked = kept.get(step)
        if asked is not None and asked[0] is slo and asked[1] == round_trip_seconds:
            return asked[2]
        hundredths = math.ceil(100.0 * round_trip_seconds) if round_trip_seconds else 0
        costs = self._kept.costs
        found = costs.get((step, hundredths))
        if found is not None and (found[0] is slo or found[0] == slo):
            cost = found[1]
        else:
            cost = self._cost_seconds(step, slo, hundredths / 100)
            if len(costs) >= MOST_COSTS:
                costs.clear()
            costs[step, hundredths] = slo, cost
        kept[step] = slo, round_trip_seconds, cost
        return cost

    def _cost_seconds(self, step: int, slo: ClassSlo, round_trip_seconds: float) -> float | None:
        engines = self._kept.engines
        if engines is None:
            return None
        left = Slo(
            ttft_seconds=_less(slo.ttft_seconds, round_trip_seconds),
            e2e_seconds=_less(slo.e2e_seconds, round_trip_seconds),
        )
        rate = engines_rate(engines, step, left)
        if rate > 0.0:
            return 1.0 / rate
        # too long for the profile's engine at any time: the site's own may differ
        return math.inf if engines_rate(engines, step) else None

    def risk(self, bits: int, now: float) -> Risk | None:
        """Of a request that ends 2^bits s from now; None where power or draw are not known.

        Work that ends within the ride-through of a drop is carried by that.
        """
        outlook, need = self.outlook, self._need
        risk = None
        if outlook is not None and need is not None and outlook.is_fresh(now):
            info = self._site.info if self._site is not None else None
            left = (1 << bits) - (0.0 if info is None else info.ride_through_seconds)
            watts = outlook.at(now + max(0.0, left), now)
            if watts is None:  # no forecast: it stays as it is
                granted = outlook.granted_power_watts
                watts = Quantiles(granted, granted, granted)
            risk = risk_of(need, watts)
        self.risks[bits] = risk
        return risk


def _less(seconds: float | None, by_seconds: float) -> float:
    return math.inf if seconds is None else seconds - by_seconds
