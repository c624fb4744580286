"""The metrics that are read off the router's state when it is scraped, in three parts: what the ledger
counts, what this process forwards, and what is known of the fleet. With several workers each part comes from
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from fleet.profile import profile_of
from fleet.records import SiteInfo
from fleet.request import ServiceTier
from router.live.fleet_view import FleetView
from router.live.ledger import Ledger
from router.live.metrics import counter, gauge, outcome_samples
from router.live.policy_switch import PolicySwitch
from router.live.sites import SiteRegistry
from router.policy.key_ring import KeyRing

BREAKER_VALUES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
STATES = ("serving", "draining", "dark", "faulted")


def ledger_families(ledger: Ledger) -> Iterator[Metric]:
    """How requests ended, and how many are under way."""
    yield counter(
        "heron_router_requests",
        "Requests by how they ended; act on broken and failed: the events say which site and why.",
        ["model", "outcome"],
        outcome_samples(ledger.by_model),
    )
    yield counter(
        "heron_router_retried_requests",
        "Requests that more than one site was asked for.",
        [],
        {(): ledger.retried},
    )
    yield counter(
        "heron_router_resumed_requests",
        "Requests whose stream went on elsewhere.",
        [],
        {(): ledger.resumed},
    )
    yield gauge("heron_router_in_flight_requests", "Requests under way.", [], {(): ledger.in_flight})
    yield gauge(
        "heron_router_lost_requests",
        "Requests that are over and have no outcome; must be 0: report it, with the router's log.",
        [],
        {(): ledger.totals()["lost"]},
    )


def policy_families(policy: PolicySwitch) -> Iterator[Metric]:
    """Which policy routes, and how often that was changed."""
    yield gauge(
        "heron_router_policy_info",
        "Always 1; which policy routes. Act when replicas differ: switch the odd one.",
        ["policy"],
        {(policy.name,): 1},
    )
    yield counter(
        "heron_router_policy_switches",
        "Policies switched to by an operator since the start.",
        [],
        {(): policy.switches},
    )


def traffic_families(sites: SiteRegistry, held_by_tier: Mapping[ServiceTier, int]) -> Iterator[Metric]:
    """What this process has put on the sites, and what it holds back."""
    entries = sites.entries
    yield gauge(
        "heron_router_held_requests",
        "Requests that wait for room; act when it stays above 0: the fleet lacks power or capacity.",
        ["tier"],
        {(tier,): count for tier, count in held_by_tier.items()},
    )
    yield gauge(
        "heron_router_site_breaker_state",
        "0 closed, 1 half open, 2 open; act on 2: the site fails requests, its agent's log says why.",
        ["site"],
        {(site_id,): BREAKER_VALUES[entry.breaker.state] for site_id, entry in entries.items()},
    )
    yield gauge(
        "heron_router_site_in_flight_requests",
        "Requests of this router that are at the site.",
        ["site"],
        {(site_id,): entry.in_flight for site_id, entry in entries.items()},
    )
    yield counter(
        "heron_router_site_requests",
        "Requests sent to the site, retries and resumes too.",
        ["site"],
        {(site_id,): entry.requests for site_id, entry in entries.items()},
    )
    yield counter(
        "heron_router_site_results",
        "What became of them there.",
        ["site", "result"],
        {
            (site_id, result): count
            for site_id, entry in entries.items()
            for result, count in entry.results.items()
        },
    )
    yield counter(
        "heron_router_site_pushbacks",
        "Requests that the site refused for now; act when capacity stays above 1 % of requests.",
        ["site", "reason"],
        {
            (site_id, reason): count
            for site_id, entry in entries.items()
            for reason, count in entry.pushbacks.items()
        },
    )


def key_families(ring: KeyRing | None, *, now: float, unix_now: float) -> Iterator[Metric]:
    """Who may come in; `ring` is None where everybody may."""
    yield gauge(
        "heron_router_auth_open",
        "1 where whoever reaches the port may use the fleet; act on 1 where that is not meant.",
        [],
        {(): 1.0 if ring is None else 0.0},
    )
    is_read = ring is not None and ring.read_at is not None
    yield gauge(
        "heron_router_api_keys",
        "API keys that open something now; act on 0: make one with heron keys add.",
        [],
        {(): ring.usable(unix_now)} if ring is not None and is_read else {},
    )
    yield gauge(
        "heron_router_api_keys_age_seconds",
        "Time since the keys were last read; act above 10: start Redis, new keys do not work yet.",
        [],
        {(): now - ring.read_at} if ring is not None and ring.read_at is not None else {},
    )
    yield gauge(
        "heron_router_api_keys_gone",
        "API keys in use that Redis has no record of any more; act above 0: restore them before a restart.",
        [],
        {(): ring.gone(unix_now)} if ring is not None and is_read else {},
    )


def fleet_families(view: FleetView, *, is_store_up: bool | None, now: float) -> Iterator[Metric]:
    """What is known of the fleet, and how fresh that is."""
    views = view.snapshot.sites
    kept = {site_id: records for site_id in views if (records := view.records(site_id)) is not None}
    yield gauge(
        "heron_router_store_up",
        "1 when Redis answers; act on 0: routing goes on from the sites' own reports.",
        [],
        {(): 1.0 if is_store_up else 0.0},
    )
    yield gauge(
        "heron_router_site_cordoned",
        "1 where an operator wants no new work sent to the site, else 0.",
        ["site"],
        {(site_id,): float(site.cordon is not None) for site_id, site in views.items()},
    )
    yield gauge(
        "heron_router_site_state",
        "1 for the state that the site reports.",
        ["site", "state"],
        {
            (site_id, state): 1.0 if site.state == state else 0.0
            for site_id, site in views.items()
            for state in STATES
        },
    )
    yield gauge(
        "heron_router_site_report_age_seconds",
        "Time since a newer report of the site arrived; act above 10: look at its agent and at Redis.",
        ["site"],
        {(site_id,): now - site.arrived_at for site_id, site in views.items()},
    )
    yield gauge(
        "heron_router_site_clock_skew_seconds",
        "This router's clock less the site's at its last report; act beyond a few seconds: fix NTP.",
        ["site"],
        {(site_id,): records.skew_seconds for site_id, records in kept.items()},
    )
    yield gauge(
        "heron_router_site_profile_known",
        "1 where a profile describes every configuration of the site; act on 0: no promise counts on it.",
        ["site"],
        {(site_id,): _is_described(site.info) for site_id, site in views.items() if site.info is not None},
    )


def _is_described(info: SiteInfo) -> float:
    known = [profile_of(info, one.profile_id) is not None for one in info.configurations]
    return 1.0 if known and all(known) else 0.0
