"""What the campaign runs: Redis, two vLLM engines behind two `CuttingSite`s, and a real router process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis.asyncio as redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.resume.cutting_site import CuttingSite
from cli.ports import free_ports
from fleet.redis_server import find_redis_server
from site_agent import tether
from site_agent.drivers import tiny_model

MODEL = "tiny"
SITES = ("north", "coast")
MAX_MODEL_LEN = 2048
START_SECONDS = 240.0
READY_SECONDS = 30.0
ROOT = Path(__file__).parents[2]


def tied(arguments: list[str]) -> list[str]:
    """The same command, ended by the kernel when this process ends, however it does."""
    return [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *arguments]


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetting:
    """How the engines are started."""

    command: str
    """Path of `vllm`."""
    model: Path | None = None
    """A model's directory; None: the tiny one with random weights."""
    arguments: tuple[str, ...] = ()
    """More arguments of `vllm serve`; of two equal ones the last counts, so these win."""
    parses_ids: bool = False
    """Its engines have parsers and `--enable-scale-out`, and their sites say so."""
    gpus: tuple[str, ...] = ()
    """GPU of each engine, by CUDA's number; one: both share it. Empty: no GPU is named, as on a CPU."""

    def environment(self, number: int) -> dict[str, str]:
        """Of the engine with that number."""
        return {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]} if self.gpus else {}

    @property
    def is_shared(self) -> bool:
        """Two on one GPU: each measures the free memory at its start, so one starts after the other."""
        return len(self.gpus) == 1 or len(set(self.gpus)) < len(self.gpus)


class Engine:
    """One `vllm serve`, restarted on the same port after a kill."""

    def __init__(
        self,
        command: str,
        model_path: Path,
        log: Path,
        *,
        max_model_len: int = MAX_MODEL_LEN,
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        (self.port,) = free_ports(1)
        self._arguments = [
            *(command, "serve", str(model_path), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--served-model-name", MODEL, "--max-num-seqs", "8", "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", str(max_model_len), "--disable-uvicorn-access-log"),
            *arguments,
        ]
        self._environment = environment or {}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **self._environment,
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tied(self._arguments), stdout=log, stderr=log, env=environment, start_new_session=True
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

    async def resumes(self) -> Counter[str]:
        """Continuations so far by method ("ids", "text", "none": no site was asked), as the router counts."""
        page = (await self.client.get(f"{self.operations_url}/metrics")).text
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "heron_router_resumes_total" and sample.labels["result"] in (
                    "exact",
                    "faithful",
                ):
                    found[sample.labels["method"]] += int(sample.value)
        return found

    async def serve_at(self, *names: str) -> None:
        """These sites take new requests."""
        for name, site in self.sites.items():
            site.is_serving = name in names
            await site.announce()

    async def wait_until(self, is_so: Callable[[dict[str, object]], bool], what: str) -> None:
        """Until the router's page of the fleet is so.

        Raises:
            RuntimeError: it is not after READY_SECONDS; `what` says what.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if is_so((await self.client.get(f"{self.operations_url}/heron/v1/fleet")).json()):
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the router does not see {what}")


@contextmanager
def process(arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """One process for as long as the block lasts; its output in `log`."""
    with log.open("ab") as out:
        started = subprocess.Popen(
            tied(arguments), stdout=out, stderr=out, cwd=ROOT, env=os.environ | (environment or {})
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
async def running(directory: Path, setting: EngineSetting) -> AsyncIterator[Fleet]:
    """Redis, two engines, two sites and a router, ready."""
    model_path = setting.model or tiny_model.ensure(
        Path(setting.command), tiny_model.cache_dir(os.environ), max_positions=MAX_MODEL_LEN
    )
    redis_port, router_port, operations_port = free_ports(3)
    async with AsyncExitStack() as stack:
        sync = stack.enter_context(ExitStack())
        options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
        sync.enter_context(process([str(find_redis_server()), *options], directory / "redis.log"))
        store = redis.Redis(port=redis_port)
        stack.push_async_callback(store.aclose)
        engines = {
            name: Engine(
                setting.command,
                model_path,
                directory / f"{name}.log",
                arguments=setting.arguments,
                environment=setting.environment(number),
            )
            for number, name in enumerate(SITES)
        }
        for engine in engines.values():
            engine.start()
            sync.callback(engine.kill)
            if setting.is_shared:
                await engine.wait_until_ready()
        for engine in engines.values():
            await engine.wait_until_ready()
        sites = {
            name: CuttingSite(name, MODEL, engine.port, MAX_MODEL_LEN, store, parses_ids=setting.parses_ids)
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
        try:
            await fleet.wait_until(lambda page: len(page["sites"]) == len(sites), "both sites")
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {_tail(directory / 'router.log')}") from None
        yield fleet
