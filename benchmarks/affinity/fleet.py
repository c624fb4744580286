"""Two real vLLM engines behind two plain sites, and three routers: two with affinity, one without.

The sites are `benchmarks.resume.cutting_site` without a cut: they pass bytes on, and report what their engine
says is running. All routers run all the time; a run uses some of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis.asyncio as redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.affinity.replay import MODEL
from benchmarks.resume.cutting_site import CuttingSite
from benchmarks.resume.fleet import Engine, process
from cli.ports import free_ports
from fleet.redis_server import find_redis_server
from site_agent.drivers import tiny_model

MAX_MODEL_LEN = 8192
SITES = ("north", "coast")
ROUTERS = {"affinity": "true", "affinity too": "true", "plain": "false"}
RUNNING = "vllm:num_requests_running"
WATCH_SECONDS = 0.25
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
READY_SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class Fleet:
    """What runs."""

    sites: dict[str, CuttingSite]
    routers: dict[str, httpx.AsyncClient]
    operations: dict[str, str]
    engines: dict[str, httpx.AsyncClient]

    async def counters(self) -> tuple[float, float]:
        """Prompt tokens that the engines looked for in their prefix caches, and those they found."""
        pages = [await read_metrics(engine) for engine in self.engines.values()]
        return sum(page[QUERIES] for page in pages), sum(page[HITS] for page in pages)

    async def watch(self) -> None:
        """Keep what the sites report up to date, for ever."""
        while True:
            for name, engine in self.engines.items():
                self.sites[name].running_requests = int((await read_metrics(engine))[RUNNING])
            await asyncio.sleep(WATCH_SECONDS)

    async def decisions(self, router: str) -> dict[str, float]:
        """`heron_router_affinity_total` by result."""
        page = (await self.routers[router].get(f"{self.operations[router]}/metrics")).text
        return {
            sample.labels["result"]: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "heron_router_affinity_total"
        }

    async def count_tokens(self, text: str) -> int:
        """By the engine's own tokenizer."""
        answer = await self.engines[SITES[0]].post("/tokenize", json={"model": MODEL, "prompt": text})
        return int(answer.json()["count"])

    async def serve_with(self, *names: str) -> None:
        """Only these sites take requests, and every router knows."""
        for name, site in self.sites.items():
            site.is_serving = name in names
            await site.announce()
        await self._wait({name: "serving" if name in names else "draining" for name in self.sites})

    async def _wait(self, states: dict[str, str]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for router, client in self.routers.items():
            while await self._states(client, router) != states:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{router} does not see {states}")
                await asyncio.sleep(0.1)

    async def _states(self, client: httpx.AsyncClient, router: str) -> dict[str, str]:
        try:
            page = (await client.get(f"{self.operations[router]}/heron/v1/fleet")).json()
        except httpx.HTTPError:
            return {}
        return {site["site_id"]: site["state"] for site in page["sites"]}


async def read_metrics(engine: httpx.AsyncClient) -> dict[str, float]:
    """The samples of an engine's page that matter here."""
    page = (await engine.get("/metrics")).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in (QUERIES, HITS, RUNNING)
    }


@asynccontextmanager
async def running(directory: Path, command: str) -> AsyncIterator[Fleet]:
    """Everything up and both engines ready, for as long as the block lasts."""
    model = tiny_model.ensure(Path(command), tiny_model.cache_dir(os.environ), max_positions=MAX_MODEL_LEN)
    redis_port, *ports = free_ports(1 + 2 * len(ROUTERS))
    async with AsyncExitStack() as stack:
        sync = stack.enter_context(ExitStack())
        options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
        sync.enter_context(process([str(find_redis_server()), *options], directory / "redis.log"))
        store = redis.Redis(port=redis_port)
        stack.push_async_callback(store.aclose)
        engines = {
            name: Engine(command, model, directory / f"{name}.log", max_model_len=MAX_MODEL_LEN)
            for name in SITES
        }
        for engine in engines.values():
            engine.start()
            sync.callback(engine.kill)
        for engine in engines.values():
            await engine.wait_until_ready()
        sites = {
            name: CuttingSite(name, MODEL, engine.port, MAX_MODEL_LEN, store)
            for name, engine in engines.items()
        }
        for site in sites.values():
            await site.start()
            stack.push_async_callback(site.stop)
        stoppers = stack.enter_context(ExitStack())  # before the sites: nobody is cut off
        routers: dict[str, httpx.AsyncClient] = {}
        operations: dict[str, str] = {}
        for number, (name, affinity) in enumerate(ROUTERS.items()):
            port, operations_port = ports[2 * number : 2 * number + 2]
            environment = {
                "HERON_FLEET_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "HERON_ROUTER_PORT": str(port),
                "HERON_ROUTER_OPERATIONS_PORT": str(operations_port),
                "HERON_ROUTER_AFFINITY": affinity,
            }
            arguments = [sys.executable, "-m", "cli.main", "router"]
            stoppers.enter_context(process(arguments, directory / f"{name}.log", environment))
            routers[name] = await _client(stack, port)
            operations[name] = f"http://127.0.0.1:{operations_port}"
        fleet = Fleet(
            sites=sites,
            routers=routers,
            operations=operations,
            engines={name: await _client(stack, engine.port) for name, engine in engines.items()},
        )
        await fleet.serve_with(*SITES)
        watching = asyncio.create_task(fleet.watch())
        try:
            yield fleet
        finally:
            watching.cancel()


async def _client(stack: AsyncExitStack, port: int) -> httpx.AsyncClient:
    return await stack.enter_async_context(
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=180)
    )
