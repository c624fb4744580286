"""The parent of a router with several workers: it owns the public port, the operator's surface and the one
subscription to Redis, and forwards nothing.

Shutdown: not ready → no new connections → workers finish what they have within the grace → exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from fleet.config import FleetConfig
from fleet.loops import end
from fleet.process_metrics import add_process_metrics, resident_bytes
from fleet.signing_keys import signing_of
from fleet.store import Store
from gateway.server import HttpServer, listen
from gateway.tls_config import caller_files
from gateway.tls_metrics import add_tls_metrics
from gateway.tls_renewal import ServiceTls
from gateway.upstream import UpstreamPool
from router.config import RouterConfig
from router.console.facts import Counters, RouterFacts
from router.live.console import Console, plan_facts
from router.live.data_plane import bearer
from router.live.events import EventRing
from router.live.fleet_reader import FleetReader
from router.live.fleet_view import FleetView
from router.live.key_reader import KEYS_NOT_READ, KeyReader
from router.live.metrics import RouterMetrics, StateCollector, counter, gauge
from router.live.operations import OPERATIONS_STOP_SECONDS, create_operations_app, fleet_page
from router.live.plan_metrics import plan_families
from router.live.planner import Planner
from router.live.policy_switch import PolicySwitch
from router.live.presence import Presence
from router.live.quota_sharing import QuotaSharing
from router.live.site_counts import SiteCounts
from router.live.sites import SiteRegistry
from router.live.state_metrics import fleet_families, key_families, ledger_families, policy_families
from router.workers.acceptor import Acceptor, is_anybody_waiting
from router.workers.counters import workers_counters
from router.workers.crew import Crew
from router.workers.frames import Kind, encode
from router.workers.key_relay import RelayedKeyRing
from router.workers.merge import merge
from router.workers.prometheus import read_page, render
from router.workers.quotas import CrewQuotas

logger = logging.getLogger(__name__)


class ParentRouter:
    """Everything of the parent; `start` and `stop` once each."""

    def __init__(
        self, fleet: FleetConfig, config: RouterConfig, store: Store, *, rng: random.Random | None = None
    ) -> None:
        self.config = config
        self._store = store
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        rng = rng or random.Random()
        self.events = EventRing()
        self.policy = PolicySwitch(config, self.events)
        self.policy.on_switch = lambda _name, _parameters: self.crew.tell_all(self._policy_frame())
        self.crew = Crew(
            fleet,
            config,
            view=lambda: self.view,
            keys=lambda: () if self.ring is None else self.ring.all_frames(),
            policy=self._policy_frame,
            spent=lambda child, body: None if self._quotas is None else self._quotas.take(child, body),
            events=self.events,
            clock=loop.time,
        )
        signing = signing_of(fleet, "router", "router", config.signing_key_file)
        self.ring = RelayedKeyRing(self.crew.tell_all, signing.trust) if config.auth == "keys" else None
        self._quotas: CrewQuotas | None = None
        self._registry = CollectorRegistry()
        metrics = self._metrics = RouterMetrics(self._registry)
        add_process_metrics(self._registry, "router")
        self.view = FleetView(
            registry=SiteRegistry(self.crew.shared),
            metrics=metrics,
            events=self.events,
            networks=config.networks,
            max_clock_skew_seconds=fleet.max_clock_skew_seconds,
            trust=signing.trust,
            clock=loop.time,
            unix_clock=time.time,
            rng=rng,
        )
        self.view.on_record = self.crew.relay
        self._tls = ServiceTls("router", config.port_files, caller_files(fleet))
        add_tls_metrics(self._registry, "router", self._tls)
        self._pool = UpstreamPool(
            connect_timeout_seconds=config.connect_timeout_seconds, ssl_context=self._tls.context
        )
        self.reader = FleetReader(
            store=store,
            view=self.view,
            pool=self._pool,
            metrics=metrics,
            events=self.events,
            authorization=bearer(fleet),
            clock=loop.time,
            unix_clock=time.time,
        )
        StateCollector(metrics, self._families)
        self._acceptor = Acceptor(lambda: self.crew.children)
        self._presence = Presence(
            config,
            store,
            demand=self.crew.demand,
            rng=rng,
            policy=lambda: self.policy.name,
            signer=signing.signer,
        )
        if self.ring is not None:
            router_id = self._presence.router_id
            sharing = QuotaSharing(store=store, ring=self.ring, member=router_id, clock=loop.time)
            self._quotas = CrewQuotas(self.ring, lambda: self.crew.living, sharing, loop.time)
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
        self.console = Console(self, self.view, self.events, clock=loop.time, unix_clock=time.time)
        self._fleet_name = fleet.name
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
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._accepting: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None
        self._is_stopping = False
        self.port = config.port
        """The public port, the real one after `start`."""

    def _policy_frame(self) -> bytes:
        return encode(Kind.POLICY, orjson.dumps([self.policy.name, dict(self.policy.parameters)]))

    @property
    def operations_port(self) -> int:
        """The operator's port, the real one after `start`."""
        return self._operations.port

    async def start(self) -> None:
        """Listen, start the workers, begin to follow the fleet; Redis need not be there.

        Clients that connect before the workers are ready wait in the port's backlog: connections stay where
        they are for long, and those that came first would all be with the worker that was first.

        Raises:
            OSError: a port cannot be had.
        """
        await self._operations.start()
        listener = self._listener = listen(self.config.host, self.config.port)
        self.port = listener.getsockname()[1]
        self._presence.listens(self.port, self.operations_port)
        self._keepers = [
            self._keep(f"worker {index}", functools.partial(self.crew.keep, index))
            for index in range(self.config.workers)
        ]
        self._tasks = [
            *(self._keep(name, loop) for name, loop in (self.reader.loops() | self._tls.loops()).items()),
            self._keep("resending", self.crew.resend_forever),
            self._keep("workers", self.crew.watch),
            self._keep("presence", self._presence.run),
            self._keep("planner", self.planner.run),
            self._keep("console", self.console.run),
        ]
        if self.ring is not None:
            keys = KeyReader(
                store=self._store,
                ring=self.ring,
                metrics=self._metrics,
                events=self.events,
                clock=self._clock,
            )
            self._tasks.append(self._keep("keys", keys.run))
        if self._quotas is not None:
            self._tasks += [self._keep(name, loop) for name, loop in self._quotas.loops().items()]
        self._accepting = asyncio.create_task(self._accept_once_ready(listener))

    def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._metrics.loops.keep(name, loop), name=name)

    async def _accept_once_ready(self, listener: socket.socket) -> None:
        await self.crew.wait_until_ready()
        self._acceptor.start(listener)

    async def stop(self) -> None:
        """Shut down within the grace; every request ends with an answer or a stated error."""
        self._is_stopping = True
        delay = self.config.shutdown_delay_seconds
        logger.info("stopping %d workers in %g s", self.config.workers, delay)
        await asyncio.sleep(delay)
        if self._accepting is not None and not self._accepting.done():
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            await self._let_in_who_waits()
        self._acceptor.close()
        if self._listener is not None:
            self._listener.close()
        await self.crew.stop(self.config.shutdown_grace_seconds)
        await end([*self._keepers, *self._tasks])
        self.view.aclose()
        self.console.close()
        await self._operations.stop(OPERATIONS_STOP_SECONDS)
        await self._pool.aclose()
        await self._store.aclose()
        logger.info("stopped")

    async def _let_in_who_waits(self) -> None:
        """Who has connected while the workers start is answered by the first that serves, in the grace."""
        if self._listener is None or not is_anybody_waiting(self._listener):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.shutdown_grace_seconds):
                await self.crew.wait_until_one_is_ready()
                self._acceptor.start(self._listener)

    def failed_task(self) -> BaseException | None:
        """What ended a loop that should run for ever; None while all is well."""
        for task in (*self._keepers, *self._tasks, self._accepting):
            if task is None:
                continue
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    def _not_ready(self) -> str | None:
        if self._is_stopping:
            return "shutting down"
        if self._accepting is None or not self._accepting.done():
            return "workers start"
        if not self.crew.ready:
            return "no worker is ready"
        if self.ring is not None and self.ring.read_at is None:
            return KEYS_NOT_READ
        if not self.view.has_known_sites:
            return "no site is known yet"
        return None

    def _families(self) -> Iterator[Metric]:
        yield from ledger_families(self.crew.ledger())
        yield from key_families(self.ring, now=self._clock(), unix_now=time.time())
        yield from plan_families(self.view.plans, self.planner.figures, now=self._clock())
        yield from fleet_families(self.view, is_store_up=self.reader.is_store_up, now=self._clock())
        yield from policy_families(self.policy)
        yield from worker_families(self.crew)

    # what the operator's surface asks
    async def metrics_page(self) -> bytes:
        """The parent's metrics and the workers', as one page."""
        await self.crew.ask(Kind.METRICS)
        workers = [child.metrics for child in self.crew.living]
        return render(merge(read_page(self._registry.collect()), workers, self.crew.ended_metrics))

    async def ledger_totals(self) -> dict[str, int]:
        """Every request of every worker since the start."""
        return self.crew.ledger().totals()

    async def policy_page(self) -> dict[str, Any]:
        """Which policy routes, and how many workers say that they follow it."""
        await self.crew.ask(Kind.STATE)
        followers = [child for child in self.crew.living if child.policy == self.policy.name]
        return {
            **self.policy.page(),
            "workers": {"following": len(followers), "configured": self.config.workers},
        }

    async def fleet_page(self) -> dict[str, Any]:
        """The fleet as the parent sees it, with what all workers have put on it."""
        await self.crew.ask(Kind.STATE)
        return {
            **fleet_page(
                self.view,
                counts=self.crew.sites(),
                ledger=self.crew.ledger(),
                held=sum(child.held for child in self.crew.living),
                is_store_up=self.reader.is_store_up,
                now=self._clock(),
            ),
            "workers": self._workers(),
        }

    def _workers(self) -> list[dict[str, Any]]:
        return [
            {
                "worker": index,
                "pid": None if child is None else child.pid,
                "is_ready": child is not None and child.is_ready,
                "connections": 0 if child is None else child.open_connections or 0,
                "requests": self.crew.requests_of(index),
                "cpu_seconds": None if child is None else child.cpu_seconds,
            }
            for index, child in enumerate(self.crew.children)
        ]

    # what the console asks
    def counters(self) -> Counters:
        """Everything that only grows, as workers said it last."""
        return workers_counters(self.crew.ledger(), self.crew.pages())

    def site_counts(self, site_ids: Sequence[str]) -> dict[str, SiteCounts]:
        """What was sent to these sites, as workers said it last."""
        return self.crew.sites(site_ids)

    def router_facts(self) -> RouterFacts:
        """The router as it is."""
        is_planner = self.config.planner.enabled
        return RouterFacts(
            about=self._presence.about,
            fleet=self._fleet_name,
            started_at_unix_seconds=self._presence.started_at_unix_seconds,
            not_ready=self._not_ready(),
            held=sum(child.held for child in self.crew.living),
            is_store_up=self.reader.is_store_up,
            workers=self._workers(),
            plan=plan_facts(self.view, self.planner, is_planner=is_planner, now=self._clock()),
        )


