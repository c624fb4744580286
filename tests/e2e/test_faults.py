"""Scripted faults against real processes over 24 seeds: every request ends in exactly one stated way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.demo_config import DemoOptions, demo_tables, ports_needed, site_directory, start_file
from cli.demo_fleet import FleetWatch
from cli.demo_inputs import LOADS, model_name
from cli.demo_run import log_directory
from cli.ports import free_ports
from cli.supervisor import Supervisor
from cli.toml_text import to_toml
from cli.topology import POWER_FEED, REDIS, build_topology, redis_service, site_agent_name
from replay.load import open_load
from replay.prompts import WordPrompts
from replay.results import Results
from replay.runner import ReplayPlan
from replay.runner import run as replay
from replay.schedule import ScheduleRule
from replay.synthetic import SyntheticSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SEEDS = range(24)
FAULTS = (
    "an engine ends its streams with abort",
    "an engine ends its streams with an error",
    "crash an engine",
    "hang Redis",
    "hang an agent",
    "kill Redis",
    "kill an agent",
    "kill the feed",
)
SECONDS = 2.5
FAULT_AFTER_ANSWERS = 15
OUTCOMES = ("completed", "shed", "client_cancelled", "broken", "failed")


class Fleet:
    """The demo's fleet under a supervisor, and what may happen to it."""

    def __init__(self, options: DemoOptions, supervisor: Supervisor, operations_url: str) -> None:
        self.options = options
        self.supervisor = supervisor
        self.operations_url = operations_url
        self.faults: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "kill an agent": self._kill_agent,
            "hang an agent": self._hang_agent,
            "kill Redis": lambda _: self._kill(REDIS),
            "hang Redis": self._hang_redis,
            "kill the feed": lambda _: self._kill(POWER_FEED),
            "crash an engine": lambda rng: self._engine(rng, "crash"),
            "an engine ends its streams with abort": lambda rng: self._engine(rng, "abort"),
            "an engine ends its streams with an error": lambda rng: self._engine(rng, "error"),
        }

    def _agent(self, rng: random.Random) -> str:
        return site_agent_name(rng.choice(self.options.sites))

    async def _kill(self, name: str) -> None:
        self.supervisor.expect_death(name)
        self.supervisor.child(name).kill()
        await self.supervisor.child(name).wait()
        await self.supervisor.restart_service(name)

    async def _kill_agent(self, rng: random.Random) -> None:
        await self._kill(self._agent(rng))

    async def _hang(self, name: str, seconds: float) -> None:
        pid = self.supervisor.child(name).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _hang_agent(self, rng: random.Random) -> None:
        await self._hang(self._agent(rng), 1.0)

    async def _hang_redis(self, _: random.Random) -> None:
        await self._hang(REDIS, 1.5)

    async def _engine(self, rng: random.Random, kind: str) -> None:
        """Through the fake hardware's own door, past the agent."""
        site_id = rng.choice(self.options.sites)
        directory = site_directory(self.options.run_directory, site_id)
        url = json.loads((directory / "fake-hardware.json").read_text())["control_url"]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            engines = (await client.get("/host")).json()["engines"]
            busiest = max(engines, key=lambda engine: (engine["running"], engine["instance_id"]))
            answer = await client.post(f"/engines/{busiest['instance_id']}/fault", json={"kind": kind})
            assert answer.status_code == 200, answer.text

    async def ledger(self) -> dict[str, int]:
        """Once nothing is in flight any more."""
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
            while True:
                counts: dict[str, int] = (await client.get(f"{self.operations_url}/heron/v1/ledger")).json()
                if counts["in_flight"] == 0:
                    return counts
                await asyncio.sleep(0.05)


