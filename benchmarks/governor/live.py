"""A real agent over emulated engines: its power falls to 20 % again and again while streams run.

The agent (`site_agent.app.serve`) and a router (`router.app.Router`) run in this process, the fake hardware
and Redis in their own; the feed is the direct stream. What is judged is the fake hardware's own draw, asked
50 times a second, against the cap of the last grant, and when the router's snapshot has the fallen cap; both
times run from the instant the feed says the fall. After half of the steps Redis is killed, and stays away.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from cli.ports import free_ports
from fleet.config import FleetConfig
from fleet.keys import Keys
from fleet.records import PowerReading
from fleet.redis_server import find_redis_server
from fleet.redis_store import RedisStore
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from router.app import Router
from router.config import RouterConfig
from site_agent import app
from site_agent.config import SiteConfig

DRAIN_SECONDS = 0.1
"""The bar is one second: of the default ladder's 1.5 s of draining there is no time for."""
NOTICE_STEP_SECONDS = 0.001
SILENCE_SECONDS = 5.0
"""After Redis is killed: by then the router asks the site itself."""
FULL_GRANT_WATTS = 6000.0
LOW_RATIO = 0.2
POLL_SECONDS = 0.02
SETTLE_SECONDS = 2.0
"""Full draw before a step, and after it below the cap."""
STREAMS = 32
MODEL = "llama-3.1-70b"


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


@dataclass(slots=True, kw_only=True)
class Bench:
    """What a step needs."""

    feed: Feed
    config: SiteConfig
    router: Router
    client: httpx.AsyncClient
    """Of the site's ingress."""
    control_url: str
    """Of the fake hardware."""
    redis: subprocess.Popen[bytes]


def site_config(state_dir: Path, feed_url: str, port: int, drain_seconds: float) -> SiteConfig:
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
            "governor": {"drain_seconds": drain_seconds, "max_starts_per_hour": 100_000},
        }
    )


@asynccontextmanager
async def running_bench(drain_seconds: float) -> AsyncIterator[Bench]:
    """Everything up, the router knows the site."""
    feed = Feed()
    await feed.server.start()
    with tempfile.TemporaryDirectory() as directory:
        port, redis_port = free_ports(2)
        redis = subprocess.Popen(  # noqa: ASYNC220 - before anything else runs
            [find_redis_server(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        fleet = FleetConfig(redis_url=f"redis://127.0.0.1:{redis_port}/0")
        feed_url = f"http://127.0.0.1:{feed.server.port}"
        config = site_config(Path(directory) / "live", feed_url, port, drain_seconds)
        router = Router(
            fleet,
            RouterConfig(port=0, operations_port=0),
            RedisStore(fleet.redis_url, Keys(fleet=fleet.name)),
        )
        await router.start()
        tasks = [asyncio.create_task(feed.run()), asyncio.create_task(app.serve(fleet, config))]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                control_file = config.state_dir / "fake-hardware.json"
                while not control_file.exists() or "live" not in router.view.snapshot.sites:
                    await asyncio.sleep(0.1)
                    if tasks[1].done():
                        tasks[1].result()
                yield Bench(
                    feed=feed,
                    config=config,
                    router=router,
                    client=client,
                    control_url=orjson.loads(control_file.read_bytes())["control_url"],
                    redis=redis,
                )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await router.stop()
            await feed.server.stop(0)
            redis.kill()
            redis.wait()


async def run_live(steps: int, drain_seconds: float) -> dict[str, Any]:
    """Make the steps and print them; every time to comply, and what went beyond the ride-through."""
    rows: list[dict[str, Any]] = []
    async with running_bench(drain_seconds) as bench:
        load = [asyncio.create_task(_stream(bench.client)) for _ in range(STREAMS)]
        try:
            await _make_steps(bench, steps, rows)
        finally:
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
    found: dict[str, Any] = {
        "drain_seconds": drain_seconds,
        "exceeded_seconds": sum(row["exceeded_seconds"] for row in rows),
        "steps": rows,
    }
    for name in dict.fromkeys(row["round"] for row in rows):
        for figure in ("seconds", "notice_seconds"):
            values = sorted(row[figure] for row in rows if row["round"] == name)
            found[f"{name}, {figure}"] = {"median": values[len(values) // 2], "worst": values[-1]}
            print(f"{name}, {figure}: median {values[len(values) // 2]:.3f}, worst {values[-1]:.3f}")
    print(f"{len(rows)} steps, beyond the ride-through {found['exceeded_seconds']:.2f} s")
    return found


async def _make_steps(bench: Bench, steps: int, rows: list[dict[str, Any]]) -> None:
    async with httpx.AsyncClient(base_url=bench.control_url, timeout=5) as hardware:
        for step in range(steps):
            if step == (steps + 1) // 2:
                bench.redis.kill()
                bench.redis.wait()
                await asyncio.sleep(SILENCE_SECONDS)
            name = "Redis runs" if step < (steps + 1) // 2 else "Redis stopped"
            row: dict[str, Any] = {"round": name, "step": step} | await _step(bench, hardware)
            rows.append(row)
            print(
                f"{name}, step {step}: complied in {row['seconds']:.2f} s, the router knew in "
                f"{1000 * row['notice_seconds']:.0f} ms, from {row['from_watts']:.0f} W"
            )


async def _step(bench: Bench, hardware: httpx.AsyncClient) -> dict[str, Any]:
    """Full draw, then 20 %: how long the draw stays above the cap, and until the router knows."""
    loop = asyncio.get_running_loop()
    config, feed = bench.config, bench.feed
    rule = config.cap_rule()
    low = LOW_RATIO * config.site_watts_limit() / (1 - config.margin_ratio)
    cap = rule.cap_watts(low)
    feed.say(FULL_GRANT_WATTS)
    full = 0.85 * config.site_model().full_watts
    since: float | None = None
    while since is None or loop.time() - since < SETTLE_SECONDS or _knows(bench, FULL_GRANT_WATTS / 2):
        watts = await _site_watts(hardware)
        since = (since or loop.time()) if watts >= full else None
        await asyncio.sleep(POLL_SECONDS)
    began = loop.time()
    feed.say(low)
    notice = asyncio.create_task(_noticed(bench, cap))
    last_above = began
    while loop.time() - last_above < SETTLE_SECONDS:
        asked_at = loop.time()
        if await _site_watts(hardware) > cap:
            last_above = asked_at
        await asyncio.sleep(POLL_SECONDS)
    seconds = last_above - began
    return {
        "seconds": seconds,
        "notice_seconds": await notice - began,
        "from_watts": watts,
        "cap_watts": cap,
        "exceeded_seconds": max(0.0, seconds - config.ride_through_seconds),
    }


def _knows(bench: Bench, cap_watts: float) -> bool:
    """Whether the router's snapshot has a cap that is not above this."""
    site = bench.router.view.snapshot.sites.get(bench.config.site_id)
    known = None if site is None else site.cap_watts
    return known is not None and known <= cap_watts + 1.0


async def _noticed(bench: Bench, cap_watts: float) -> float:
    """When the router knows, in loop time."""
    while not _knows(bench, cap_watts):  # noqa: ASYNC110 - the snapshot tells nobody
        await asyncio.sleep(NOTICE_STEP_SECONDS)
    return asyncio.get_running_loop().time()


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
