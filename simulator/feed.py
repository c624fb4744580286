"""The simulated power feed: every second one reading per site, made by the live feed's own code.

The allocator splits each farm's power between its sites, the forecaster learns from what it has measured, and
`site_forecasts` turns a farm's quantiles into its sites'. The forecaster learns and speaks every
`FORECAST_SECONDS`; live does so at every measurement, which at these horizons says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fleet.records import ForecastPoint, PowerReading, SiteReport
from power_feed.allocator import Allocator, SiteClaim
from power_feed.forecast import Forecaster
from power_feed.outlook import site_forecasts
from simulator.events import Events
from simulator.site import SimulatedSite
from simulator.wind import History, Watts

FEED_DELAY_SECONDS = 0.01
"""From the farm's feed to the agent beside it."""
FORECAST_SECONDS = 10


class SimulatedFarm:
    """One farm: its power, its sites, what it granted and what it expects."""

    def __init__(
        self,
        farm_id: str,
        sites: Sequence[SimulatedSite],
        watts: Watts,
        *,
        nameplate_watts: float,
        history: History | None,
    ) -> None:
        """`history`: what was measured before the block."""
        self.farm_id = farm_id
        self.sites = sites
        self.nameplate_watts = nameplate_watts
        self.is_tripped = False
        self._watts = watts
        self._allocator = Allocator(period_seconds=1.0)
        self._forecaster = Forecaster(nameplate_watts)
        self._forecasts: dict[str, tuple[ForecastPoint, ...]] = {}
        self._heard: dict[str, tuple[float, float | None, float | None]] = {}
        """Site → when its last report came, its draw and its cap."""
        if history is not None:
            for at, before in zip(history.at_seconds, history.watts, strict=True):
                self._forecaster.observe(float(before), float(at))

    def available_watts(self, second: int) -> float:
        """What it can give then."""
        return 0.0 if self.is_tripped else float(self._watts[second])

    def take_report(self, report: SiteReport, now: float) -> None:
        """A site's report reached the feed."""
        self._heard[report.site_id] = now, report.power.draw_watts, report.power.cap_watts

    def readings(self, second: int, sequence: int) -> Iterator[tuple[SimulatedSite, PowerReading]]:
        """This second's readings of all sites."""
        available = self.available_watts(second)
        claims = [self._claim(site) for site in self.sites]
        grants = self._allocator.allocate(available, claims, float(second))
        if second % FORECAST_SECONDS == 0:
            self._forecaster.observe(available, float(second))
            self._forecasts = site_forecasts(self._forecaster.quantiles(), self._allocator.in_order(claims))
        for site in self.sites:
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

    def _claim(self, site: SimulatedSite) -> SiteClaim:
        heard_at, draw_watts, cap_watts = self._heard.get(site.site_id, (None, None, None))
        idle_watts = site.model.server_idle_watts
        margin = site.settings.margin_ratio
        return SiteClaim(
            site_id=site.site_id,
            min_grant_watts=idle_watts / (1 - margin),
            max_grant_watts=site.max_site_watts / (1 - margin),
            idle_watts=idle_watts,
            is_listening=not site.is_down,
            heard_at=heard_at,
            draw_watts=draw_watts,
            cap_watts=cap_watts,
            ride_through_seconds=site.settings.ride_through_seconds,
        )


class SimulatedFeed:
    """All farms' feeds."""

    def __init__(self, farms: Mapping[str, SimulatedFarm], events: Events) -> None:
        self.farms = farms
        self._events = events
        self._sequence = 0

    def tick(self, second: int) -> list[PowerReading]:
        """Measure every farm and send its readings to the agents beside it."""
        self._sequence += 1
        sent = []
        for farm in self.farms.values():
            for site, reading in farm.readings(second, self._sequence):
                self._events.after(FEED_DELAY_SECONDS, site.take_reading, reading)
                sent.append(reading)
        return sent
