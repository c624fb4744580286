"""The feed as a process beside a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import redis
from support.wait import until

from fleet.keys import Keys
from fleet.records import PowerReading
from gateway.sse import EventSplitter, data_of

KEYS = Keys(fleet="test")
RUNNER = """
import asyncio, sys
from pathlib import Path
from fleet.config import ConfigError
from fleet.log import configure_logging
from power_feed import app, config
configure_logging("power-feed")
try:
    asyncio.run(app.serve(*config.load(Path(sys.argv[1]))))
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


class FeedProcess:
    """`power_feed.app.serve` in a process of its own, as the command line runs it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(json.loads(line) if line.startswith(b"{") else {"message": line.decode()})

    def said(self, text: str) -> bool:
        return any(text in str(entry["message"]) for entry in self.log)

    async def url(self) -> str:
        await until(lambda: self.said("power feed at "), seconds=30, what="the feed's start")
        message = next(entry["message"] for entry in self.log if "power feed at " in entry["message"])
        return str(message.partition("power feed at ")[2])

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), timeout=20)
        await self._reading
        return code


@asynccontextmanager
async def feed_process(directory: Path, redis_url: str, source: str) -> AsyncIterator[FeedProcess]:
    path = directory / "fleet.toml"
    path.write_text(
        f"""
        [fleet]
        name = "test"
        redis_url = "{redis_url}"
        [power_feed]
        port = 0
        interval_seconds = 0.1
        [[power_feed.farms]]
        farm_id = "north-farm"
        site_id = "north"
        nameplate_watts = 1000
        source = {source}
        """
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUNNER, str(path), stderr=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    subject = FeedProcess(process)
    try:
        yield subject
    finally:
        await subject.stop()


STEADY = '{ kind = "schedule", points = [[0, 0.5]] }'


def held(client: redis.Redis) -> PowerReading | None:
    try:
        raw = client.get(KEYS.power("north"))
    except redis.RedisError:
        return None
    assert raw is None or isinstance(raw, bytes)
    return None if raw is None else PowerReading.from_json(raw)


class Listener:
    """Collects a stream's readings for as long as the test runs."""

    def __init__(self, url: str) -> None:
        self.readings: list[PowerReading] = []
        self.is_ended = False
        self._task = asyncio.create_task(self._listen(url))

    async def _listen(self, url: str) -> None:
        splitter = EventSplitter()
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url) as response:
            async for data in response.aiter_raw():
                for event in splitter.feed(data):
                    self.readings.append(PowerReading.from_json(data_of(event) or b""))
        self.is_ended = True

    async def more(self, count: int) -> None:
        wanted = len(self.readings) + count
        await until(lambda: len(self.readings) >= wanted, seconds=20, what=f"{count} more readings")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_readings_reach_redis_its_channel_and_the_log(redis_server: Any, tmp_path: Path) -> None:
    """The latest in the key, each on the site's channel, one a minute in the capped stream."""
    client = redis_server.client()
    listener = client.pubsub()
    listener.subscribe(KEYS.power_channel("north"))
    async with feed_process(tmp_path, redis_server.url, STEADY) as feed:
        await feed.url()
        await until(lambda: held(client), seconds=20)
        published: list[PowerReading] = []

        def heard() -> bool:
            message = listener.get_message(ignore_subscribe_messages=True)
            if message is not None:
                published.append(PowerReading.from_json(message["data"]))
            return len(published) >= 5

        await until(heard, seconds=20)
        sequences = [reading.sequence for reading in published]
        assert sequences == sorted(set(sequences))
        assert published[0].granted_power_watts == 500.0
        assert client.xlen(KEYS.power_log("north")) == 1


