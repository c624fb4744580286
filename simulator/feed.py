"""The simulated power feed: every second one reading per site, made by the live feed's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.records import PowerReading
from power_feed.quality import Verdict
from power_feed.readings import Farm, power_reading
from simulator.events import Events
from simulator.site import SimulatedSite
from simulator.wind import Watts

FEED_DELAY_SECONDS = 0.01
"""From the farm's feed to the agent beside it."""
NO_FAULT: frozenset[str] = frozenset()


class SimulatedFeed:
    """All farms' feeds."""

    def __init__(
        self,
        sites: Sequence[SimulatedSite],
        watts: Mapping[str, Watts],
        *,
        nameplate_watts: Mapping[str, float],
        events: Events,
    ) -> None:
        """`watts`: what each site's farm can give at each second."""
        self.tripped: set[str] = set()
        """Sites whose farm gives nothing now (a fault)."""
        self._sites = sites
        self._watts = watts
        self._events = events
        self._sequence = 0
        self._farms = {
            site.site_id: Farm(
                farm_id=f"farm-{site.site_id}",
                site_id=site.site_id,
                nameplate_watts=nameplate_watts[site.site_id],
            )
            for site in sites
        }

    def available_watts(self, site_id: str, second: int) -> float:
        """What the farm can give then."""
        return 0.0 if site_id in self.tripped else float(self._watts[site_id][second])

    def tick(self, second: int) -> None:
        """Measure every farm and send its reading."""
        self._sequence += 1
        for site in self._sites:
            verdict = Verdict(
                watts=self.available_watts(site.site_id, second),
                observed_at_unix_seconds=float(second),
                quality="good",
            )
            reading = power_reading(
                self._farms[site.site_id],
                verdict,
                feed_id="simulated-feed",
                sequence=self._sequence,
                period_seconds=1.0,
                source="simulated",
            )
            self._send(site, reading)

    def _send(self, site: SimulatedSite, reading: PowerReading) -> None:
        self._events.after(FEED_DELAY_SECONDS, site.take_reading, reading)
