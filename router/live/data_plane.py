"""What forwards requests, composed once: a router that is one process has one, and so has every worker.

Where records come from (Redis, or a parent that reads it for all workers) and how clients get here (a port,
or connections that a parent accepted) is the process's own affair.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from fleet.config import FleetConfig
from fleet.signing import RecordTrust
from gateway.cors import CorsPolicy
from gateway.envelope import Application, enveloped
from gateway.refusal import Refusal
from gateway.server import ClientRequest, HotRoute, HttpServer
from gateway.tls_config import caller_files
from gateway.tls_renewal import ServiceTls
from gateway.upstream import UpstreamPool
from router.api import create_app, hot_route
from router.config import RouterConfig
from router.live.access_log import AccessLog
from router.live.admission import Door
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.forward import Forwarder
from router.live.guard import Guard
from router.live.hold import Dispatcher
from router.live.ledger import Ledger
from router.live.lookout import Lookout
from router.live.metrics import RouterMetrics
from router.live.response_calls import ResponseCalls
from router.live.round_trips import measure_round_trips
from router.live.sites import SiteRegistry
from router.live.tracing import spans_of
from router.live.watch import watch
from router.policy.affinity import Affinity
from router.policy.key_ring import KeyRing
from router.policy.policies import make_policy

LAST_WORD_SECONDS = 1.0
"""Left at the end of the grace for stated errors to reach their clients."""


def site_token(fleet: FleetConfig) -> str | None:
    """What sites are shown."""
    return None if fleet.site_token is None else fleet.site_token.get_secret_value()


def bearer(fleet: FleetConfig) -> bytes | None:
    """The same, as the value of a header."""
    token = site_token(fleet)
    return None if token is None else f"Bearer {token}".encode()


class DataPlane:
    """One per process."""

    def __init__(
        self,
        fleet: FleetConfig,
        config: RouterConfig,
        *,
        events: EventRing,
        ledger: Ledger,
        sites: SiteRegistry,
        ring: KeyRing | None,
        trust: RecordTrust,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.registry = CollectorRegistry()
        """Of metrics."""
        self.sites = sites
        self._config = config
        self._clock = clock
        self._rng = rng
        self.cors = CorsPolicy(config.cors_origins) if config.cors_origins else None
        self._access_log = AccessLog() if config.access_log else None
        self._spans = spans_of(os.environ, clock)
        self.metrics = RouterMetrics(self.registry)
        self.ledger = ledger
        self.view = FleetView(
            registry=sites,
            metrics=self.metrics,
            events=events,
            networks=config.networks,
            max_clock_skew_seconds=fleet.max_clock_skew_seconds,
            trust=trust,
            clock=clock,
            unix_clock=time.time,
            rng=rng,
        )
        self.tls = ServiceTls("router", config.port_files, caller_files(fleet))
        self.pool = UpstreamPool(
            connect_timeout_seconds=config.connect_timeout_seconds, ssl_context=self.tls.context
        )
        self._lookout = Lookout(
            lambda: self.view.snapshot, connect_timeout_seconds=config.connect_timeout_seconds
        )
        affinity = Affinity() if config.affinity else None
        if affinity is not None:
            self.metrics.affinity = affinity.results
        self.dispatcher = Dispatcher(
            registry=sites,
            snapshot=lambda: self.view.snapshot,
            policy=make_policy(config.policy, config.policy_parameters.get(config.policy)),
            reserve_ratio=config.resume_reserve_ratio,
            max_held=config.hold_requests,
            flex_surplus_ratio=config.flex_surplus_ratio,
            flex_per_second=config.flex_requests_per_second,
            clock=clock,
            rng=rng,
            affinity=affinity,
        )
        self.view.on_change = self.dispatcher.pump
        self._door = Door(
            config=config,
            ring=ring,
            view=self.view,
            metrics=self.metrics,
            clock=clock,
            unix_clock=time.time,
            rng=rng,
        )
        self.forwarder = Forwarder(
            config=config,
            view=self.view,
            dispatcher=self.dispatcher,
            pool=self.pool,
            ledger=ledger,
            metrics=self.metrics,
            site_token=site_token(fleet),
            clock=clock,
            rng=rng,
            door=self._door,
            access_log=self._access_log,
            spans=self._spans,
        )
        self._calls = ResponseCalls(
            config=config,
            view=self.view,
            homes=self.forwarder.homes,
            pool=self.pool,
            site_token=site_token(fleet),
            clock=clock,
            rng=rng,
        )

    def route_by(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Another policy from now on; what waits is looked at by it at once.

        Raises:
            PolicyParameterError: no such policy, or parameters that it does not take.
        """
        self.dispatcher.policy = make_policy(name, parameters)
        self.dispatcher.pump()

    async def watch(self) -> None:
        """End what stalls or is late, until cancelled."""
        active, loops = self.forwarder.active, self.metrics.loops
        await watch(lambda: active, self._config, self._clock, self._lookout, loops)

    async def measure_round_trips(self) -> None:
        """How far away sites are, until cancelled."""
        await measure_round_trips(self.pool, self.sites)

    def loops(self) -> list[asyncio.Task[None]]:
        """What runs beside the requests, begun."""
        loops = {"watch": self.watch, "round trips": self.measure_round_trips, **self.tls.loops()}
        return [self.keep(name, loop) for name, loop in loops.items()]

    def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Begin a loop of this process, which goes on whatever happens in it."""
        return asyncio.create_task(self.metrics.loops.keep(name, loop), name=name)

    def application(self) -> Application:
        """The public surface beside the hot paths."""
        return enveloped(
            Guard(create_app(lambda: self.view.snapshot), self._door),
            cors=self.cors,
            rng=self._rng,
            seen=None if self._access_log is None else self._access_log.write_other,
        )

    def hot_route(self) -> HotRoute:
        """The hot paths."""
        return hot_route(self.forwarder, self._calls, self.cors)

    def head_refusal(self, request: ClientRequest) -> Refusal | None:
        """What a request is refused with by its head alone."""
        return self._door.head_refusal(request)

    async def shut_down(self, server: HttpServer, grace_seconds: float) -> None:
        """Take no new connections, end every request with an answer or a stated error, within the grace."""
        server.stop_accepting()
        until = self._clock() + max(0.0, grace_seconds - LAST_WORD_SECONDS)
        await self.forwarder.drain(until)
        await self.forwarder.terminate()
        await server.stop(LAST_WORD_SECONDS)

    async def aclose(self) -> None:
        """Once nothing is under way."""
        self.dispatcher.close()
        await self._lookout.aclose()
        self.view.aclose()
        await self.pool.aclose()
        if self._spans is not None:
            await self._spans.aclose()
