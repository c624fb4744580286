"""What one process, or all workers together, have put on the sites: plain numbers for the operator's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.live.sites import SiteRegistry
from router.policy.breaker import BreakerState

SiteCounts = dict[str, Any]
"""`in_flight`, `requests`, `results`, `pushbacks`, `breaker`, `models` (in flight per model); all JSON."""
WORST_FIRST: tuple[BreakerState, ...] = ("open", "half_open", "closed")


def count_sites(sites: SiteRegistry, site_ids: Iterable[str] | None = None) -> dict[str, SiteCounts]:
    """Of this process. `site_ids`: of these alone."""
    wanted = sites.entries if site_ids is None else [key for key in site_ids if key in sites.entries]
    counts: dict[str, SiteCounts] = {
        site_id: {
            "in_flight": entry.in_flight,
            "requests": entry.requests,
            "results": dict(entry.results),
            "pushbacks": dict(entry.pushbacks),
            "breaker": entry.breaker.state,
            "models": {},
        }
        for site_id in wanted
        for entry in (sites.entries[site_id],)
    }
    for model, loads in sites.loads.items():
        for site_id in wanted:
            if site_id in loads:
                counts[site_id]["models"][model] = loads[site_id].in_flight
    return counts


def no_counts() -> SiteCounts:
    """Of a site that nothing has been sent to."""
    return {
        "in_flight": 0,
        "requests": 0,
        "results": {},
        "pushbacks": {},
        "breaker": "closed",
        "models": {},
    }


def sum_sites(parts: Iterable[Mapping[str, SiteCounts]]) -> dict[str, SiteCounts]:
    """Of all workers: sums, and the worst state that any one's breaker is in."""
    total: dict[str, SiteCounts] = {}
    for part in parts:
        for site_id, counts in part.items():
            into = total.setdefault(site_id, no_counts())
            into["in_flight"] += counts["in_flight"]
            into["requests"] += counts["requests"]
            into["breaker"] = min(into["breaker"], counts["breaker"], key=WORST_FIRST.index)
            for name in ("results", "pushbacks", "models"):
                for key, count in counts[name].items():
                    into[name][key] = into[name].get(key, 0) + count
    return total


def finished_counts(counts: Mapping[str, SiteCounts]) -> dict[str, SiteCounts]:
    """What stays of a worker that has ended: what it did, not what it was doing."""
    return {
        site_id: {**site, "in_flight": 0, "models": {}, "breaker": "closed"}
        for site_id, site in counts.items()
    }
