"""A farm with three sites: the feed as a process, a real Redis, sites that obey."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.obedient_agent import ObedientAgent
from support.wait import until, until_it_says

from cli.ports import free_ports
from fleet.keys import Keys
from fleet.records import Plan, PowerReading, SolverReport

KEYS = Keys(fleet="test")
SLACK_WATTS = 1e-6
RUNNER = """
import asyncio, sys
from pathlib import Path
from power_feed import app, config
asyncio.run(app.serve(*config.load(Path(sys.argv[1]))))
"""


class FarmProcess:
    """The feed of one farm, as a process that can be stopped and started again."""

    def __init__(self, path: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._path = path
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns once it answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUNNER, str(self._path), stderr=asyncio.subprocess.DEVNULL
        )
        await until_it_says(self._answers, seconds=60, what="the feed's start")

    async def _answers(self) -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(f"{self.url}/healthz")).status_code == 200
            except httpx.HTTPError:
                return False

    async def page(self) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.url}/metrics")).text

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self._process.wait(), timeout=20)


@asynccontextmanager
async def running(
    directory: Path, server: Any, points: list[list[float]], *, known: str = ""
) -> AsyncIterator[tuple[FarmProcess, list[ObedientAgent]]]:
    """The farm of 20 kW, its power by `points`, and three sites of 950 W idle and 4,750 W at most.

    `known`: what the feed's configuration says of each site beside that.
    """
    agents = [ObedientAgent(f"coast-{number}", "coast-farm") for number in (1, 2, 3)]
    for agent in agents:
        await agent.listen()
    sites = "\n".join(
        f'[[power_feed.farms.sites]]\nsite_id = "{agent.site_id}"\n'
        f'ingress_url = "http://127.0.0.1:{agent.port}"\n'
        f"{known}\n"
        for agent in agents
    )
    [port] = free_ports(1)
    path = directory / "fleet.toml"
    path.write_text(
        f"""
        [fleet]
        name = "test"
        redis_url = "{server.url}"
        site_token = "secret"
        [power_feed]
        port = {port}
        interval_seconds = 0.1
        [[power_feed.farms]]
        farm_id = "coast-farm"
        nameplate_watts = 20000
        source = {{ kind = "schedule", points = {json.dumps(points)} }}
        quality = {{ max_ramp_ratio_per_second = 10 }}
        {sites}
        """
    )
    feed = FarmProcess(path, port)
    try:
        for agent in agents:  # first, so that the feed knows them all before it shares anything out
            await agent.start(feed.url, server.url, KEYS)
        await feed.start()
        yield feed, agents
    finally:
        await feed.stop()
        for agent in agents:
            await agent.stop()


def granted(agents: Sequence[ObedientAgent]) -> list[float]:
    """Now, in watts."""
    return [round(agent.granted_watts, 3) for agent in agents]


def together(agents: Sequence[ObedientAgent]) -> list[list[float]]:
    """The grants of each moment, in order of time: a farm's readings of one moment have one sequence."""
    by_sequence: dict[int, list[PowerReading]] = {}
    for agent in agents:
        for reading in agent.readings:
            by_sequence.setdefault(reading.sequence, []).append(reading)
    whole = [moment for _, moment in sorted(by_sequence.items()) if len(moment) == len(agents)]
    for moment in whole:
        total = sum(reading.granted_power_watts for reading in moment)
        assert total <= moment[0].available_power_watts + SLACK_WATTS
    return [[round(reading.granted_power_watts, 3) for reading in moment] for moment in whole]


def check_rules(agents: Sequence[ObedientAgent]) -> None:
    """Of every reading that was sent: nothing or the idle draw, sequences that grow, forecasts in order."""
    for agent in agents:
        sequences = [reading.sequence for reading in agent.readings]
        assert sequences == sorted(set(sequences))
        for reading in agent.readings:
            grant = reading.granted_power_watts
            assert grant == 0 or grant >= agent.idle_watts / 0.95 - SLACK_WATTS
            assert reading.forecast
            for point in reading.forecast:
                assert point.p10_watts <= point.p50_watts <= point.p90_watts


