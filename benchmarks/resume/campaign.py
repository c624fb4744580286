"""Cuts streams of real vLLM engines at random bytes, kills engines, compares what the client got.

Two engines (vLLM's CPU build, the tiny random model, greedy with `repetition_penalty` 1.3 so that a wrong
token shows) behind two `CuttingSite`s, a real Redis and a real router process. Each case is one prompt asked
twice: unbroken, and broken. The same means: the same text, one id, one role, the same finish, the same usage,
one `[DONE]`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio as redis

from benchmarks.resume.cases import KINDS, MODEL, Case, ask, cut_rule
from benchmarks.resume.cutting_site import CuttingSite
from cli.ports import free_ports
from fleet.redis_server import find_redis_server
from site_agent.drivers import tiny_model

MAX_MODEL_LEN = 2048
START_SECONDS = 240.0
MAX_DRAWS = 10
"""Of one case, until its stream is cut before it ends."""
ROOT = Path(__file__).parents[2]


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


class Engine:
    """One `vllm serve`, restarted on the same port after a kill."""

    def __init__(
        self, command: str, model_path: Path, log: Path, *, max_model_len: int = MAX_MODEL_LEN
    ) -> None:
        (self.port,) = free_ports(1)
        self._arguments = [
            *(command, "serve", str(model_path), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--served-model-name", MODEL, "--max-num-seqs", "8", "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", str(max_model_len), "--disable-uvicorn-access-log"),
        ]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def kill(self) -> None:
        """As a crash: every process at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no engine: {_tail(self._log)}")
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/health")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """What runs."""

    engines: dict[str, Engine]
    sites: dict[str, CuttingSite]
    client: httpx.AsyncClient
    operations_url: str

    async def resumed(self) -> int:
        """Streams resumed so far, by the router's ledger."""
        answer = await self.client.get(f"{self.operations_url}/heron/v1/ledger")
        return int(answer.json()["resumed"])


@contextmanager
def process(arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """One process for as long as the block lasts; its output in `log`."""
    with log.open("ab") as out:
        started = subprocess.Popen(
            arguments, stdout=out, stderr=out, cwd=ROOT, env=os.environ | (environment or {})
        )
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(timeout=30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@asynccontextmanager
async def running(directory: Path, command: str) -> Any:
    """Redis, two engines, two sites and a router, ready."""
    model_path = tiny_model.ensure(
        Path(command), tiny_model.cache_dir(os.environ), max_positions=MAX_MODEL_LEN
    )
    redis_port, router_port, operations_port = free_ports(3)
    async with AsyncExitStack() as stack:
        sync = stack.enter_context(ExitStack())
        options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
        sync.enter_context(process([str(find_redis_server()), *options], directory / "redis.log"))
        store = redis.Redis(port=redis_port)
        stack.push_async_callback(store.aclose)
        engines = {
            name: Engine(command, model_path, directory / f"{name}.log") for name in ("north", "coast")
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
        sync.enter_context(
            process(
                [sys.executable, "-m", "cli.main", "router"],
                directory / "router.log",
                {
                    "HERON_FLEET_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                    "HERON_ROUTER_PORT": str(router_port),
                    "HERON_ROUTER_OPERATIONS_PORT": str(operations_port),
                },
            )
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{router_port}", trust_env=False, timeout=180)
        )
        fleet = Fleet(
            engines=engines,
            sites=sites,
            client=client,
            operations_url=f"http://127.0.0.1:{operations_port}",
        )
        await _wait_until_routed(fleet, directory / "router.log")
        yield fleet


async def _wait_until_routed(fleet: Fleet, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            page = (await fleet.client.get(f"{fleet.operations_url}/heron/v1/fleet")).json()
            if len(page["sites"]) == len(fleet.sites):
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the router does not see the sites: {_tail(log)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case."""

    kind: str
    path: str
    difference: str
    """"" if the client was told the same."""
    resumed: int
    """By the router's ledger: 0 where there was nothing to cut, or nothing to ask."""


async def run_cut(fleet: Fleet, kind: str, seed: int) -> Result | None:
    """One cut of the connection; None where the stream ended before its place came.

    An engine that runs behind puts several tokens into one event, and the next stream is shorter.
    """
    rng = random.Random(seed)
    case = Case.draw(rng)
    length = [0]  # of the answer as the site sent it, token ids and all

    def measure(body: bytes) -> int | None:
        length[0] = len(body)
        return None

    for site in fleet.sites.values():
        site.rule = measure
    whole = await ask(fleet.client, case)
    before = await fleet.resumed()
    rule = cut_rule(kind, rng, length[0])
    struck = [False]

    def once(body: bytes) -> int | None:
        at = None if struck[0] else rule(body)
        struck[0] |= at is not None
        return at

    for site in fleet.sites.values():
        site.rule = once
    told = await ask(fleet.client, case)
    for site in fleet.sites.values():
        site.rule = None
        await site.announce()
    if not struck[0]:
        return None
    return Result(
        kind=kind,
        path=case.path,
        difference=told.differs_from(whole),
        resumed=await fleet.resumed() - before,
    )


async def run_kill(fleet: Fleet, seed: int) -> Result:
    """SIGKILL of the engine that serves the stream; returns once it is up again."""
    rng = random.Random(seed)
    case = Case.draw(rng)
    case.body["max_tokens"] = 1000
    case.body["ignore_eos"] = True
    whole = await ask(fleet.client, case)
    before = await fleet.resumed()
    victim = rng.choice(sorted(fleet.engines))
    for name, site in fleet.sites.items():
        site.is_serving = name == victim  # the stream begins where the engine is killed
        await site.announce()
    await asyncio.sleep(0.1)
    begun = asyncio.Event()
    asking = asyncio.create_task(ask(fleet.client, case, begun))
    await begun.wait()
    for name, site in fleet.sites.items():
        site.is_serving = name != victim
        await site.announce()
    fleet.engines[victim].kill()
    told = await asking
    resumed = await fleet.resumed() - before
    fleet.engines[victim].start()
    await fleet.engines[victim].wait_until_ready()
    for site in fleet.sites.values():
        site.is_serving = True
        await site.announce()
    difference = told.differs_from(whole) or ("" if resumed else "was not resumed")
    return Result(kind="engine killed", path=case.path, difference=difference, resumed=resumed)


async def run(
    directory: Path, command: str, *, cuts: int, kills: int, seed: int = 1, report: Any = None
) -> list[Result]:
    """The whole campaign; `report` is called with each result."""
    results = []
    async with running(directory, command) as fleet:
        for number in range(cuts):
            for draw in range(MAX_DRAWS):
                result = await run_cut(
                    fleet, KINDS[number % len(KINDS)], seed * 10_000 + number + draw * 1_000_000
                )
                if result is not None:
                    break
            else:
                raise RuntimeError(f"{MAX_DRAWS} streams in a row ended before they were cut")
            results.append(result)
            if report is not None:
                report(results[-1])
        for number in range(kills):
            results.append(await run_kill(fleet, seed * 10_000 + 5_000 + number))
            if report is not None:
                report(results[-1])
    return results
