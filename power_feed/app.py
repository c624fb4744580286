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
from collections.abc import Callable, Sequence

from fleet.config import ConfigError, FleetConfig
from fleet.keys import Keys
from fleet.store import Store
from gateway.server import HttpServer
from power_feed.config import FarmConfig, FeedConfig
from power_feed.farm import FarmFeed
from power_feed.http import create_app
from power_feed.hub import Hub
from power_feed.live_tasks import LiveTasks
from power_feed.metrics import FeedMetrics
from power_feed.quality import QualityChecker, QualityLimits
from power_feed.readings import Farm
from power_feed.sources.interface import Source
from power_feed.sources.registry import LiveSources, WindFiles, build_sources
from power_feed.store_writer import StoreWriter

logger = logging.getLogger(__name__)

START_POLL_SECONDS = 0.05
"""Between two looks for the start file."""
STOP_GRACE_SECONDS = 2.0
"""For answers in flight; streams are ended first."""
MAX_START_FILE_BYTES = 64


class FeedService:
    """A running feed. `start` and `stop` may each be called once."""

    def __init__(
        self,
        config: FeedConfig,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read all files and build all sources; nothing is open yet. `clock` is the wall's.

        Raises:
            ConfigError: a source cannot be built.
        """
        self._config = config
        self._clock = clock
        self._files = WindFiles()
        self._lives = LiveSources()
        self.site_ids = tuple(farm.site_id for farm in config.farms)
        self.start_unix_seconds = config.start_unix_seconds
        """When records start to play; None: not known yet."""
        if self.start_unix_seconds is None and config.start_file is None:
            self.start_unix_seconds = clock()
        self.feed_id = "-".join(part for part in (config.feed_id, secrets.token_hex(8)) if part)
        sources = self._sources()
        self._farms = [_farm_feed(farm, sources[farm.site_id], config, self.feed_id) for farm in config.farms]
        self.hub = Hub(self.site_ids)
        self.metrics = FeedMetrics()
        by_site = {farm.farm.site_id: farm for farm in self._farms}
        self._writer = StoreWriter(
            store,
            self.site_ids,
            on_sequence=lambda site_id, sequence: by_site[site_id].note_sequence(sequence),
            on_error=self.metrics.redis_errors.inc,
        )
        self._connect_gauges()
        self._server = HttpServer(create_app(self), host=config.host, port=config.port)
        self._changed = asyncio.Event()
        self._live_tasks = LiveTasks(
            self._lives,
            tuple(farm.farm_id for farm in config.farms),
            self.metrics,
            on_change=self._changed.set,
            clock=clock,
        )
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
        self._tasks = [
            asyncio.create_task(self._pace(), name="pace"),
            asyncio.create_task(self._writer.run(), name="store"),
            *self._live_tasks.start(),
        ]
        if self.start_unix_seconds is None:
            self._tasks.append(asyncio.create_task(self._await_start(), name="start-file"))
        logger.info(
            "power feed at http://%s:%d",
            self._server.host,
            self._server.port,
            extra={"feed_id": self.feed_id, "sites": list(self.site_ids)},
        )

    async def wait(self) -> None:
        """Return only by raising what ended one of the tasks."""
        pending = set(self._tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def stop(self) -> None:
        """End the streams, answer what is in flight, close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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
                if farm.seconds_until_due(now=loop.time(), unix_seconds=self._clock()) <= 0:
                    self._send(farm, now=loop.time())
                wait = min(wait, farm.seconds_until_due(now=loop.time(), unix_seconds=self._clock()))
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0.0)):
                    await self._changed.wait()

    def _send(self, farm: FarmFeed, *, now: float) -> None:
        before = farm.verdict
        reading = farm.read(now=now, unix_seconds=self._clock())
        verdict = farm.verdict
        if reading is None or verdict is None:
            return
        raw = reading.to_json()
        site_id = farm.farm.site_id
        self.hub.publish(site_id, raw)
        self._writer.offer(site_id, raw, log=farm.is_log_due(now))
        self.metrics.count_reading(reading, verdict)
        if before is None or before.failed != verdict.failed:
            level = logging.INFO if verdict.quality == "good" else logging.WARNING
            logger.log(
                level,
                "power of site %s is %s%s",
                site_id,
                verdict.quality,
                f" ({', '.join(verdict.failed)})" if verdict.failed else "",
                extra={"granted_watts": reading.granted_power_watts, "sequence": reading.sequence},
            )

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
        for farm in self._farms:
            farm.restart(sources[farm.farm.site_id])
        self._changed.set()
        logger.info("records start to play", extra={"start_unix_seconds": start})

    def _sources(self) -> dict[str, Source]:
        return build_sources(
            self._config, start_unix_seconds=self.start_unix_seconds, files=self._files, lives=self._lives
        )

    def _connect_gauges(self) -> None:
        for farm in self._farms:
            site_id = farm.farm.site_id
            subscribers = functools.partial(self.hub.subscribers, site_id)
            age = functools.partial(self._source_age_seconds, farm)
            self.metrics.subscribers.labels(site_id).set_function(subscribers)
            self.metrics.source_age_seconds.labels(site_id).set_function(age)
        self.metrics.redis_up.set_function(lambda: float(self._writer.is_connected))

    def _source_age_seconds(self, farm: FarmFeed) -> float:
        """Of the latest good or suspect measurement; infinite before the first."""
        if farm.verdict is None:
            return math.inf
        return max(0.0, self._clock() - farm.verdict.observed_at_unix_seconds)

    def _report_files(self) -> None:
        for series in self._files.series:
            for note in series.notes:
                logger.warning("wind file: %s", note)
            if series.refusals.total:
                logger.warning("wind file: %s: %s", series.name, series.refusals.describe())
            if series.missing_steps:
                logger.warning(
                    "wind file: %s: %d of %d steps have no row: no measurement there",
                    series.name,
                    series.missing_steps,
                    series.steps,
                )
            self.metrics.refused_rows.labels(series.name).set(series.refusals.total)
            self.metrics.missing_steps.labels(series.name).set(series.missing_steps)
        for farm in self._farms:
            logger.info("site %s is fed by %s", farm.farm.site_id, farm.source.description)


def _farm_feed(farm: FarmConfig, source: Source, config: FeedConfig, feed_id: str) -> FarmFeed:
    limits = QualityLimits(
        nameplate_watts=farm.nameplate_watts,
        period_seconds=source.period_seconds,
        speed=source.speed,
        nameplate_tolerance_ratio=farm.quality.nameplate_tolerance_ratio,
        max_ramp_ratio_per_second=farm.quality.max_ramp_ratio_per_second,
        agreement_ratio=farm.quality.agreement_ratio,
        stuck_measurements=farm.quality.stuck_measurements,
        stale_periods=farm.quality.stale_periods,
    )
    return FarmFeed(
        farm=Farm(
            farm_id=farm.farm_id,
            site_id=farm.site_id,
            nameplate_watts=farm.nameplate_watts,
            loss_ratio=farm.loss_ratio,
            other_loads_watts=farm.other_loads_watts,
        ),
        source=source,
        checker=QualityChecker(limits=limits),
        feed_id=feed_id,
        interval_seconds=config.interval_seconds,
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
        service = FeedService(config, store)
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