async def test_power_falls_and_rises_and_is_filled_into_the_sites(redis_server: Any, tmp_path: Path) -> None:
    """14 kW: two full servers and the rest; 6 kW: one and a little; 3 kW: one alone; and back to one full."""
    points = [[0, 0.7], [9, 0.3], [12, 0.15], [15, 0.7]]
    async with running(tmp_path, redis_server, points) as (_, agents):

        def is_over() -> bool:
            is_back = granted(agents) == [5000.0, 0.0, 0.0]
            return is_back and [3000.0, 0.0, 0.0] in together(agents)

        await until(is_over, seconds=60, what="3 kW and after")
        seen = together(agents)
        assert seen.index([5000.0, 5000.0, 4000.0]) < seen.index([5000.0, 1000.0, 0.0])
        check_rules(agents)
        await until(lambda: agents[0].draw_watts == 4750.0, seconds=60)
        assert granted(agents)[1:] == [0.0, 0.0]  # they rest, so as not to flap


async def test_a_plans_shares_move_power_only_as_fast_as_it_is_given_up(
    redis_server: Any, tmp_path: Path
) -> None:
    """At no moment do the sites together draw more than the farm has."""
    async with running(tmp_path, redis_server, [[0, 0.3]]) as (_, agents):
        await until(lambda: granted(agents) == [5000.0, 0.0, 0.0], seconds=60)
        await until(lambda: agents[0].draw_watts == 4750.0, seconds=60)
        worst = 0.0

        def has_moved() -> bool:
            nonlocal worst
            worst = max(worst, sum(agent.draw_watts for agent in agents))
            return granted(agents) == [1200.0, 4800.0, 0.0]

        plan = Plan(
            router_id="planner",
            sequence=1,
            epoch=1,
            solved_at_unix_seconds=1.0,
            valid_for_seconds=600.0,
            solver=SolverReport(status="optimal", seconds=0.1),
            shares={"coast-farm": {"coast-1": 0.2, "coast-2": 0.8, "coast-3": 0.0}},
        )
        redis_server.client().set(KEYS.plan, plan.to_json())
        await until(has_moved, seconds=60, what="the plan's shares")
        assert worst <= 6000.0
        together(agents)
        check_rules(agents)


async def test_a_site_that_falls_silent_keeps_its_part_until_its_walk_down_is_over(
    redis_server: Any, tmp_path: Path
) -> None:
    """10 T, here 10 s; then the others get it, all but its idle draw."""
    async with running(tmp_path, redis_server, [[0, 0.5]]) as (feed, agents):
        await until(lambda: granted(agents) == [5000.0, 5000.0, 0.0], seconds=60)
        await agents[0].stop()
        await until(lambda: granted(agents)[2] == 4050.0, seconds=60, what="the silent site's part")
        page = await feed.page()
        assert 'heron_feed_granted_watts{site="coast-1"} 0.0' in page
        assert 'heron_feed_counted_watts{site="coast-1"} 950.0' in page
        assert granted(agents)[1] == 5000.0


async def test_with_redis_stopped_the_agents_are_asked_themselves(redis_server: Any, tmp_path: Path) -> None:
    """With the site token; grants go on, and are still raised only by what was given up."""
    points = [[0, 0.7], [10, 0.3], [14, 0.5]]
    async with running(tmp_path, redis_server, points) as (feed, agents):
        await until(lambda: granted(agents) == [5000.0, 5000.0, 4000.0], seconds=60)
        redis_server.stop()
        await until(lambda: granted(agents) == [5000.0, 5000.0, 0.0], seconds=60)
        assert [5000.0, 1000.0, 0.0] in together(agents)
        check_rules(agents)
        await until(lambda: all("bearer secret" in agent.asked for agent in agents), seconds=60)
        assert 'heron_feed_report_polls_total{result="ok"}' in await feed.page()


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_feed_that_is_restarted_does_not_break_off_what_runs(
    redis_server: Any, tmp_path: Path, has_redis: bool
) -> None:
    """It knows from Redis, or from the agents, what it granted before; nobody hears less in between."""
    known = "server_idle_watts = 950\nmax_site_watts = 4750"  # SiteInfo is in Redis only
    async with running(tmp_path, redis_server, [[0, 0.5]], known=known) as (feed, agents):
        await until(lambda: granted(agents) == [5000.0, 5000.0, 0.0], seconds=60)
        if not has_redis:
            redis_server.stop()
        await feed.stop()
        heard = [len(agent.readings) for agent in agents]
        await feed.start()
        more = [count + 20 for count in heard]
        await until(
            lambda: all(len(one.readings) >= count for one, count in zip(agents, more, strict=True)),
            seconds=60,
            what="readings of the new feed",
        )
        for agent, before in zip(agents[:2], heard[:2], strict=True):
            assert {reading.granted_power_watts for reading in agent.readings[before:]} == {5000.0}
