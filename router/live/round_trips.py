"""How far away each site is: the kernel's least round trip on the connections that are open to it (TCP_INFO).

Nothing is sent for it, and a site's own work is not in it. Where the kernel does not say (another system), it
stays unknown.
"""

from __future__ import annotations

import asyncio

from gateway.upstream import UpstreamPool
from router.live.sites import SiteRegistry

MEASURE_SECONDS = 5.0


def note_round_trips(pool: UpstreamPool, sites: SiteRegistry) -> None:
    """Write what the kernel says now into the loads that policies read."""
    seconds = pool.round_trip_seconds()
    for loads in sites.loads.values():
        for site_id, load in loads.items():
            entry = sites.entries.get(site_id)
            found = None if entry is None else seconds.get(entry.origin)
            if found is not None:
                load.round_trip_seconds = found


async def measure_round_trips(pool: UpstreamPool, sites: SiteRegistry) -> None:
    """Every few seconds, until cancelled."""
    while True:
        await asyncio.sleep(MEASURE_SECONDS)
        note_round_trips(pool, sites)