def worker_families(crew: Crew) -> Iterator[Metric]:
    """About the workers themselves."""
    indexes = range(len(crew.children))
    yield gauge(
        "heron_router_workers", "Workers that serve; act when below [router] workers.", [], {(): crew.ready}
    )
    yield counter(
        "heron_router_worker_restarts",
        "Workers that ended by themselves; act when it grows: the log says how.",
        [],
        {(): crew.restarts},
    )
    yield counter(
        "heron_router_worker_lost_requests",
        "Requests under way in workers that died, counted as failed; act as for restarts.",
        [],
        {(): crew.lost_requests},
    )
    yield counter(
        "heron_router_worker_requests",
        "Requests that each worker has taken; act when far from even: clients with few, busy connections.",
        ["worker"],
        {(str(index),): crew.requests_of(index) for index in indexes},
    )
    yield gauge(
        "heron_router_worker_resident_bytes",
        "Memory of each worker; act when it only grows: report it.",
        ["worker"],
        {
            (str(index),): resident
            for index in indexes
            if (child := crew.children[index]) is not None
            and (resident := resident_bytes(child.pid)) is not None
        },
    )
    yield gauge(
        "heron_router_worker_connections",
        "Clients' connections that each worker has.",
        ["worker"],
        {
            (str(index),): 0 if (child := crew.children[index]) is None else child.open_connections or 0
            for index in indexes
        },
    )
