"""A plan in a real Redis re-shards an emulated site while streams run; the site needs none to go on. The last
test's plan is a real planner's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.redis_server import RedisServer
from support.router_process import router_process
from support.stub_feed import StubFeed, reading, running_feed
from support.wait import until, until_it_says

from cli.ports import free_ports
from fleet.config import FleetConfig
from fleet.keys import Keys
from fleet.records import Plan, PlanTarget, SolverReport
from fleet.redis_store import RedisStore
from site_agent import app
from site_agent.config import SiteConfig

MODEL = "llama-3.1-70b"
FULL_GRANT = 9000.0
pytestmark = pytest.mark.timeout(180)


def plan(targets: dict[str, list[tuple[int, int, int]]], *, epoch: int, valid: float = 300.0) -> Plan:
    """`targets`: site → (degree, clock, instances)."""
    return Plan(
        router_id="router-1",
        sequence=int(time.time() * 1000),
        epoch=epoch,
        solved_at_unix_seconds=time.time(),
        valid_for_seconds=valid,
        solver=SolverReport(status="optimal", seconds=0.1),
        targets={
            site: tuple(
                PlanTarget(model=MODEL, tensor_parallel_degree=degree, gpu_clock_mhz=clock, instances=count)
                for degree, clock, count in wanted
            )
            for site, wanted in targets.items()
        },
    )


@dataclass(slots=True)
class Site:
    """A running agent of 8 GPUs."""

    client: httpx.AsyncClient
    store: RedisStore
    feed: StubFeed
    watts: list[float]
    """What is granted, in its only place."""

    async def layout(self) -> dict[tuple[int, int | None], int]:
        """(degree, clock) → ready instances."""
        report = (await self.client.get("/heron/v1/report")).json()
        found: dict[tuple[int, int | None], int] = {}
        for one in report["models"][0]["instances"]:
            if one["state"] == "ready":
                key = (one["tensor_parallel_degree"], one["gpu_clock_mhz"])
                found[key] = found.get(key, 0) + 1
        return found

    async def until_layout(self, wanted: dict[tuple[int, int | None], int], seconds: float = 60) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (seen := await self.layout()) != wanted:
            assert loop.time() < deadline, f"wanted {wanted}, last seen {seen}"
            await asyncio.sleep(0.1)

    async def stream(self, tokens: int = 120) -> str:
        """How one request ended: complete | refused | broken."""
        body = {"model": MODEL, "prompt": "one two three", "max_tokens": tokens, "stream": True}
        data = b""
        try:
            async with self.client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    return "refused"
                async for piece in answer.aiter_raw():
                    data += piece
        except httpx.HTTPError:
            return "broken"
        return "complete" if data.endswith(b"data: [DONE]\n\n") else "broken"


@asynccontextmanager
async def running_site(
    tmp_path: Path,
    url: str,
    *,
    degree: int = 4,
    others: tuple[int, ...] = (2, 8),
    watts: float = FULL_GRANT,
    instances: int | None = None,
    slo_e2e_seconds: float | None = None,
    **engine: Any,
) -> AsyncIterator[Site]:
    """Of eight GPUs, all of them used by instances of `degree`, or so many awake with these watts."""
    granted, awake = [watts], instances or 8 // degree
    (port,) = free_ports(1)
    async with running_feed() as feed:
        config = SiteConfig.model_validate(
            {
                "site_id": "north",
                "farm_id": "farm",
                "state_dir": tmp_path / "north",
                "port": port,
                "feed_url": feed.url,
                "slo_e2e_seconds": slo_e2e_seconds,
                "engine": {
                    "kind": "emulated",
                    "instances": 8 // degree,
                    "profile": f"{MODEL}/h100/tp{degree}",
                    "other_tensor_parallel_degrees": others,
                    "start_seconds": 0.2,
                    **engine,
                },
            }
        )

        async def speak() -> None:
            while True:
                said = reading(granted[0])
                feed.say(said)
                await store.publish_power_reading("north", said.to_json(), log=False)
                await asyncio.sleep(0.5)

        store = RedisStore(url, Keys(fleet="default"))
        tasks = [
            asyncio.create_task(speak()),
            asyncio.create_task(
                app.serve(FleetConfig(), config, store=RedisStore(url, Keys(fleet="default")))
            ),
        ]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                site = Site(client=client, store=store, feed=feed, watts=granted)

                async def is_up() -> bool:
                    with suppress(httpx.HTTPError):
                        return sum((await site.layout()).values()) == awake
                    return False

                deadline = asyncio.get_running_loop().time() + 60
                while not await is_up():
                    assert asyncio.get_running_loop().time() < deadline, "the site did not come up"
                    if tasks[1].done():
                        tasks[1].result()
                    await asyncio.sleep(0.1)
                yield site
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            await store.aclose()


async def test_a_plan_re_shards_the_site_while_streams_run(tmp_path: Path) -> None:
    """One group of GPUs at a time: streams finish where they are, new ones come in all the while."""
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        async with running_site(tmp_path, redis.url) as site:
            endings: list[str] = []
            stopping = asyncio.Event()

            async def load() -> None:
                while not stopping.is_set():
                    endings.append(await site.stream())

            loads = [asyncio.create_task(load()) for _ in range(4)]
            await until(lambda: len(endings) >= 4, seconds=30, what="streams that end")
            wanted = plan({"south": [(8, 800, 1)], "north": [(2, 1400, 4)]}, epoch=5)
            await site.store.publish_plan(wanted.to_json())
            await site.until_layout({(2, 1400): 4})
            done = len(endings)
            await until(lambda: len(endings) >= done + 4, seconds=30, what="streams on the new layout")
            # a lower epoch, and a plan that no GPU count allows, change nothing
            await site.store.publish_plan(plan({"north": [(4, 1980, 2)]}, epoch=4).to_json())
            await site.store.publish_plan(plan({"north": [(4, 1980, 3)]}, epoch=6).to_json())
            await asyncio.sleep(1.5)
            assert {degree for degree, _ in await site.layout()} == {2}
            stopping.set()
            await asyncio.gather(*loads)
            assert set(endings) == {"complete"}
    finally:
        redis.stop()


async def test_a_plan_that_is_over_leaves_the_layout_and_frees_the_clock(tmp_path: Path) -> None:
    """Without a plan the site chooses by itself: its clock, but no new layout."""
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        async with running_site(tmp_path, redis.url) as site:
            await site.store.publish_plan(plan({"north": [(8, 1000, 1)]}, epoch=1, valid=8.0).to_json())
            await site.until_layout({(8, 1000): 1})
            await site.until_layout({(8, 1980): 1})
            assert await site.stream(10) == "complete"
    finally:
        redis.stop()


PLANNER = "[router.planner]\nenabled = true\nlearn_seconds = 16\ninterval_seconds = 900\n"
LONG_PROMPT = "word " * 3200
"""Some 4,000 tokens, as the router estimates them: of the class LS."""
REQUESTS_PER_SECOND = 6.0


@pytest.mark.slow
async def test_a_router_plans_for_the_load_and_a_real_agent_follows(tmp_path: Path) -> None:
    """Long prompts come to one instance of eight GPUs, which reads them slower than four of two: the planner
    says so through Redis. The agent splits its GPUs anew as soon as nobody is served by them (they are all it
    has), and the router serves from what comes in their place."""
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        async with (
            running_site(tmp_path, redis.url, degree=8, others=(2,)) as site,
            router_process(redis, site.store, tmp_path, workers=1, options=PLANNER) as router,
            httpx.AsyncClient(base_url=router.url, timeout=60) as client,
        ):
            statuses: list[int] = []
            plans: list[Plan] = []

            async def ask() -> None:
                body = {"model": MODEL, "prompt": LONG_PROMPT, "max_tokens": 20}
                statuses.append((await client.post("/v1/completions", json=body)).status_code)

            async def load(asked: asyncio.TaskGroup) -> None:
                while True:
                    asked.create_task(ask())
                    await asyncio.sleep(1 / REQUESTS_PER_SECOND)

            async def is_ordered() -> bool:
                raw = await site.store.plan()
                plans[:] = [] if raw is None else [Plan.from_json(raw)]
                return bool(plans and plans[0].targets.get("north"))

            async with asyncio.TaskGroup() as asked:
                loading = asked.create_task(load(asked))
                await until_it_says(is_ordered, what="a plan that names the site", seconds=60)
                assert set(await site.layout()) == {(8, 1980)}
                loading.cancel()
            [target] = plans[0].targets["north"]
            assert target.tensor_parallel_degree == 2

            async def is_split() -> bool:
                return {degree for degree, _ in await site.layout()} == {2}

            await until_it_says(is_split, what="instances of two GPUs", seconds=60)
            assert set(statuses) <= {200, 503}  # more came than the site could carry
            before = len(statuses)
            await ask()
            assert statuses[before:] == [200]
            assert (await router.metrics())["heron_router_plan_epoch"] == plans[0].epoch
            ledger = await router.settled()
            assert ledger["failed"] == 0
    finally:
        redis.stop()
