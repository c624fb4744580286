"""What `heron` works out of one site's records, once per record and not once per request. Pure.

Rule: unknown stays unknown (`None`) here; what it counts as is the policy's affair.
"""

from __future__ import annotations

import math

from fleet.request import RequestFeatures
from router.policy.candidate import Candidate
from router.policy.figures import known
from router.policy.outlook import PowerOutlook, Quantiles
from router.policy.power_risk import PowerNeed, Risk, risk_of
from router.policy.snapshot import ModelView, SiteView

MAX_HORIZON_BITS = 16
"""Horizons are taken at powers of two, up to 18 hours."""


class SiteForecast:
    """One model at one site, as of its last records."""

    __slots__ = (
        "_need",
        "_ride_through_seconds",
        "_risks",
        "_view",
        "capacity_requests",
        "farm_id",
        "first_seconds",
        "gap_seconds",
        "max_site_watts",
        "outlook",
        "prefill_tokens_per_second",
        "running_ratio",
        "site",
    )

    def __init__(
        self, view: ModelView, site: SiteView | None, outlook: PowerOutlook | None, margin_ratio: float
    ) -> None:
        self._view = view
        self.site = site
        self.outlook = outlook
        info = None if site is None else site.info
        self.gap_seconds = known(view.itl_seconds_p50)
        self.first_seconds = known(view.ttft_seconds_p50)
        self.prefill_tokens_per_second = known(view.prefill_tokens_per_second) or None
        self.capacity_requests = known(view.capacity_requests)
        running = known(view.running_requests)
        self.running_ratio = (
            None if running is None or not self.capacity_requests else running / self.capacity_requests
        )
        self.farm_id = None if info is None else info.farm_id
        self.max_site_watts = None if info is None else info.max_site_watts
        self._ride_through_seconds = 0.0 if info is None else info.ride_through_seconds
        self._need: PowerNeed | None = None
        draw = None if site is None else known(site.draw_watts)
        if draw:
            idle = 0.0 if info is None else min(info.server_idle_watts, draw)
            floor = 0.0 if info is None else info.safe_floor_watts
            self._need = PowerNeed(draw, idle, margin_ratio, floor)
        self._risks: dict[int, Risk | None] = {}

    def is_of(self, view: ModelView, site: SiteView | None, outlook: PowerOutlook | None) -> bool:
        """Whether these are the records that it was made of."""
        return self._view is view and self.outlook is outlook and self.site is site

    def seconds(self, candidate: Candidate, features: RequestFeatures) -> float | None:
        """From now to the last token, should it go there and nothing change; None where it cannot be known.

        Round trip + time to first token (the site's recent median, which has its queue in it, or reading this
        prompt where that is longer) + prompts that this router sent there since that report + tokens × gap.
        """
        gap, first = self.gap_seconds, self.first_seconds
        rate = self.prefill_tokens_per_second
        if rate is not None:
            alone = features.prompt_tokens / rate
            first = alone if first is None or alone > first else first
            added = candidate.load.added_since(candidate.view)
            if added > 0:
                first += added * alone
        if gap is None or first is None:
            return None
        trip = candidate.load.round_trip_seconds
        return first + gap * features.expected_output_tokens + (trip or 0.0)

    def risk(self, seconds: float, now: float) -> Risk | None:
        """Of a request that ends `seconds` from now; None where power or draw are not known.

        Work that ends within the ride-through of a drop is carried by that. Remembered by powers of two.
        """
        left = seconds - self._ride_through_seconds
        bits = 0 if left <= 0 else min(MAX_HORIZON_BITS, max(0, math.frexp(left)[1]))
        if bits in self._risks:
            return self._risks[bits]
        risk = None
        outlook, need = self.outlook, self._need
        if outlook is not None and need is not None and outlook.is_fresh(now):
            watts = outlook.at(now + (2.0**bits if left > 0 else 0.0), now)
            if watts is None:  # no forecast: it stays as it is
                watts = Quantiles(*(outlook.granted_power_watts,) * 3)
            risk = risk_of(need, watts)
        self._risks[bits] = risk
        return risk
