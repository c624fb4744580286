"""The power feed as a process: measures, streams, writes to Redis.

One task paces the readings: it sleeps until the next one is due (the interval, or the instant at which a
source changes) and hands it to the streams at once. Redis has a task of its own (`store_writer`), so no
stream ever waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from fleet.config import ConfigError, FleetConfig
from fleet.keys import Keys
from fleet.loops import Loops, end
from fleet.process_metrics import add_process_metrics
from fleet.records import PowerReading
from fleet.signing_keys import signing_of
from fleet.store import Store
from gateway.server import HttpServer
from gateway.tls_config import caller_files
from gateway.tls_metrics import add_tls_metrics
from gateway.tls_renewal import ServiceTls
from power_feed.allocator import SiteClaim
from power_feed.claims import claim_of
from power_feed.composition import farm_feed, forecaster, server_drivers
from power_feed.config import FeedConfig
from power_feed.farm import FarmFeed
from power_feed.http import create_app
from power_feed.hub import Hub
from power_feed.live_tasks import LiveTasks
from power_feed.metrics import FeedMetrics
from power_feed.remembering import remember
from power_feed.server_switch import SwitchView
from power_feed.server_tasks import ServerTasks
from power_feed.site_watch import SiteWatch
from power_feed.sources.interface import Source
from power_feed.sources.registry import LiveSources, WindFiles, build_sources
from power_feed.store_writer import StoreWriter

logger = logging.getLogger(__name__)

START_POLL_SECONDS = 0.05
"""Between two looks for the start file."""
STOP_GRACE_SECONDS = 2.0
"""For answers in flight; streams are ended first."""
DEAD_PEER_SECONDS = 10.0
"""A server that lost its power closes no stream; with its stream open a site counts as hearing its grants."""
MAX_START_FILE_BYTES = 64


class FeedService:
    """A running feed. `start` and `stop` may each be called once."""

    def __init__(
        self,
        config: FeedConfig,
        store: Store,
        *,
        fleet: FleetConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read all files and build all sources; nothing is open yet. `clock` is the wall's; `fleet` has the
        token that agents are asked with.

        Raises:
            ConfigError: a source cannot be built, or the signing key not used.
        """
        fleet = FleetConfig() if fleet is None else fleet
        self._signer, self._trust = signing_of(fleet, "power_feed", "power_feed", config.signing_key_file)
        self._config = config
        self._store = store
        self._clock = clock
        self._files = WindFiles()
        self._lives = LiveSources()
        self.site_ids = tuple(site.site_id for farm in config.farms for site in farm.fed_sites)
        self.start_unix_seconds = config.start_unix_seconds
        """When records start to play; None: not known yet."""
        if self.start_unix_seconds is None and config.start_file is None:
            self.start_unix_seconds = clock()
        self.feed_id = "-".join(part for part in (config.feed_id, secrets.token_hex(8)) if part)
        sources = self._sources()
        self._farms = [farm_feed(farm, sources[farm.farm_id], config, self.feed_id) for farm in config.farms]
        self._terms = {site.site_id: site.terms() for farm in config.farms for site in farm.fed_sites}
        self.hub = Hub(self.site_ids)
        self.metrics = FeedMetrics()
        add_process_metrics(self.metrics.registry, "feed")
        self._writer = StoreWriter(
            store,
            self.site_ids,
            trust=self._trust,
            on_reading=self._note_reading,
            on_error=self.metrics.redis_errors.inc,
        )
        self._tls = ServiceTls("power_feed", config.port_files, caller_files(fleet))
        add_tls_metrics(self.metrics.registry, "feed", self._tls)
        self._watch = SiteWatch(
            store,
            {site.site_id: site.ingress_url for farm in config.farms for site in farm.fed_sites},
            site_token=None if fleet.site_token is None else fleet.site_token.get_secret_value(),
            tls=self._tls.context,
            max_clock_skew_seconds=fleet.max_clock_skew_seconds,
            trust=self._trust,
            clock=clock,
            on_poll=lambda result: self.metrics.report_polls.labels(result).inc(),
            on_refused=lambda reason: self.metrics.records_refused.labels(reason).inc(),
        )
        self._servers = ServerTasks(
            server_drivers(config),
            self._switch_view,
            on_command=lambda site_id, command: self.metrics.server_commands.labels(site_id, command).inc(),
            on_error=lambda site_id: self.metrics.server_errors.labels(site_id).inc(),
        )
        self._connect_gauges()
        self._server = HttpServer(
            create_app(self),
            host=config.host,
            port=config.port,
            dead_peer_seconds=DEAD_PEER_SECONDS,
            tls=self._tls.port,
        )
        self._changed = asyncio.Event()
        self._live_tasks = LiveTasks(
            self._lives,
            tuple(farm.farm_id for farm in config.farms),
            self.metrics,
            on_change=self._changed.set,
            clock=clock,
        )
        self._loops = Loops(lambda name: self.metrics.loop_failures.labels(name).inc())
        self._tasks: list[asyncio.Task[None]] = []
        self._report_files()

    @property
    def port(self) -> int:
        """The real one, after `start`."""
        return self._server.port

    async def start(self) -> None:
        """Listen and begin to send.

        Raises:
            OSError: the address cannot be had.
        """
        await self._server.start()
        kept: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "pace": self._pace,
            "store": self._writer.run,
            "sites-store": self._watch.follow_store,
            **self._remembering(),
            "sites-agents": self._watch.poll_agents,
            **self._servers.loops(),
            **self._live_tasks.loops(),
            **self._tls.loops(),
        }
        self._tasks = [
            asyncio.create_task(self._loops.keep(name, loop), name=name) for name, loop in kept.items()
        ]
        if self.start_unix_seconds is None:
            self._tasks.append(asyncio.create_task(self._await_start(), name="start-file"))
        logger.info(
            "power feed at %s://%s:%d",
            "http" if self._tls.port is None else "https",
            self._server.host,
            self._server.port,
            extra={"feed_id": self.feed_id, "sites": list(self.site_ids)},
        )

    def _remembering(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """A record that stands still until its start is known begins anew, so it has no past."""
        if self.start_unix_seconds is None:
            return {}
        return {
            f"power-log {of.farm_id}": functools.partial(
                remember, self._store, farm, functools.partial(forecaster, of), self._trust
            )
            for farm, of in zip(self._farms, self._config.farms, strict=True)
        }

    async def wait(self) -> None:
        """Return only by raising what ended one of the tasks."""
        pending = set(self._tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def stop(self) -> None:
        """End the streams, answer what is in flight, close everything."""
        await end(self._tasks)
        await self._servers.aclose()
        self.hub.close()
        await self._server.stop(STOP_GRACE_SECONDS)

    def unready_reasons(self) -> list[str]:
        """Sites without any reading yet."""
        return [
            f"nothing was measured for site {site_id} yet"
            for site_id in self.site_ids
            if self.hub.newest(site_id) is None
        ]

    def exposition(self) -> bytes:
        """The metrics page."""
        return self.metrics.exposition()

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._config.interval_seconds
            for farm in self._farms:
                with self._loops.going_on(f"farm {farm.farm.farm_id}"):
                    if farm.seconds_until_due(now=loop.time(), unix_seconds=self._clock()) <= 0:
                        self._send(farm, now=loop.time())
                    wait = min(wait, farm.seconds_until_due(now=loop.time(), unix_seconds=self._clock()))
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0.0)):
                    await self._changed.wait()

    def _send(self, farm: FarmFeed, *, now: float) -> None:
        before = farm.verdict
        readings = farm.read(now=now, unix_seconds=self._clock(), claims=self._claims(farm))
        verdict = farm.verdict
        if not readings or verdict is None:
            return
        is_log_due = farm.is_log_due(now)
        for reading in readings:
            raw = self._signer.to_json(reading, unix_now=self._clock())
            self.hub.publish(reading.site_id, raw)
            self._writer.offer(reading.site_id, raw, log=is_log_due)
            self.metrics.count_reading(reading, verdict)
        self.metrics.count_farm(farm.farm.farm_id, readings)
        if before is None or before.failed != verdict.failed:
            level = logging.INFO if verdict.quality == "good" else logging.WARNING
            logger.log(
                level,
                "power of farm %s is %s%s",
                farm.farm.farm_id,
                verdict.quality,
                f" ({', '.join(verdict.failed)})" if verdict.failed else "",
                extra={"granted_watts": {one.site_id: one.granted_power_watts for one in readings}},
            )

    def _claims(self, farm: FarmFeed) -> list[SiteClaim]:
        return [self._claim(farm, site_id) for site_id in farm.site_ids]

    def _claim(self, farm: FarmFeed, site_id: str) -> SiteClaim:
        sites = len(farm.site_ids)
        equal_part = farm.farm.deliverable_watts(farm.farm.nameplate_watts) / sites
        state = self._watch.state(
            site_id,
            farm_id=farm.farm.farm_id,
            is_listening=self.hub.has_agent(site_id),
        )
        server = self._servers.state(
            site_id,
            heard_at=state.heard_at,
            is_listening=state.is_listening,
            now=asyncio.get_running_loop().time(),
        )
        state = replace(state, server=server)
        return claim_of(self._terms[site_id], state, equal_part_watts=equal_part if sites > 1 else math.inf)

    def _switch_view(self, site_id: str) -> SwitchView | None:
        """What the switch of a site's server is told; None while there may yet be something to share out."""
        farm = next(farm for farm in self._farms if site_id in farm.site_ids)
        if not farm.readings and not farm.is_silent(asyncio.get_running_loop().time()):
            return None
        claim = self._claim(farm, site_id)
        return SwitchView(
            granted_watts=farm.allocator.granted_watts(site_id),
            is_on=None,
            report_state=self._watch.report_state(site_id) if farm.has_counted(claim.heard_at) else None,
            heard_at=claim.heard_at,
            is_listening=claim.is_listening,
            ride_through_seconds=claim.ride_through_seconds,
            episode_seconds=self._watch.episode_seconds(site_id),
            is_idle_firm=0 < claim.idle_watts <= claim.firm_watts,  # 0: not known
        )

    def _note_reading(self, reading: PowerReading, signed_seconds: float | None) -> None:
        """What the store holds of a site, by whomever it was written."""
        now = asyncio.get_running_loop().time()
        for farm in self._farms:
            if reading.site_id in farm.site_ids:
                farm.note_reading(reading, now=now, signed_seconds=signed_seconds)

    async def _await_start(self) -> None:
        path = self._config.start_file
        assert path is not None, "a start that is not known comes from a file"
        while True:
            with contextlib.suppress(FileNotFoundError):
                text = path.read_bytes()[:MAX_START_FILE_BYTES].decode("ascii", "replace").strip()
                if text:
                    break
            await asyncio.sleep(START_POLL_SECONDS)
        try:
            start = float(text)
        except ValueError:
            start = math.nan
        if not 0 <= start <= 1e11:
            raise ConfigError(
                f"{path}: {text!r} is no Unix time: the start in seconds since 1970 is expected"
            )
        self.start_unix_seconds = start
        sources = self._sources()
        for farm, configured in zip(self._farms, self._config.farms, strict=True):
            farm.restart(sources[farm.farm.farm_id], forecaster(configured))
        self._changed.set()
        logger.info("records start to play", extra={"start_unix_seconds": start})

    def _sources(self) -> dict[str, Source]:
        return build_sources(
            self._config, start_unix_seconds=self.start_unix_seconds, files=self._files, lives=self._lives
        )

    def _connect_gauges(self) -> None:
        metrics = self.metrics
        for farm in self._farms:
            age = functools.partial(self._source_age_seconds, farm)
            for site_id in farm.site_ids:
                metrics.source_age_seconds.labels(site_id).set_function(age)
                metrics.subscribers.labels(site_id).set_function(
                    functools.partial(self.hub.subscribers, site_id)
                )
                metrics.counted_watts.labels(site_id).set_function(
                    functools.partial(farm.allocator.counted_watts, site_id)
                )
                metrics.server_off.labels(site_id).set_function(
                    functools.partial(self._servers.is_off, site_id)
                )
                metrics.report_age_seconds.labels(site_id).set_function(
                    functools.partial(self._watch.report_age_seconds, site_id)
                )
        metrics.redis_up.set_function(lambda: float(self._writer.is_connected))

    def _source_age_seconds(self, farm: FarmFeed) -> float:
        """Of the latest good or suspect measurement; infinite before the first."""
        if farm.verdict is None:
            return math.inf
        return max(0.0, self._clock() - farm.verdict.observed_at_unix_seconds)

    def _report_files(self) -> None:
        self._files.tell()
        self.metrics.count_files(self._files.series)
        for farm in self._farms:
            logger.info(
                "farm %s is fed by %s",
                farm.farm.farm_id,
                farm.source.description,
                extra={"sites": list(farm.site_ids)},
            )


async def serve(fleet: FleetConfig, config: FeedConfig) -> None:
    """Run until cancelled or told to stop (SIGTERM, SIGINT); then end the streams and return.

    Raises:
        ConfigError: a source cannot be built, or the start file holds no time.
        OSError: the address cannot be had.
    """
    from fleet.redis_store import RedisStore

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    store = RedisStore(fleet.redis_url, Keys(fleet=fleet.name))
    try:
        service = FeedService(config, store, fleet=fleet)
        await service.start()
        ending = asyncio.create_task(stopping.wait())
        running = asyncio.create_task(service.wait())
        try:
            await asyncio.wait((ending, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            ending.cancel()
            running.cancel()
            await service.stop()
    finally:
        await store.aclose()
        for number in signals:
            loop.remove_signal_handler(number)
