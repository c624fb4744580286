"""The metrics that are read off the router's state when it is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from router.live.fleet_reader import FleetReader
from router.live.fleet_view import FleetView
from router.live.hold import Dispatcher
from router.live.ledger import Ledger
from router.live.metrics import counter, gauge, outcome_samples
from router.policy.key_ring import KeyRing

BREAKER_VALUES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
STATES = ("serving", "draining", "dark", "faulted")


class RouterState:
    """All that the operator's surface reads; it changes nothing."""

    def __init__(
        self,
        *,
        view: FleetView,
        reader: FleetReader,
        dispatcher: Dispatcher,
        ledger: Ledger,
        ring: KeyRing | None,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self.view = view
        self.reader = reader
        self.dispatcher = dispatcher
        self.ledger = ledger
        self.ring = ring
        self.clock = clock
        self.unix_clock = unix_clock

    def families(self) -> Iterator[Metric]:
        """Ledger, hold queue, store and sites."""
        ledger = self.ledger
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
        yield gauge(
            "heron_router_held_requests",
            "Requests that wait for room; act when it stays above 0: the fleet lacks power or capacity.",
            ["tier"],
            {(tier,): count for tier, count in self.dispatcher.held_by_tier.items()},
        )
        yield from self._key_families()
        yield gauge(
            "heron_router_store_up",
            "1 when Redis answers; act on 0: routing goes on from the sites' own reports.",
            [],
            {(): 1.0 if self.reader.is_store_up else 0.0},
        )
        yield from self._site_families()

    def _key_families(self) -> Iterator[Metric]:
        ring = self.ring
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
            {(): ring.usable(self.unix_clock())} if ring is not None and is_read else {},
        )
        yield gauge(
            "heron_router_api_keys_age_seconds",
            "Time since the keys were last read; act above 10: start Redis, new keys do not work yet.",
            [],
            {(): self.clock() - ring.read_at} if ring is not None and ring.read_at is not None else {},
        )

    def _site_families(self) -> Iterator[Metric]:
        now = self.clock()
        views, entries = self.view.snapshot.sites, self.view.registry.entries
        kept = {site_id: records for site_id in views if (records := self.view.records(site_id)) is not None}
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