async def one_seed(fleet: Fleet, base_url: str, seed: int) -> tuple[str, Results]:
    """Traffic for some seconds; in the midst of it one fault, and its end."""
    rng = random.Random(seed)
    name = FAULTS[seed % len(FAULTS)]
    under_way = asyncio.Event()

    async def strike() -> None:
        await under_way.wait()
        await fleet.faults[name](rng)

    shape = LOADS["emulated"]
    spec = SyntheticSpec(
        requests_per_second=shape.requests_per_second,
        arrivals="poisson",
        mean_prompt_tokens=shape.mean_prompt_tokens,
        mean_output_tokens=shape.mean_output_tokens,
        max_output_tokens=shape.max_output_tokens,
    )
    rule = ScheduleRule(
        max_seconds=SECONDS, max_total_tokens=shape.max_model_len, cancel_ratio=0.05 * (seed % 3)
    )
    with open_load(spec, rule, seed=seed) as load:
        plan = ReplayPlan(
            requests=load.requests,
            prompts=WordPrompts(model_name("emulated"), seed=seed),
            is_verifying=True,
            grace_seconds=90.0,
        )
        striking = asyncio.create_task(strike())
        results = await replay(
            plan,
            base_url,
            on_progress=lambda progress: (
                under_way.set() if sum(progress.outcomes.values()) >= FAULT_AFTER_ANSWERS else None
            ),
            progress_seconds=0.05,
        )
        under_way.set()
        await striking
    return name, results


@pytest.fixture
def scripted(tmp_path: Path, environment: dict[str, str]) -> tuple[DemoOptions, dict[str, str]]:
    """Wind all the time; the faults are the test's."""
    directory = Path(environment["TMPDIR"])
    options = DemoOptions(
        run_directory=directory,
        ports=free_ports(ports_needed("emulated")),
        site_token="a token of this test",
        seconds=3600.0,
        scenario="calm",
    )
    return options, environment


async def test_seeds_of_faults_lose_nothing(scripted: tuple[DemoOptions, dict[str, str]]) -> None:
    """Three seeds a fault: the load generator and the router's ledger count the same, no answer is wrong."""
    options, environment = scripted
    directory = options.run_directory
    for path in (log_directory(directory), directory / REDIS):
        path.mkdir()
    for site_id in options.sites:
        site_directory(directory, site_id).mkdir(parents=True)
    config = directory / "heron.toml"
    config.write_text(to_toml(demo_tables(options)))
    redis = redis_service(demo_tables(options)["fleet"]["redis_url"], directory / REDIS)
    topology = build_topology(config, environment, redis=redis)
    notes: list[str] = []
    supervisor = Supervisor(
        topology.stages,
        log_directory=log_directory(directory),
        environment=environment,
        report=notes.append,
        restart=False,
    )
    fleet = Fleet(options, supervisor, topology.operations_url)
    watch = FleetWatch(topology.operations_url, options)
    retried_or_resumed = 0
    watching: asyncio.Task[None] | None = None
    try:
        await supervisor.start()
        start_file(directory).write_text(repr(0.0))
        async with httpx.AsyncClient(trust_env=False) as client:
            watching = asyncio.create_task(watch.run(client))
            await watch.wait_until_serving()
            before = await fleet.ledger()
            for seed in SEEDS:
                fault, results = await one_seed(fleet, topology.base_url, seed)
                after = await fleet.ledger()
                judge(f"seed {seed}, {fault}", results, before, after)
                retried_or_resumed += (
                    after["retried"] + after["resumed"] - before["retried"] - before["resumed"]
                )
                before = after
                await watch.wait_until_serving()
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await supervisor.stop()
    assert supervisor.unexpected_deaths == {}, notes
    assert retried_or_resumed > 0


def judge(which: str, results: Results, before: dict[str, int], after: dict[str, int]) -> None:
    """One seed's invariants. A cancel may race with the router's last byte; else the counts are equal."""
    counted: dict[str, Any] = dict(results.outcomes)
    said = {name: after[name] - before[name] for name in ("requests", *OUTCOMES)}
    assert counted.get("lost", 0) == 0, f"{which}: {results.reasons}"
    assert results.corrupted == 0, f"{which}: {results.corruptions}"
    assert results.requests == sum(counted.get(name, 0) for name in OUTCOMES), which
    assert said["requests"] == sum(said[name] for name in OUTCOMES) == results.requests, f"{which}: {said}"
    assert after["lost"] == 0, which
    raced = said["client_cancelled"] + said["completed"]
    assert raced == counted.get("client_cancelled", 0) + counted.get("completed", 0), f"{which}: {said}"
    for name in ("shed", "broken", "failed"):
        assert said[name] == counted.get(name, 0), f"{which}: {name}: {results.reasons}"
