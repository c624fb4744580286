"""Cuts streams of real vLLM engines at random bytes, kills engines, compares what the client got.

Two engines (vLLM's CPU build, the tiny random model, greedy with `repetition_penalty` 1.3 so that a wrong
token shows) behind two `CuttingSite`s, a real Redis and a real router process. Each case is one prompt asked
twice: unbroken, and broken. The same means: the same text, one id, one role, the same finish, the same usage,
one `[DONE]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio as redis

from benchmarks.resume.cutting_site import CutRule, CuttingSite
from cli.ports import free_ports
from fleet.redis_server import find_redis_server
from site_agent.drivers import tiny_model

MODEL = "tiny"
MAX_MODEL_LEN = 2048
KINDS = ("first chunk", "any byte", "inside a character", "after the last token")
START_SECONDS = 240.0
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Told:
    """What a client was told in one stream."""

    text: str = ""
    ids: set[str] = field(default_factory=set)
    roles: int = 0
    finish: list[str] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    foreign: set[str] = field(default_factory=set)
    """Fields that nobody asked for."""
    error: str = ""

    @property
    def is_whole(self) -> bool:
        """One stream as OpenAI's API describes it."""
        shape = (len(self.ids), len(self.finish), len(self.usage), self.done)
        return shape == (1, 1, 1, 1) and self.roles <= 1 and not self.foreign and not self.error

    def differs_from(self, whole: Told) -> str:
        """What is not as in the unbroken stream; "" if nothing."""
        if not self.is_whole:
            return f"not one whole stream: {asdict(self) | {'text': '…'}}"
        if self.text != whole.text:
            at = next(
                (n for n, (a, b) in enumerate(zip(self.text, whole.text, strict=False)) if a != b),
                min(len(self.text), len(whole.text)),
            )
            return f"text at {at} of {len(whole.text)}: {self.text[at:][:40]!r} for {whole.text[at:][:40]!r}"
        for name in ("roles", "finish", "usage"):
            if getattr(self, name) != getattr(whole, name):
                return f"{name}: {getattr(self, name)} for {getattr(whole, name)}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request."""

    path: str
    body: dict[str, Any]

    @classmethod
    def draw(cls, rng: random.Random) -> Case:
        words = " ".join(
            rng.choices(("wind", "heron", "class", "import", "the", "value", "of", "None"), k=12)
        )
        body: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": rng.randrange(40, 160),
            "temperature": 0,
            "repetition_penalty": 1.3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if rng.random() < 0.5:
            return cls(path="/v1/completions", body=body | {"prompt": words})
        return cls(
            path="/v1/chat/completions", body=body | {"messages": [{"role": "user", "content": words}]}
        )


def cut_rule(kind: str, rng: random.Random, total_bytes: int) -> CutRule:
    """Where a stream of `total_bytes` is cut."""
    share = rng.random()

    def first_chunk(body: bytes) -> int | None:
        end = body.find(b"\n\n")
        return None if end < 0 else 1 + int(share * (end + 1))

    def any_byte(body: bytes) -> int | None:
        at = 1 + int(share * (total_bytes - 1))
        return at if len(body) >= at else None

    def inside_a_character(body: bytes) -> int | None:
        at = int(share * total_bytes / 2)
        while at + 1 < len(body):
            if body[at] >= 0xC2 and body[at + 1] >= 0x80:
                return at + 1
            at += 1
        return None

    def after_the_last_token(body: bytes) -> int | None:
        finish = max(body.find(b'"finish_reason":"length"'), body.find(b'"finish_reason":"stop"'))
        end = body.find(b"\n\n", finish)
        return None if finish < 0 or end < 0 else end + 2

    return dict(zip(KINDS, (first_chunk, any_byte, inside_a_character, after_the_last_token), strict=True))[
        kind
    ]


async def ask(client: httpx.AsyncClient, case: Case, on_event: asyncio.Event | None = None) -> Told:
    """Send it and read all of it; `on_event` is set when the tenth event with text is there."""
    told = Told()
    texts = 0
    async with client.stream("POST", case.path, json=case.body) as response:
        if response.status_code != 200:
            told.error = f"status {response.status_code}: {(await response.aread())[:300]!r}"
            return told
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                told.done += 1
                continue
            take(told, json.loads(line[6:]))
            texts += 1
            if on_event is not None and texts == 10:
                on_event.set()
    return told


def take(told: Told, event: dict[str, Any]) -> None:
    """One event."""
    if event.get("error"):
        told.error = str(event["error"])
        return
    told.ids.add(event["id"])
    if event.get("usage"):
        usage = event["usage"]
        told.usage.append(
            {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        )
    told.foreign |= {name for name in ("prompt_token_ids", "token_ids") if event.get(name)}
    for choice in event["choices"]:
        told.foreign |= {name for name in ("prompt_token_ids", "token_ids") if choice.get(name)}
        delta = choice.get("delta", choice)
        told.roles += 1 if delta.get("role") else 0
        told.text += delta.get("content") or delta.get("text") or ""
        if choice.get("finish_reason"):
            told.finish.append(choice["finish_reason"])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


class Engine:
    """One `vllm serve`, restarted on the same port after a kill."""

    def __init__(self, command: str, model_path: Path, log: Path) -> None:
        (self.port,) = free_ports(1)
        self._arguments = [
            *(command, "serve", str(model_path), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--served-model-name", MODEL, "--max-num-seqs", "8", "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", str(MAX_MODEL_LEN), "--disable-uvicorn-access-log"),
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
def _process(arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            arguments, stdout=out, stderr=out, cwd=ROOT, env=os.environ | (environment or {})
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
        sync.enter_context(_process([str(find_redis_server()), *options], directory / "redis.log"))
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
            _process(
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


async def run_cut(fleet: Fleet, kind: str, seed: int) -> Result:
    """One cut of the connection."""
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
    difference = told.differs_from(whole) or ("" if struck[0] else "was never cut")
    return Result(kind=kind, path=case.path, difference=difference, resumed=await fleet.resumed() - before)


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
            results.append(await run_cut(fleet, KINDS[number % len(KINDS)], seed * 10_000 + number))
            if report is not None:
                report(results[-1])
        for number in range(kills):
            results.append(await run_kill(fleet, seed * 10_000 + 5_000 + number))
            if report is not None:
                report(results[-1])
    return results
