"""What the power feed says of a site's power, now and to come, with its age. Pure.

Rule: between two horizons quantiles are interpolated, before the first from what is granted now, after the
last they stay; quantiles that cross are put in order. A reading that is too old says nothing (`None`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from fleet.records import PowerQuality, PowerReading

MAX_AGE_SECONDS = 60.0
"""A reading comes every second; one as old as this tells of a feed that is gone, and its forecast is over."""


class Quantiles(NamedTuple):
    """Watts granted to the site at one moment to come."""

    p10_watts: float
    p50_watts: float
    p90_watts: float


class Horizon(NamedTuple):
    """A point of a forecast."""

    seconds: float
    """After the reading arrived."""
    watts: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOutlook:
    """One site's newest power reading."""

    site_id: str
    granted_power_watts: float
    quality: PowerQuality
    arrived_at: float
    """Monotonic, here."""
    forecast: tuple[Horizon, ...] = ()
    """Ascending; empty: no forecast is given, and power may do anything."""

    def is_fresh(self, now: float) -> bool:
        """Whether the feed is still heard."""
        return now - self.arrived_at <= MAX_AGE_SECONDS

    def at(self, at: float, now: float) -> Quantiles | None:
        """Quantiles at the instant `at`; None without a forecast, or when the reading is too old."""
        if not self.forecast or not self.is_fresh(now):
            return None
        wanted = at - self.arrived_at
        start = 0.0
        low = Quantiles(self.granted_power_watts, self.granted_power_watts, self.granted_power_watts)
        for seconds, high in self.forecast:
            if wanted < seconds:
                part = max(0.0, (wanted - start) / (seconds - start)) if seconds > start else 1.0
                return Quantiles(
                    low[0] + part * (high[0] - low[0]),
                    low[1] + part * (high[1] - low[1]),
                    low[2] + part * (high[2] - low[2]),
                )
            start, low = seconds, high
        return low


def power_outlook(reading: PowerReading, *, arrived_at: float) -> PowerOutlook:
    """The outlook of a reading that arrived at `arrived_at` (monotonic)."""
    points = (
        Horizon(
            point.horizon_seconds, Quantiles(*sorted((point.p10_watts, point.p50_watts, point.p90_watts)))
        )
        for point in reading.forecast
        if math.isfinite(point.horizon_seconds)
    )
    return PowerOutlook(
        site_id=reading.site_id,
        granted_power_watts=reading.granted_power_watts,
        quality=reading.quality,
        arrived_at=arrived_at,
        forecast=tuple(sorted(points, key=lambda point: point.seconds)),
    )
