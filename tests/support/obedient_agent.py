"""A site that obeys: it follows the feed's stream, draws what it may, and says so in Redis or when asked."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fleet.keys import Keys
from fleet.records import PowerReading, SiteInfo, SitePower, SiteReport
from gateway.sse import EventSplitter, data_of

MARGIN_RATIO = 0.05
STEP_SECONDS = 0.05
FALL_WATTS_PER_STEP = 400.0


class ObedientAgent:
    """One server with 950 W idle and 4,750 W at most; `start` it, `stop` it."""

    def __init__(self, site_id: str, farm_id: str, *, idle_watts: float = 950.0) -> None:
        self.site_id = site_id
        self.farm_id = farm_id
        self.idle_watts = idle_watts
        self.readings: list[PowerReading] = []
        self.draw_watts = 0.0
        self.is_reporting = True
        self.port = 0
        self.asked: list[str] = []
        """Authorization of each request for the report."""
        self.state = "serving"
        self._sequence = int(time.time() * 1000)
        self._client: Redis | None = None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def granted_watts(self) -> float:
        return self.readings[-1].granted_power_watts if self.readings else 0.0

    @property
    def cap_watts(self) -> float:
        return self.granted_watts * (1 - MARGIN_RATIO)

    async def listen(self) -> None:
        """Open the port at which it is asked; before the feed is configured."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def start(self, feed_url: str, redis_url: str, keys: Keys) -> None:
        self._client = Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=1)
        self._keys = keys
        with contextlib.suppress(RedisError):
            await self._client.set(keys.site_info(self.site_id), self.info().to_json())
        self._tasks = [
            asyncio.create_task(self._follow(f"{feed_url}/v1/power/{self.site_id}/stream")),
            asyncio.create_task(self._live()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()
        if self._client is not None:
            await self._client.aclose()

    def info(self) -> SiteInfo:
        return SiteInfo(
            agent_id=f"{self.site_id}-agent",
            sequence=self._sequence,
            site_id=self.site_id,
            farm_id=self.farm_id,
            region="test",
            ingress_url=f"http://127.0.0.1:{self.port}",
            gpu_model="fake",
            gpu_count=8,
            server_idle_watts=self.idle_watts,
            overhead_ratio=1.0,
            ride_through_seconds=1.0,
            ride_through_joules=5000.0,
            safe_floor_watts=0.0,
            max_site_watts=4750.0,
        )

    def report(self) -> SiteReport:
        self._sequence += 1
        return SiteReport(
            agent_id=f"{self.site_id}-agent",
            sequence=self._sequence,
            site_id=self.site_id,
            observed_at_unix_seconds=time.time(),
            ingress_url=f"http://127.0.0.1:{self.port}",
            state=self.state,  # type: ignore[arg-type]
            power=SitePower(cap_watts=self.cap_watts, draw_watts=self.draw_watts, draw_source="meter"),
        )

    async def _follow(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await self._read(client, url)
                await asyncio.sleep(0.05)

    async def _read(self, client: httpx.AsyncClient, url: str) -> None:
        splitter = EventSplitter()
        async with client.stream("GET", url, headers={"x-heron-site-agent": "1"}) as response:
            async for data in response.aiter_raw():
                for event in splitter.feed(data):
                    self.readings.append(PowerReading.from_json(data_of(event) or b""))

    async def _live(self) -> None:
        """Draw all that it may, come down at a limited rate, report ten times a second."""
        steps = 0
        while True:
            wanted = self.cap_watts if self.granted_watts > 0 else 0.0
            self.draw_watts = max(wanted, self.draw_watts - FALL_WATTS_PER_STEP)
            steps += 1
            if self.is_reporting and steps % 2 == 0 and self._client is not None:
                with contextlib.suppress(RedisError):
                    await self._client.set(self._keys.site(self.site_id), self.report().to_json(), ex=60)
            await asyncio.sleep(STEP_SECONDS)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.asked.append(_header(head, "authorization"))
                body = self.report().to_json() if self.is_reporting else b"{}"
                status = "200 OK" if head.startswith("get /heron/v1/report ") else "404 Not Found"
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()


def _header(head: str, name: str) -> str:
    return next((line.partition(": ")[2] for line in head.split("\r\n") if line.startswith(f"{name}: ")), "")
