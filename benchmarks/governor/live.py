"""A real agent over emulated engines: its power falls to 20 % again and again while streams run.

The agent (`site_agent.app.serve`) runs in this process, its fake hardware in its own; the feed is the direct
stream. What is judged is the fake hardware's own draw, asked 50 times a second, against the cap of the last
grant; the time runs from the instant the feed says the fall. Half of the steps are made with a store that
answers, half with one that does not (as Redis stopped).
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from fleet.config import FleetConfig
from fleet.keys import Keys
from fleet.memory_store import MemoryStore
from fleet.records import PowerReading
from fleet.redis_store import RedisStore
from fleet.store import Store
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from site_agent import app
from site_agent.config import SiteConfig

DRAIN_SECONDS = 0.1
"""The bar is one second: of the default ladder's 1.5 s of draining there is no time for."""
FULL_GRANT_WATTS = 6000.0
LOW_RATIO = 0.2
POLL_SECONDS = 0.02
SETTLE_SECONDS = 2.0
"""Full draw before a step, and after it below the cap."""
STREAMS = 32
MODEL = "llama-3.1-70b"
UNREACHABLE_REDIS = "redis://127.0.0.1:9/0"


class Feed:
    """The direct stream, told by hand; repeats the last grant every half second."""

    def __init__(self) -> None:
        self.watts = FULL_GRANT_WATTS
        self._clients: set[ClientRequest] = set()
        self._sequences = itertools.count(int(time.time() * 1000))
        self.server = HttpServer(hot=lambda _method, _path: self._handler())

    def _handler(self) -> HotHandler:
        return self._serve

    async def _serve(self, request: ClientRequest) -> None:
        request.start(200, ((b"content-type", b"text/event-stream"),))
        self._clients.add(request)
        try:
            await asyncio.Event().wait()
        finally:
            self._clients.discard(request)

    def say(self, watts: float) -> None:
        """A new measurement, at once."""
        self.watts = watts
        record = PowerReading(
            feed_id="feed-1",
            sequence=next(self._sequences),
            site_id="live",
            farm_id="farm",
            observed_at_unix_seconds=time.time(),
            period_seconds=1.0,
            available_power_watts=watts,
            granted_power_watts=watts,
            nameplate_capacity_watts=FULL_GRANT_WATTS,
            quality="good",
            source="benchmark",
        )
        for client in self._clients:
            client.write(b"data: " + record.to_json() + b"\n\n")

    async def run(self) -> None:
        """Once in a while, as a feed does."""
        while True:
            await asyncio.sleep(0.5)
            self.say(self.watts)


def site_config(state_dir: Path, feed_url: str, port: int) -> SiteConfig:
    """Two instances of four GPUs, no host: so that 20 % of power is above the idle draw."""
    return SiteConfig.model_validate(
        {
            "site_id": "live",
            "farm_id": "farm",
            "state_dir": state_dir,
            "port": port,
            "feed_url": feed_url,
            "host_idle_watts": 0.0,
            "engine": {"kind": "emulated", "instances": 2, "start_seconds": 0.2},
            "governor": {"drain_seconds": DRAIN_SECONDS, "max_starts_per_hour": 100_000},
        }
    )


@asynccontextmanager
async def running_site(store: Store) -> AsyncIterator[tuple[Feed, SiteConfig, httpx.AsyncClient, str]]:
    """(feed, configuration, a client of the ingress, the fake hardware's control URL)."""
    feed = Feed()
    await feed.server.start()
    with tempfile.TemporaryDirectory() as directory:
        port = _free_port()
        config = site_config(Path(directory) / "live", f"http://127.0.0.1:{feed.server.port}", port)
        tasks = [
            asyncio.create_task(feed.run()),
            asyncio.create_task(app.serve(FleetConfig(), config, store=store)),
        ]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                control_file = config.state_dir / "fake-hardware.json"
                while not control_file.exists():
                    await asyncio.sleep(0.1)
                    if tasks[1].done():
                        tasks[1].result()
                control_url = orjson.loads(control_file.read_bytes())["control_url"]
                yield feed, config, client, control_url
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            await feed.server.stop(0)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_live(steps: int) -> dict[str, Any]:
    """Make the steps and print them; every time to comply, and what went beyond the ride-through."""
    rounds: list[tuple[str, Store]] = [
        ("store answers", MemoryStore()),
        ("store away", RedisStore(UNREACHABLE_REDIS, Keys(fleet="default"))),
    ]
    found: dict[str, Any] = {"exceeded_seconds": 0.0, "steps": []}
    for number, (name, store) in enumerate(rounds):
        count = (steps + 1 - number) // 2
        async with running_site(store) as (feed, config, client, control_url):
            load = [asyncio.create_task(_stream(client)) for _ in range(STREAMS)]
            async with httpx.AsyncClient(base_url=control_url, timeout=5) as hardware:
                for step in range(count):
                    row = await _step(feed, config, hardware) | {"round": name, "step": step}
                    found["steps"].append(row)
                    print(f"{name}, step {step}: {row['seconds']:.2f} s, from {row['from_watts']:.0f} W")
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
    seconds = sorted(row["seconds"] for row in found["steps"])
    found["worst_seconds"] = seconds[-1] if seconds else 0.0
    found["median_seconds"] = seconds[len(seconds) // 2] if seconds else 0.0
    found["exceeded_seconds"] = sum(row["exceeded_seconds"] for row in found["steps"])
    print(
        f"{len(seconds)} steps: median {found['median_seconds']:.2f} s, "
        f"worst {found['worst_seconds']:.2f} s, "
        f"beyond the ride-through {found['exceeded_seconds']:.2f} s"
    )
    return found


async def _step(feed: Feed, config: SiteConfig, hardware: httpx.AsyncClient) -> dict[str, Any]:
    """Full draw, then 20 %: how long the draw stays above the cap."""
    loop = asyncio.get_running_loop()
    rule = config.cap_rule()
    low = LOW_RATIO * config.site_watts_limit() / (1 - config.margin_ratio)
    cap = rule.cap_watts(low)
    feed.say(FULL_GRANT_WATTS)
    full = 0.85 * config.site_model().full_watts
    since: float | None = None
    while since is None or loop.time() - since < SETTLE_SECONDS:
        watts = await _site_watts(hardware)
        since = (since or loop.time()) if watts >= full else None
        await asyncio.sleep(POLL_SECONDS)
    began = loop.time()
    feed.say(low)
    last_above = began
    while loop.time() - last_above < SETTLE_SECONDS:
        asked_at = loop.time()
        if await _site_watts(hardware) > cap:
            last_above = asked_at
        await asyncio.sleep(POLL_SECONDS)
    seconds = last_above - began
    return {
        "seconds": seconds,
        "from_watts": watts,
        "cap_watts": cap,
        "exceeded_seconds": max(0.0, seconds - config.ride_through_seconds),
    }


async def _site_watts(hardware: httpx.AsyncClient) -> float:
    return float((await hardware.get("/host")).json()["site_watts"])


async def _stream(client: httpx.AsyncClient) -> None:
    """Ask again and again; refused and broken ones are what this is about."""
    body = {"model": MODEL, "prompt": "one two three", "max_tokens": 4000, "stream": True}
    while True:
        with suppress(httpx.HTTPError):
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                async for _ in answer.aiter_raw():
                    pass
        await asyncio.sleep(0.2)
