"""The simulated power feed: every second one reading per site, made by the live feed's own code.

The allocator splits each farm's power between its sites, the switch turns their servers off and on, the
forecaster learns from what it has measured, and `site_forecasts` turns a farm's quantiles into its sites'.
It learns and speaks every `FORECAST_SECONDS`; live does so at every measurement, which at these
horizons says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.records import ForecastPoint, Plan, PowerReading, SiteInfo, SiteReport
from power_feed.allocator import REST_SECONDS, START_MARGIN_RATIO, Allocator, SiteClaim
from power_feed.claims import SiteState, SiteTerms, claim_of
from power_feed.forecast import Forecaster
from power_feed.outlook import site_forecasts
from power_feed.server_switch import LOOK_SECONDS, NO_SWITCH, ServerSwitch, SwitchView
from simulator.events import Events
from simulator.forecast_error import ForecastError
from simulator.server import SimulatedServer
from simulator.site import SimulatedSite
from simulator.site_records import site_info
from simulator.wind import History, Watts

FEED_DELAY_SECONDS = 0.01
"""From the farm's feed to the agent beside it."""
FORECAST_SECONDS = 10


@dataclass(slots=True)
class _Kept:
    """What the feed knows of one site."""

    info: SiteInfo
    server: SimulatedServer
    switch: ServerSwitch | None
    report: SiteReport | None = None
    heard_at: float | None = None


class SimulatedFarm:
    """One farm: its power, its sites, what it granted and what it expects."""

    def __init__(
        self,
        farm_id: str,
        sites: Sequence[SimulatedSite],
        watts: Watts,
        *,
        events: Events,
        nameplate_watts: float,
        history: History | None,
        error: ForecastError,
    ) -> None:
        """`history`: what was measured before the block; `error`: what its forecasts are off by."""
        self._error = error
        self.farm_id = farm_id
        self.sites = sites
        self.nameplate_watts = nameplate_watts
        self.is_tripped = False
        self._events = events
        self._watts = watts
        is_alone = len(sites) == 1
        self._allocator = Allocator(
            period_seconds=1.0,
            rest_seconds=0.0 if is_alone else REST_SECONDS,
            start_margin_ratio=0.0 if is_alone else START_MARGIN_RATIO,
        )
        self._forecaster = Forecaster(nameplate_watts)
        self._forecasts: dict[str, tuple[ForecastPoint, ...]] = {}
        self._plan: Plan | None = None
        self._plan_at = 0.0
        self._kept = {
            site.site_id: _Kept(
                info=site_info(site),
                server=SimulatedServer(site, events),
                switch=ServerSwitch() if site.settings.has_server_switch else None,
            )
            for site in sites
        }
        if history is not None:
            for at, before in zip(history.at_seconds, history.watts, strict=True):
                self._forecaster.observe(float(before), float(at))

    def available_watts(self, second: int) -> float:
        """What it can give then."""
        return 0.0 if self.is_tripped else float(self._watts[second])

    def take_report(self, report: SiteReport, now: float) -> None:
        """A site's report reached the feed."""
        kept = self._kept[report.site_id]
        kept.report, kept.heard_at = report, now

    def take_plan(self, plan: Plan) -> None:
        """A plan lies in Redis; its shares are followed as long as it is valid."""
        self._plan, self._plan_at = plan, self._events.now

    def readings(self, second: int, sequence: int) -> Iterator[tuple[SimulatedSite, PowerReading]]:
        """This second's readings of all sites."""
        available = self.available_watts(second)
        claims = [self._claim(site, float(second)) for site in self.sites]
        grants = self._allocator.allocate(available, claims, float(second))
        if second % FORECAST_SECONDS == 0:
            self._forecaster.observe(available, float(second))
            farm = self._error.on(self._forecaster.quantiles(), float(second))
            self._forecasts = site_forecasts(farm, self._allocator.in_order(claims))
        for site in self.sites:
            self._look(site)
            if site.is_down:
                site.judge_idle(grants[site.site_id])
            yield (
                site,
                PowerReading.model_construct(  # nothing here comes from outside
                    feed_id="simulated-feed",
                    sequence=sequence,
                    site_id=site.site_id,
                    farm_id=self.farm_id,
                    observed_at_unix_seconds=float(second),
                    period_seconds=1.0,
                    available_power_watts=available,
                    granted_power_watts=grants[site.site_id],
                    nameplate_capacity_watts=self.nameplate_watts,
                    quality="good",
                    source="simulated",
                    forecast=self._forecasts.get(site.site_id, ()),
                ),
            )

    def _claim(self, site: SimulatedSite, now: float) -> SiteClaim:
        kept = self._kept[site.site_id]
        view = self._switch_view(site, kept)
        return claim_of(
            SiteTerms(site_id=site.site_id, margin_ratio=site.settings.margin_ratio),
            SiteState(
                info=kept.info,
                report=kept.report,
                heard_at=kept.heard_at,
                is_listening=not site.is_down,
                server=NO_SWITCH if kept.switch is None else kept.switch.state(view, now),
                share=self._share(site.site_id, now),
            ),
        )

    def _share(self, site_id: str, now: float) -> float | None:
        plan = self._plan
        if plan is None or now - self._plan_at > plan.valid_for_seconds:
            return None
        return plan.shares.get(self.farm_id, {}).get(site_id)

    def _switch_view(self, site: SimulatedSite, kept: _Kept) -> SwitchView:
        return SwitchView(
            granted_watts=self._allocator.granted_watts(site.site_id),
            is_on=kept.server.is_on,
            report_state=None if kept.report is None else kept.report.state,
            heard_at=kept.heard_at,
            ride_through_seconds=site.settings.ride_through_seconds,
            episode_seconds=None if kept.report is None else kept.report.power.episode_seconds,
        )

    def _look(self, site: SimulatedSite) -> None:
        """Now, and as often as live until the next second while a server that has no power is on."""
        self._switch(site)
        if self._kept[site.site_id].switch is not None and self._allocator.granted_watts(site.site_id) <= 0:
            looks = round(1 / LOOK_SECONDS)
            for look in range(1, looks if site.plant.is_on else 0):
                self._events.after(look * LOOK_SECONDS, self._switch, site)

    def _switch(self, site: SimulatedSite) -> None:
        kept, now = self._kept[site.site_id], self._events.now
        if kept.switch is None:
            return
        command = kept.switch.decide(self._switch_view(site, kept), now)
        if command == "off":
            kept.server.switch_off()
        elif command == "on":
            kept.server.switch_on()


class SimulatedFeed:
    """All farms' feeds."""

    def __init__(self, farms: Sequence[SimulatedFarm], events: Events) -> None:
        self.all_farms = farms
        self.farms = {site.site_id: farm for farm in farms for site in farm.sites}
        """Of each site."""
        self._events = events
        self._sequence = 0

    def tick(self, second: int) -> list[PowerReading]:
        """Measure every farm and send its readings to the agents beside it."""
        self._sequence += 1
        sent = []
        for farm in self.all_farms:
            for site, reading in farm.readings(second, self._sequence):
                self._events.after(FEED_DELAY_SECONDS, site.take_reading, reading)
                sent.append(reading)
        return sent
