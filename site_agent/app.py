"""Runs one site agent: `serve` is what `heron site-agent` calls.

The order of things, each because of the one after it: the site's lock, leftovers stopped, the watchdog, the
drivers, the ports, the power loop (which alone starts engines). On SIGTERM the reverse: no new requests,
those in flight finish within the grace under the cap as ever, engines stop, the watchdog is released.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from fleet.config import ConfigError, FleetConfig
from fleet.keys import Keys
from fleet.loops import end
from fleet.store import Store
from gateway.server import HttpServer
from gateway.tls_metrics import add_tls_metrics
from site_agent import drivers as driver_kinds
from site_agent import leftovers, metrics, operations, parts, sample, survival
from site_agent.config import SiteConfig
from site_agent.drivers.call_thread import CallThread
from site_agent.drivers.interface import DriverError, Drivers
from site_agent.energy_metrics import EnergyCollector
from site_agent.forwarding import Forwarder
from site_agent.held_responses import HeldResponses
from site_agent.ingress import Ingress
from site_agent.processes import Processes
from site_agent.reporter import Reporter
from site_agent.site_records import SiteRecords

logger = logging.getLogger(__name__)

Loop = Callable[[], Coroutine[Any, Any, None]]

LAST_REPORT_SECONDS = 1.0
"""How long the last word to Redis may take."""
CLOSE_SECONDS = 1.0
"""For connections of the ingress after the grace."""
SLOW_DRIVERS_SECONDS = 10.0
READING_MAX_AGE_SECONDS = 30.0
"""Without a reading for so long the agent is not ready: its cap is being walked down."""


class SiteAgent:
    """One site: `start`, then `stop`; `aclose` whatever happens."""

    def __init__(self, of: parts.Parts, tasks: asyncio.TaskGroup) -> None:
        self.parts = of
        self.records = SiteRecords(of)
        self.reporter = Reporter(
            site_id=of.config.site_id,
            store=of.store,
            changed=of.changed,
            make_report=self.records.report,
            make_info=self.records.info,
            signing=of.signing,
        )
        self._tasks = tasks
        self._loops: list[asyncio.Task[None]] = []
        self.ingress = self._create_ingress()
        registry = metrics.create_registry(
            metrics.SiteCollector(
                facts=sample.facts(of), sample=lambda: sample.take(of, self.records, self.reporter)
            ),
            EnergyCollector(site_id=of.config.site_id, model=of.config.engine.model, meter=of.energy),
        )
        add_tls_metrics(registry, "site", of.tls, site=of.config.site_id)
        self.operations = HttpServer(
            operations.create_app(
                site_id=of.config.site_id, registry=registry, why_not_ready=self.why_not_ready
            ),
            host=of.config.operations_host,
            port=of.config.operations_port,
        )

    def _create_ingress(self) -> HttpServer:
        of = self.parts
        token = of.fleet.site_token
        responses = HeldResponses(instances=of.pool.instances, clock=asyncio.get_running_loop().time)
        ingress = Ingress(
            responses=responses,
            admission=of.admission,
            forwarder=Forwarder(
                note_opening=responses.learn,
                bills=of.energy.requests,
                admission=of.admission,
                upstream=of.upstream,
                request_timeout_seconds=of.config.request_timeout_seconds,
                max_answer_bytes=of.config.max_answer_bytes,
                engine_api_key=of.config.engine_api_key(),
            ),
            site_token=None if token is None else token.get_secret_value(),
            engine_paths=lambda: of.drivers.engines.capabilities().paths,
            models=self.records.models,
            report=self.reporter.current_report,
            count=lambda outcome: of.outcomes.update((outcome,)),
            count_pushback=lambda reason: of.pushbacks.update((reason,)),
        )
        return HttpServer(
            hot=ingress.route,
            host=of.config.host,
            port=of.config.port,
            max_body_bytes=of.config.max_body_bytes,
            tls=of.tls.port,
        )

    async def start(self) -> None:
        """Listen, and begin to follow the power.

        Raises:
            ConfigError: engines cannot run here, or a port cannot be had.
        """
        of = self.parts
        self._warn()
        beating = asyncio.create_task(self._beat())
        try:
            await of.drivers.engines.open()
            await self.ingress.start()
            await self.operations.start()
        except (DriverError, OSError) as error:
            raise ConfigError(f"[sites.{of.config.site_id}] {error}") from error
        finally:
            beating.cancel()
        self.records.ingress_url = of.config.ingress_at(self.ingress.port)
        clock = of.power.governor.clock_mhz
        if of.drivers.gpus.can_set_clock:
            of.pool.set_clock(clock, full_clock_mhz=clock)  # what an earlier agent locked is unlocked first
        governing: tuple[Loop, ...] = (of.power.run, of.pool.watch, of.pool.follow_clocks)
        """One that fails ends the agent, and with it every engine."""
        kept: dict[str, Loop] = {
            "power stream": of.follow.follow_stream,
            "power events": of.follow.follow_events,
            "power record": of.follow.reread,
            "plan events": of.plan_follow.follow_events,
            "plan record": of.plan_follow.reread,
            "GPU power": of.power.meter,
            **of.scraper.loops(),
            "energy": of.energy.run,
            "reporter": self.reporter.run,
            **of.tls.loops(),
            **({} if of.meter is None else {"site meter": of.meter.run}),
        }
        """Without any of them the cap holds: what is not heard lets it walk down."""
        running = [(loop.__qualname__, loop()) for loop in governing]
        running += [(name, of.loops.keep(name, loop)) for name, loop in kept.items()]
        self._loops = [self._tasks.create_task(work, name=name) for name, work in running]
        logger.info(
            "site agent up",
            extra={
                "site": of.config.site_id,
                "agent_id": of.agent_id,
                "ingress_url": self.records.ingress_url,
                "operations_port": self.operations.port,
            },
        )

    async def _beat(self) -> None:
        """The heartbeat until the power loop turns: on a busy machine drivers open slowly."""
        while True:
            self.parts.processes.beat()
            await asyncio.sleep(self.parts.config.governor.tick_seconds)

    async def stop(self) -> None:
        """Graceful; the power loop governs, and beats, until the engines are gone."""
        of = self.parts
        logger.info("shutting down", extra={"in_flight": of.admission.total_in_flight})
        of.power.is_closing = True
        of.admission.shut()
        of.changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(of.config.shutdown_grace_seconds):
                await of.admission.emptied.wait()
        broken = of.admission.break_all()
        await self.ingress.stop(CLOSE_SECONDS)
        for instance in of.pool.instances:
            of.pool.stop(instance.instance_id, kill=broken > 0)
        await of.pool.stopped()
        await of.drivers.engines.aclose()
        await of.drivers.gpus.aclose()
        await end(self._loops)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self.reporter.publish()
        await self.operations.stop(0)
        logger.info("site agent stopped", extra={"site": of.config.site_id, "broken_streams": broken})

    async def aclose(self) -> None:
        """Let go of everything, also after a fault: no engine outlives this. Idempotent."""
        await self.ingress.stop(0)
        await self.operations.stop(0)
        await self.parts.upstream.aclose()
        if self.parts.meter is not None:
            await self.parts.meter.aclose()

    def why_not_ready(self) -> str | None:
        """For /readyz. A dark site is ready: it does its work."""
        age = self.parts.follow.age_seconds(asyncio.get_running_loop().time())
        if self.parts.admission.is_closed:
            return "shutting down"
        if age is None:
            return f"no power reading yet from {self.parts.config.feed_url}"
        if age > READING_MAX_AGE_SECONDS:
            return f"no power reading for {age:.0f} s from {self.parts.config.feed_url}"
        return None

    def _warn(self) -> None:
        """What an operator must know at start."""
        config, idle_watts = self.parts.config, self.parts.power.governor.model.server_idle_watts
        if not config.governor.enabled:
            logger.critical(
                "THE GOVERNOR IS SWITCHED OFF: this site will exceed its cap; set governor.enabled = true"
            )
        if config.safe_floor_watts < idle_watts and not config.has_server_switch:
            logger.warning(
                "this site cannot keep a cap below %.0f W, what it draws with every engine stopped: "
                "safe_floor_watts is %.0f and has_server_switch is false; such time counts as "
                "cap_exceeded_seconds, and apart as below_idle_seconds",
                idle_watts,
                config.safe_floor_watts,
            )
        model = self.parts.power.governor.model
        logger.info(
            "the site reckons with a profile",
            extra={"profile": model.profile.profile_id, "clocks_mhz": list(model.clocks_mhz)},
        )
        for sentence in config.profiles.warnings():
            logger.warning("%s", sentence)
        for sentence in self.records.announced.untold:
            logger.warning("routers are not told of a profile, they go by this site's reports: %s", sentence)
        ride_through = config.ride_through(spare_gpus=model.spare_gpus)
        for sentence in survival.warnings(model, config.governor_rule(), ride_through):
            logger.warning("ride-through: %s", sentence)
        if self.parts.drivers.gpus.is_fake:
            logger.warning("the GPUs of this site are fake: its watts are made up")


async def serve(fleet: FleetConfig, config: SiteConfig, *, store: Store | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until cancelled; then return with every engine gone.

    Raises:
        ConfigError: it cannot run here: another agent holds the site, engines cannot be had, a port is taken.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    where = f"[sites.{config.site_id}]"
    try:
        lock = leftovers.take_lock(config.state_dir)
    except (leftovers.LeftoverError, OSError) as error:
        raise ConfigError(f"{where} state_dir: {error}") from None
    with lock:
        try:
            leftovers.stop_leftovers(config.state_dir)
        except (leftovers.LeftoverError, OSError) as error:
            raise ConfigError(f"{where} {error}") from None
        processes = Processes(state_dir=config.state_dir, watchdog_seconds=config.watchdog_seconds)
        processes.open()
        try:
            try:
                drivers = await _create_drivers(config, processes, stopping)
            except DriverError as error:
                raise ConfigError(f"{where} engine: {error}") from None
            if drivers is None:
                logger.info("told to stop before the drivers were there", extra={"site": config.site_id})
                return
            try:
                await _run(fleet, config, store or _redis_store(fleet), drivers, processes, stopping)
            finally:
                await drivers.engines.aclose()
                await drivers.gpus.aclose()
        finally:
            processes.close()


async def _create_drivers(
    config: SiteConfig, processes: Processes, stopping: asyncio.Event
) -> Drivers | None:
    """In a thread, while the heart beats: NVML opens slowly where nothing keeps the driver loaded, and may
    hang for good. None: told to stop meanwhile.
    """
    thread, context = CallThread("drivers"), parts.driver_context(config, processes)
    making = thread.call(lambda: driver_kinds.create(context))
    loop = asyncio.get_running_loop()
    slow_at = loop.time() + SLOW_DRIVERS_SECONDS
    try:
        while not making.done():
            if stopping.is_set():
                return None
            if loop.time() >= slow_at:
                slow_at = math.inf
                logger.warning(
                    "drivers are not there after %.0f s: does nvidia-smi answer?", SLOW_DRIVERS_SECONDS
                )
            processes.beat()
            await asyncio.wait([making], timeout=config.governor.tick_seconds)
        return making.result()
    finally:
        making.cancel()
        thread.abandon()


async def _has_started(agent: SiteAgent, stopping: asyncio.Event) -> bool:
    """False: told to stop before it had."""
    starting, told = asyncio.create_task(agent.start()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
        return True
    finally:
        await end([starting, told])


async def _run(
    fleet: FleetConfig,
    config: SiteConfig,
    store: Store,
    drivers: Drivers,
    processes: Processes,
    stopping: asyncio.Event,
) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            agent = SiteAgent(
                parts.build(fleet, config, store=store, drivers=drivers, processes=processes, tasks=tasks),
                tasks,
            )
            has_stopped = False
            try:
                if await _has_started(agent, stopping):
                    await stopping.wait()
                    await agent.stop()
                    has_stopped = True
            finally:
                if not has_stopped:  # nobody governs what runs
                    await drivers.engines.aclose(kill=True)
                await agent.aclose()
    except* ConfigError as group:
        raise _first(group) from None
    finally:
        await store.aclose()


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _redis_store(fleet: FleetConfig) -> Store:
    from fleet.redis_store import RedisStore

    return RedisStore(fleet.redis_url, Keys(fleet=fleet.name))
