"""A router that is one process: composed once, here; and what runs it, or a parent with workers, until
SIGTERM or SIGINT.

Shutdown: not ready → no new connections → requests in flight finish within the grace → the rest end with a
stated error → exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import Metric

from fleet.config import FleetConfig
from fleet.keys import Keys
from fleet.loops import end
from fleet.process_metrics import add_process_metrics
from fleet.signing_keys import signing_of
from fleet.store import Store
from gateway.garbage import relax_collector
from gateway.server import HttpServer
from gateway.tls_metrics import add_tls_metrics
from router.config import RouterConfig
from router.console.facts import Counters, RouterFacts
from router.live.console import Console, plan_facts
from router.live.console_counters import own_counters
from router.live.data_plane import DataPlane, bearer
from router.live.events import EventRing
from router.live.fleet_reader import FleetReader
from router.live.key_reader import KEYS_NOT_READ, KeyReader
from router.live.ledger import Ledger
from router.live.metrics import StateCollector
from router.live.operations import OPERATIONS_STOP_SECONDS, create_operations_app, fleet_page
from router.live.plan_metrics import plan_families
from router.live.planner import Planner
from router.live.policy_switch import PolicySwitch
from router.live.presence import Presence
from router.live.quota_sharing import QuotaSharing
from router.live.site_counts import SiteCounts, count_sites
from router.live.sites import SiteRegistry
from router.live.state_metrics import (
    fleet_families,
    key_families,
    ledger_families,
    policy_families,
    traffic_families,
)
from router.policy.key_ring import KeyRing
from router.workers.parent import ParentRouter

logger = logging.getLogger(__name__)


class Router:
    """Everything of a router that is one process; `start` and `stop` once each."""

    def __init__(
        self, fleet: FleetConfig, config: RouterConfig, store: Store, *, rng: random.Random | None = None
    ) -> None:
        self.config = config
        loop = asyncio.get_running_loop()
        rng = rng or random.Random()
        self._clock = loop.time
        self.events = EventRing()
        self.ledger = Ledger()
        signing = signing_of(fleet, "router", "router", config.signing_key_file)
        self.ring = KeyRing(signing.trust) if config.auth == "keys" else None
        plane = self._plane = DataPlane(
            fleet,
            config,
            events=self.events,
            ledger=self.ledger,
            sites=SiteRegistry(),
            ring=self.ring,
            trust=signing.trust,
            clock=loop.time,
            rng=rng,
        )
        self.metrics, self.view = plane.metrics, plane.view
        self.dispatcher, self.forwarder = plane.dispatcher, plane.forwarder
        self.reader = FleetReader(
            store=store,
            view=self.view,
            pool=plane.pool,
            metrics=self.metrics,
            events=self.events,
            authorization=bearer(fleet),
            clock=loop.time,
            unix_clock=time.time,
        )
        StateCollector(self.metrics, self._families)
        add_process_metrics(plane.registry, "router")
        add_tls_metrics(plane.registry, "router", plane.tls)
        self.policy = PolicySwitch(config, self.events)
        self.policy.on_switch = plane.route_by
        self._presence = Presence(
            config,
            store,
            demand=lambda: plane.metrics.demand.totals,
            rng=rng,
            policy=lambda: self.policy.name,
            signer=signing.signer,
        )
        self.planner = Planner(
            config.planner,
            store=store,
            view=self.view,
            router_id=self._presence.router_id,
            events=self.events,
            signing=signing,
            clock=loop.time,
            unix_clock=time.time,
        )
        self._server = HttpServer(
            plane.application(),
            hot=plane.hot_route(),
            head_refusal=plane.head_refusal,
            cors=plane.cors,
            allows_half_close=True,
            host=config.host,
            port=config.port,
            max_body_bytes=config.max_body_bytes,
            tls=plane.tls.port,
        )
        self.console = Console(self, self.view, self.events, clock=loop.time, unix_clock=time.time)
        self._operations = HttpServer(
            create_operations_app(
                surface=self,
                events=self.events,
                readiness=self._not_ready,
                about=lambda: self._presence.about,
                policy=self.policy,
                console=self.console,
                names=config.operations_names,
            ),
            host=config.operations_host,
            port=config.operations_port,
        )
        self._store = store
        self._fleet_name = fleet.name
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    @property
    def router_id(self) -> str:
        """Its name in Redis."""
        return self._presence.router_id

    @property
    def port(self) -> int:
        """The public port, the real one after `start`."""
        return self._server.port

    @property
    def operations_port(self) -> int:
        """The operator's port, the real one after `start`."""
        return self._operations.port

    async def start(self) -> None:
        """Listen and begin to follow the fleet; Redis need not be there.

        Raises:
            OSError: a port cannot be had.
        """
        await self._operations.start()
        await self._server.start()
        self._presence.listens(self.port, self.operations_port)
        keep = self._plane.keep
        self._tasks = [
            *self._plane.loops(),
            *(keep(name, loop) for name, loop in self.reader.loops().items()),
            keep("presence", self._presence.run),
            keep("planner", self.planner.run),
            keep("console", self.console.run),
        ]
        if self.ring is not None:
            keys = KeyReader(
                store=self._store,
                ring=self.ring,
                metrics=self.metrics,
                events=self.events,
                clock=self._clock,
            )
            sharing = QuotaSharing(
                store=self._store, ring=self.ring, member=self.router_id, clock=self._clock
            )
            self._tasks += [keep("keys", keys.run), keep("quotas", sharing.run)]

    async def stop(self) -> None:
        """Shut down within the grace; every request ends with an answer or a stated error."""
        self._is_stopping = True
        delay = self.config.shutdown_delay_seconds
        logger.info("stopping in %g s, %d requests under way", delay, self.ledger.in_flight)
        await asyncio.sleep(delay)
        await self._plane.shut_down(self._server, self.config.shutdown_grace_seconds)
        await end(self._tasks)
        self.console.close()
        await self._operations.stop(OPERATIONS_STOP_SECONDS)
        await self._plane.aclose()
        await self._store.aclose()
        broken, requests = self.ledger.count("broken"), self.ledger.requests
        logger.info("stopped; of %d requests since the start %d ended broken", requests, broken)

    def failed_task(self) -> BaseException | None:
        """What ended a loop that should run for ever; None while all is well."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    def _not_ready(self) -> str | None:
        if self._is_stopping:
            return "shutting down"
        if self.ring is not None and self.ring.read_at is None:
            return KEYS_NOT_READ
        if not self.view.has_known_sites:
            return "no site is known yet"
        return None

    def _families(self) -> Iterator[Metric]:
        yield from ledger_families(self.ledger)
        yield from traffic_families(self.view.registry, self.dispatcher.held_by_tier)
        yield from key_families(self.ring, now=self._clock(), unix_now=time.time())
        yield from plan_families(self.view.plans, self.planner.figures, now=self._clock())
        yield from fleet_families(self.view, is_store_up=self.reader.is_store_up, now=self._clock())
        yield from policy_families(self.policy)

    # what the operator's surface asks
    async def metrics_page(self) -> bytes:
        """All metrics of this process."""
        return generate_latest(self._plane.registry)

    async def ledger_totals(self) -> dict[str, int]:
        """Every request since the start."""
        return self.ledger.totals()

    async def fleet_page(self) -> dict[str, Any]:
        """The fleet as this process sees it."""
        return fleet_page(
            self.view,
            counts=count_sites(self.view.registry),
            ledger=self.ledger,
            held=self.dispatcher.held,
            is_store_up=self.reader.is_store_up,
            now=self._clock(),
        )

    async def policy_page(self) -> dict[str, Any]:
        """Which policy routes."""
        return self.policy.page()

    # what the console asks
    def counters(self) -> Counters:
        """Everything that only grows."""
        return own_counters(self.ledger, self.metrics)

    def site_counts(self, site_ids: Sequence[str]) -> dict[str, SiteCounts]:
        """What was sent to these sites."""
        return count_sites(self.view.registry, site_ids)

    def router_facts(self) -> RouterFacts:
        """The router as it is."""
        is_planner = self.config.planner.enabled
        return RouterFacts(
            about=self._presence.about,
            fleet=self._fleet_name,
            started_at_unix_seconds=self._presence.started_at_unix_seconds,
            not_ready=self._not_ready(),
            held=self.dispatcher.held,
            is_store_up=self.reader.is_store_up,
            plan=plan_facts(self.view, self.planner, is_planner=is_planner, now=self._clock()),
        )


async def serve(fleet: FleetConfig, config: RouterConfig) -> None:
    """Run until SIGTERM, SIGINT or cancelled; returns after a graceful stop.

    Raises:
        OSError: a port cannot be had.
        ServiceError: no worker can serve.
    """
    from fleet.redis_store import RedisStore

    if "log_level" in config.model_fields_set:
        logging.getLogger().setLevel(config.log_level.upper())
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    store = RedisStore(fleet.redis_url, Keys(fleet=fleet.name))
    router: Router | ParentRouter
    router = Router(fleet, config, store) if config.workers == 1 else ParentRouter(fleet, config, store)
    await router.start()
    relax_collector()
    try:
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stopping.wait()
            if (error := router.failed_task()) is not None:
                raise error
    finally:
        await router.stop()
