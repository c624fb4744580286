"""The cap: from the feed's direct stream first, from Redis second, through one intake (DESIGN §4, §8).

Rules: the cap never waits for Redis. A sequence heard on either path counts once, and what neither path
brings lets the cap walk down (`fleet.power.CapTracker`). What Redis held before this agent looked is no
power now: its feed may be long gone. Each path reconnects by itself, with back-off and jitter.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Literal, Protocol

import httpx

from fleet.loops import errors_as
from fleet.power import CapTracker
from fleet.records import PowerQuality, PowerReading
from fleet.store import Store, StoreError
from gateway.sse import EventSplitter, EventTooLargeError, data_of
from site_agent.situation import CapForecast

logger = logging.getLogger(__name__)

PowerPath = Literal["stream", "redis"]
PATHS: tuple[PowerPath, ...] = ("stream", "redis")

CONNECT_TIMEOUT_SECONDS = 2.0
SILENCE_SECONDS = 5.0
"""The feed speaks every second; a stream that is silent for so long is opened anew."""
BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 2.0
REREAD_SECONDS = 1.0
"""Pub/sub gives speed, the re-read certainty."""
PATH_UP_SECONDS = 3.0
MAX_READING_BYTES = 256 << 10


class ReadingJudge(Protocol):
    """Decides which records are used; wraps `fleet.intake`."""

    def take(self, raw: bytes, *, now: float, unix_now: float) -> PowerReading | None:
        """The reading, if it is new and may be used; what is refused is counted there."""

    def sequence_of(self, raw: bytes) -> int | None:
        """Of a reading that the feed wrote, whenever that was; None: it did not."""


class StreamEndedError(Exception):
    """The feed's stream ended, or was refused; it is opened anew after a back-off."""


