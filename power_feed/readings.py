"""From a farm's judged measurement to the reading of its site (DESIGN §4, §8). Pure.

One site per farm until the allocator comes: the grant is what the farm can give. The forecast stays empty
until there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.records import PowerReading
from power_feed.quality import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Farm:
    """What turns a farm's power into its site's."""

    farm_id: str
    site_id: str
    nameplate_watts: float
    """Rated maximum of the turbines."""
    loss_ratio: float = 0.0
    other_loads_watts: float = 0.0

    def deliverable_watts(self, farm_watts: float) -> float:
        """What is left for the site: losses and the farm's other loads taken off, never below 0."""
        return max(0.0, farm_watts * (1 - self.loss_ratio) - self.other_loads_watts)


def power_reading(
    farm: Farm, verdict: Verdict, *, feed_id: str, sequence: int, period_seconds: float, source: str
) -> PowerReading:
    """The record for the farm's one site. `period_seconds` in wall seconds."""
    available = farm.deliverable_watts(verdict.watts)
    return PowerReading(
        feed_id=feed_id,
        sequence=sequence,
        site_id=farm.site_id,
        farm_id=farm.farm_id,
        observed_at_unix_seconds=verdict.observed_at_unix_seconds,
        period_seconds=period_seconds,
        available_power_watts=available,
        granted_power_watts=available,
        nameplate_capacity_watts=farm.deliverable_watts(farm.nameplate_watts),
        quality=verdict.quality,
        source=source,
    )
