"""From a farm's judged measurement to the reading of one of its sites (DESIGN §4, §8). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.records import ForecastPoint, PowerReading
from power_feed.quality import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Farm:
    """What turns a farm's power into what is there for its sites."""

    farm_id: str
    nameplate_watts: float
    """Rated maximum of the turbines."""
    loss_ratio: float = 0.0
    other_loads_watts: float = 0.0

    def deliverable_watts(self, farm_watts: float) -> float:
        """What is left for the sites: losses and the farm's other loads taken off, never below 0."""
        return max(0.0, farm_watts * (1 - self.loss_ratio) - self.other_loads_watts)

    def farm_watts(self, deliverable_watts: float) -> float:
        """The other way round; where nothing is left for the sites, the most that the farm may have had."""
        return (deliverable_watts + self.other_loads_watts) / (1 - self.loss_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who says it, and from what."""

    feed_id: str
    period_seconds: float
    """Wall seconds between two measurements of the source."""
    source: str


def power_reading(
    farm: Farm,
    verdict: Verdict,
    origin: Origin,
    *,
    site_id: str,
    sequence: int,
    granted_watts: float,
    forecast: tuple[ForecastPoint, ...] = (),
) -> PowerReading:
    """The record of one site: `available` and `nameplate` are the farm's, the grant and forecast the
    site's.
    """
    return PowerReading(
        feed_id=origin.feed_id,
        sequence=sequence,
        site_id=site_id,
        farm_id=farm.farm_id,
        observed_at_unix_seconds=verdict.observed_at_unix_seconds,
        period_seconds=origin.period_seconds,
        available_power_watts=farm.deliverable_watts(verdict.watts),
        granted_power_watts=granted_watts,
        nameplate_capacity_watts=farm.deliverable_watts(farm.nameplate_watts),
        quality=verdict.quality,
        source=origin.source,
        forecast=forecast,
    )
