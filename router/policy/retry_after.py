"""When a client that was refused should come back. Pure: randomness is an argument."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from fleet.records import PowerReading
from router.policy.snapshot import Shortage, SiteView

CAPACITY_SECONDS = 2.0
"""Room comes back as requests finish: within seconds."""
POWER_SECONDS = 15.0
"""Where no forecast says when power comes back."""
MAX_SECONDS = 3600.0
JITTER_RATIO = 0.2
DO_NOT_RETRY_SECONDS = 60.0
"""Above this a client library should not sleep on its user's time."""


def retry_after_seconds(
    shortage: Shortage,
    sites: Sequence[tuple[SiteView, PowerReading | None]],
    rng: random.Random,
) -> int:
    """Whole seconds, at least 1, ± 20 % so that clients do not return together.

    For power: the first forecast horizon at which some site's median lets it run engines again, that is, at
    which it is above the site's idle draw (half as much again where the site does not state one).
    """
    seconds = CAPACITY_SECONDS
    if shortage == "no_power":
        horizons = [
            point.horizon_seconds
            for site, reading in sites
            if reading is not None
            for point in reading.forecast
            if point.p50_watts > _needed_watts(site, reading)
        ]
        seconds = min(horizons, default=POWER_SECONDS)
    spread = 1 + rng.uniform(-JITTER_RATIO, JITTER_RATIO)
    return max(1, math.ceil(min(seconds, MAX_SECONDS) * spread))


def quota_retry_after_seconds(seconds: float, rng: random.Random) -> int:
    """The same for a quota: up to 20 % later than when it allows the request, never before."""
    return max(1, math.ceil(min(seconds, MAX_SECONDS) * (1 + rng.uniform(0, JITTER_RATIO))))


def _needed_watts(site: SiteView, reading: PowerReading) -> float:
    if site.server_idle_watts is not None:
        return site.server_idle_watts * 1.1
    return reading.granted_power_watts * 1.5