class PowerFollow:
    """Implements `site_agent.power_loop.CapSource`."""

    def __init__(
        self,
        *,
        site_id: str,
        feed_url: str,
        tls: Callable[[], ssl.SSLContext],
        store: Store,
        tracker: CapTracker,
        judge: ReadingJudge,
        rng: random.Random,
    ) -> None:
        """`tls` is asked for each connection to a feed at `https://`."""
        self.news = asyncio.Event()
        self.readings_taken = 0
        self.last: PowerReading | None = None
        self._site_id = site_id
        self._tls = tls
        self._url = f"{feed_url}/v1/power/{site_id}/stream"
        self._store = store
        self._tracker = tracker
        self._judge = judge
        self._rng = rng
        self._heard_at: dict[PowerPath, float] = {}
        self._taken_at: float | None = None
        self._forecast: tuple[CapForecast, ...] = ()
        self._has_reread = False
        self._left_over: bytes | None = None
        """What the first re-read found; it counts once it has changed."""

    # CapSource

    @property
    def has_reading(self) -> bool:
        """Whether any reading was ever taken."""
        return self.last is not None

    @property
    def quality(self) -> PowerQuality | None:
        """Of the last reading."""
        return None if self.last is None else self.last.quality

    def cap_watts(self, now: float) -> float:
        """See `CapTracker.cap_watts`."""
        return self._tracker.cap_watts(now)

    def forecast(self, now: float) -> tuple[tuple[CapForecast, ...], float]:
        """What the last reading expects of the cap, and how old that is."""
        if self._taken_at is None:
            return (), 0.0
        return self._forecast, now - self._taken_at

    def is_up(self, path: PowerPath, now: float) -> bool:
        """Whether a record has come by this path of late, new or not."""
        return now - self._heard_at.get(path, float("-inf")) <= PATH_UP_SECONDS

    def age_seconds(self, now: float) -> float | None:
        """Since the last reading was taken."""
        return None if self._taken_at is None else now - self._taken_at

    # The paths, each runs as long as the agent does

    async def follow_stream(self) -> None:
        """The feed's own server-sent events."""
        await self._persist("the feed's stream", self._read_stream)

    async def follow_events(self) -> None:
        """Redis' channel."""
        await self._persist("power events in Redis", self._read_events)

    async def reread(self) -> None:
        """The record in Redis."""
        await self._persist("the power record in Redis", self._read_record)

    async def _persist(self, what: str, read: Callable[[], Awaitable[None]]) -> None:
        """Call `read` for ever. Failures back off, and are said when they begin and when they end."""
        wait = BACKOFF_SECONDS
        is_failing = False
        while True:
            before = self.readings_taken
            try:
                await read()
            except (StreamEndedError, StoreError, EventTooLargeError) as error:
                if not is_failing:
                    logger.warning("%s: lost", what, extra={"error": str(error) or type(error).__name__})
                is_failing = True
                if self.readings_taken > before:
                    wait = BACKOFF_SECONDS
                await asyncio.sleep(wait * self._rng.uniform(0.5, 1.5))
                wait = min(MAX_BACKOFF_SECONDS, wait * 2)
            else:
                if is_failing:
                    logger.info("%s: back", what)
                is_failing = False
                wait = BACKOFF_SECONDS

    async def _read_stream(self) -> None:
        splitter = EventSplitter(MAX_READING_BYTES)
        timeout = httpx.Timeout(CONNECT_TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, verify=self._tls()) as client,
            aclosing(self._pieces(client)) as pieces,
        ):
            async for data in pieces:
                for event in splitter.feed(data):
                    if (record := data_of(event)) is not None:
                        self._take(record, "stream")
        raise StreamEndedError(f"{self._url}: ended")

    async def _pieces(self, client: httpx.AsyncClient) -> AsyncGenerator[bytes, None]:
        """Of the stream, as they come."""
        headers = {"accept": "text/event-stream", "accept-encoding": "identity", "x-heron-site-agent": "1"}
        with errors_as(StreamEndedError, self._url):
            async with client.stream("GET", self._url, headers=headers) as response:
                if response.status_code != 200:
                    raise StreamEndedError(f"{self._url}: status {response.status_code}")
                async for data in response.aiter_raw():
                    yield data

    async def _read_events(self) -> None:
        async for kind, record in self._store.events(power_of=(self._site_id,)):
            if kind == "power":
                self._take(record, "redis")
        raise StreamEndedError("the subscription ended")

    async def _read_record(self) -> None:
        [record] = await self._store.power_readings([self._site_id])
        if not self._has_reread:
            self._has_reread, self._left_over = True, record
        elif record is not None and not self._is_left_over(record):
            self._take(record, "redis")
        await asyncio.sleep(REREAD_SECONDS)

    def _is_left_over(self, record: bytes) -> bool:
        """Whether it is of before this agent looked: what was there then, or an older one that Redis came
        back with, as from its last save."""
        if record == self._left_over:
            return True
        if self._left_over is None:
            return False
        sequence, left_over = self._judge.sequence_of(record), self._judge.sequence_of(self._left_over)
        return sequence is not None and left_over is not None and sequence <= left_over

    def _take(self, raw: bytes, path: PowerPath) -> None:
        now = asyncio.get_running_loop().time()
        self._heard_at[path] = now
        reading = self._judge.take(raw, now=now, unix_now=time.time())
        if reading is None:
            return
        self.last, self._taken_at = reading, now
        self.readings_taken += 1
        self._tracker.observe(
            granted_watts=reading.granted_power_watts,
            period_seconds=reading.period_seconds,
            quality=reading.quality,
            observed_at_unix_seconds=reading.observed_at_unix_seconds,
            now=now,
        )
        cap = self._tracker.rule.cap_watts
        self._forecast = tuple(
            CapForecast(
                horizon_seconds=point.horizon_seconds,
                p10_watts=cap(point.p10_watts),
                p50_watts=cap(point.p50_watts),
                p90_watts=cap(point.p90_watts),
            )
            for point in sorted(reading.forecast, key=lambda point: point.horizon_seconds)
        )
        self.news.set()