async def test_the_stream_goes_on_while_redis_is_down_and_redis_gets_the_newest_after(
    redis_server: Any, tmp_path: Path
) -> None:
    """Redis dies and comes back empty: no reading of the stream is missed, and the key is there again."""
    async with feed_process(tmp_path, redis_server.url, STEADY) as feed:
        url = await feed.url()
        stream = Listener(f"{url}/v1/power/north/stream")
        await stream.more(3)
        await until(lambda: held(redis_server.client()), seconds=20)
        redis_server.stop()
        await until(lambda: feed.said("store away, streams go on"), seconds=20)
        await stream.more(10)
        redis_server.start()
        client = redis_server.client()
        await until(lambda: held(client), seconds=20, what="readings in Redis again")
        await stream.more(3)
        reading = held(client)
        assert reading is not None
        assert reading.sequence >= stream.readings[0].sequence + 13
        sequences = [reading.sequence for reading in stream.readings]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        async with httpx.AsyncClient() as http:
            page = (await http.get(f"{url}/metrics")).text
        assert "heron_feed_redis_up 1.0" in page
        assert "heron_feed_redis_errors_total 0.0" not in page
        await stream.stop()


async def test_a_restarted_feed_goes_on_above_what_redis_holds(redis_server: Any, tmp_path: Path) -> None:
    """Even when its clock says less than its predecessor wrote."""
    ahead = PowerReading(
        feed_id="predecessor",
        sequence=int((time.time() + 5 * 365 * 86_400) * 1000),
        site_id="north",
        farm_id="north-farm",
        observed_at_unix_seconds=1.0,
        period_seconds=1.0,
        available_power_watts=1.0,
        granted_power_watts=1.0,
        nameplate_capacity_watts=1000.0,
        quality="good",
        source="test",
    )
    client = redis_server.client()
    client.set(KEYS.power("north"), ahead.to_json())
    async with feed_process(tmp_path, redis_server.url, STEADY) as feed:
        url = await feed.url()
        stream = Listener(f"{url}/v1/power/north/stream")
        await until(lambda: any(reading.sequence > ahead.sequence for reading in stream.readings), seconds=20)
        await until(lambda: (found := held(client)) and found.feed_id != "predecessor", seconds=20)
        await stream.stop()


async def test_a_feed_starts_and_streams_without_any_redis(tmp_path: Path) -> None:
    """Nothing on the direct path needs it."""
    async with feed_process(tmp_path, "redis://127.0.0.1:1/0", STEADY) as feed:
        stream = Listener(f"{await feed.url()}/v1/power/north/stream")
        await stream.more(5)
        await stream.stop()


async def test_sigterm_ends_the_streams_and_the_process(redis_server: Any, tmp_path: Path) -> None:
    """Exit code 0, and the client sees a whole answer."""
    async with feed_process(tmp_path, redis_server.url, STEADY) as feed:
        stream = Listener(f"{await feed.url()}/v1/power/north/stream")
        await stream.more(2)
        assert await feed.stop() == 0
        await until(lambda: stream.is_ended)
        await stream.stop()


async def test_a_wind_file_is_reported_and_played(redis_server: Any, tmp_path: Path) -> None:
    """What was assumed and what was refused is in the log, with the line."""
    (tmp_path / "wind.csv").write_text("time,north\n0,0.25\n60,0.5\n120,oops\n180,0.5\n")
    source = '{ kind = "csv", path = "wind.csv", column = "north" }'
    async with feed_process(tmp_path, redis_server.url, source) as feed:
        stream = Listener(f"{await feed.url()}/v1/power/north/stream")
        await stream.more(1)
        assert stream.readings[0].granted_power_watts == 250.0
        assert stream.readings[0].source.startswith("wind.csv north at speed 1 #")
        assert feed.said("1 row refused: line 4: north: not a number: 'oops'")
        assert feed.said("taken as shares of nameplate")
        await stream.stop()


async def test_a_wrong_file_is_exit_code_2_before_anything_is_published(
    redis_server: Any, tmp_path: Path
) -> None:
    """The message names the farm and says what was expected."""
    (tmp_path / "wind.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    source = '{ kind = "csv", path = "wind.csv", column = "north" }'
    async with feed_process(tmp_path, redis_server.url, source) as feed:
        assert await asyncio.wait_for(feed.process.wait(), timeout=30) == 2
        await until(lambda: feed.said("an Azure LLM trace"))
        assert feed.said("farms.0.source (farm north-farm)")
    assert held(redis_server.client()) is None
