"""One router process: composed once, here; runs until SIGTERM or SIGINT, then ends what is under way.

Shutdown: not ready → no new connections → requests in flight finish within the grace → the rest end with a
stated error → exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry

from fleet.config import FleetConfig
from fleet.keys import Keys
from fleet.records import RouterPresence
from fleet.store import Store, StoreError
from gateway.server import HttpServer
from gateway.upstream import UpstreamPool
from router.api import create_app, hot_route
from router.config import RouterConfig
from router.live.admission import Door
from router.live.events import EventRing
from router.live.fleet_reader import FleetReader
from router.live.fleet_view import FleetView
from router.live.forward import Forwarder
from router.live.guard import Guard
from router.live.hold import Dispatcher
from router.live.key_reader import KeyReader
from router.live.ledger import Ledger
from router.live.metrics import RouterMetrics, StateCollector
from router.live.operations import create_operations_app
from router.live.sites import SiteRegistry
from router.live.state_metrics import RouterState
from router.live.watch import watch
from router.policy.key_ring import KeyRing
from router.policy.policies import POLICIES

logger = logging.getLogger(__name__)

PRESENCE_SECONDS = 5.0
PRESENCE_TTL_SECONDS = 15
LAST_WORD_SECONDS = 1.0
"""Left at the end of the grace for stated errors to reach their clients."""


class Router:
    """Everything of one router; `start` and `stop` once each."""

    def __init__(
        self, fleet: FleetConfig, config: RouterConfig, store: Store, *, rng: random.Random | None = None
    ) -> None:
        self.config = config
        self._store = store
        loop = asyncio.get_running_loop()
        rng = rng or random.Random()
        token = fleet.site_token.get_secret_value() if fleet.site_token is not None else None
        self.router_id = f"{os.getpid()}-{rng.getrandbits(32):08x}"
        self._sequence = time.time_ns() // 1_000_000
        self._started_at = time.time()
        self._registry = CollectorRegistry()
        self.events = EventRing()
        self.metrics = RouterMetrics(self._registry)
        self.ledger = Ledger()
        self.view = FleetView(
            registry=SiteRegistry(),
            metrics=self.metrics,
            events=self.events,
            networks=config.networks,
            max_clock_skew_seconds=fleet.max_clock_skew_seconds,
            clock=loop.time,
            unix_clock=time.time,
            rng=rng,
        )
        self._pool = UpstreamPool(connect_timeout_seconds=config.connect_timeout_seconds)
        self.reader = FleetReader(
            store=store,
            view=self.view,
            pool=self._pool,
            metrics=self.metrics,
            events=self.events,
            authorization=f"Bearer {token}".encode() if token else None,
            clock=loop.time,
        )
        self.dispatcher = Dispatcher(
            registry=self.view.registry,
            snapshot=lambda: self.view.snapshot,
            policy=POLICIES[config.policy],
            reserve_ratio=config.resume_reserve_ratio,
            max_held=config.hold_requests,
            flex_surplus_ratio=config.flex_surplus_ratio,
            flex_per_second=config.flex_requests_per_second,
            clock=loop.time,
            rng=rng,
        )
        self.view.on_change = self.dispatcher.pump
        self.ring = KeyRing() if config.auth == "keys" else None
        self._door = Door(
            config=config,
            ring=self.ring,
            view=self.view,
            metrics=self.metrics,
            clock=loop.time,
            unix_clock=time.time,
            rng=rng,
        )
        self.forwarder = Forwarder(
            config=config,
            view=self.view,
            dispatcher=self.dispatcher,
            pool=self._pool,
            ledger=self.ledger,
            metrics=self.metrics,
            site_token=token,
            clock=loop.time,
            rng=rng,
            door=self._door,
        )
        self.state = RouterState(
            view=self.view,
            reader=self.reader,
            dispatcher=self.dispatcher,
            ledger=self.ledger,
            ring=self.ring,
            clock=loop.time,
            unix_clock=time.time,
        )
        StateCollector(self.metrics, self.state.families)
        self._server = HttpServer(
            Guard(create_app(lambda: self.view.snapshot), self._door),
            hot=hot_route(self.forwarder),
            host=config.host,
            port=config.port,
            max_body_bytes=config.max_body_bytes,
        )
        self._operations = HttpServer(
            create_operations_app(
                state=self.state,
                registry=self._registry,
                events=self.events,
                readiness=self._not_ready,
                about=self._about,
            ),
            host=config.operations_host,
            port=config.operations_port,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

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
        self._tasks = [
            asyncio.create_task(self.reader.run()),
            asyncio.create_task(watch(lambda: self.forwarder.active, self.config, self.state.clock)),
            asyncio.create_task(self._announce()),
        ]
        if self.ring is not None:
            keys = KeyReader(
                store=self._store,
                ring=self.ring,
                metrics=self.metrics,
                events=self.events,
                clock=self.state.clock,
            )
            self._tasks.append(asyncio.create_task(keys.run()))
        logger.info("router listens", extra=self._about())
        if self.config.auth == "open":
            logger.warning(
                'auth = "open": whoever reaches %s:%d may use this fleet', self.config.host, self.port
            )

    async def stop(self) -> None:
        """Shut down within the grace; every request ends with an answer or a stated error."""
        self._is_stopping = True
        self._server.stop_accepting()
        until = self.state.clock() + max(0.0, self.config.shutdown_grace_seconds - LAST_WORD_SECONDS)
        await self.forwarder.drain(until)
        await self.forwarder.terminate()
        await self._server.stop(LAST_WORD_SECONDS)
        self.dispatcher.close()
        self.view.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._operations.stop(0.0)
        await self._pool.aclose()
        await self._store.aclose()

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
            return "the API keys have not been read yet: Redis does not answer"
        if not self.view.is_settled:
            return "no site is known yet"
        return None

    def _about(self) -> dict[str, Any]:
        return {
            "router_id": self.router_id,
            "url": f"http://{self.config.host}:{self.port}",
            "operations_url": f"http://{self.config.operations_host}:{self.operations_port}",
            "version": version("heron-router"),
            "policy": self.config.policy,
            "auth": self.config.auth,
        }

    async def _announce(self) -> None:
        """Presence, for operators; nothing depends on it."""
        while True:
            about = self._about()
            self._sequence += 1
            record = RouterPresence(
                sequence=self._sequence,
                router_id=self.router_id,
                started_at_unix_seconds=self._started_at,
                url=about["url"],
                operations_url=about["operations_url"],
                version=about["version"],
                policy=about["policy"],
                workers=1,
            )
            try:
                await self._store.publish_router(self.router_id, record.to_json(), PRESENCE_TTL_SECONDS)
            except StoreError as error:
                logger.debug("presence not written: %s", error)
            await asyncio.sleep(PRESENCE_SECONDS)


async def serve(fleet: FleetConfig, config: RouterConfig) -> None:
    """Run until SIGTERM, SIGINT or cancelled; returns after a graceful stop.

    Raises:
        OSError: a port cannot be had.
    """
    from fleet.redis_store import RedisStore

    if "log_level" in config.model_fields_set:
        logging.getLogger().setLevel(config.log_level.upper())
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    router = Router(fleet, config, RedisStore(fleet.redis_url, Keys(fleet=fleet.name)))
    await router.start()
    try:
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stopping.wait()
            if (error := router.failed_task()) is not None:
                raise error
    finally:
        await router.stop()
