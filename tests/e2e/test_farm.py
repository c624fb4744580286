"""Whole farms: the real feed, real agents, a real Redis; the machines, their engines and GPUs are fake."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.farm import RIDE_THROUGH_SECONDS, Farm, running_farm
from support.wait import until, until_it_says

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FEW_WATTS = 4000.0
"""Enough for two machines at low clocks."""


@asynccontextmanager
async def loaded(farm: Farm, *, clients: int) -> AsyncIterator[None]:
    """So many clients at every machine."""
    tasks = [asyncio.create_task(farm.load(site_id)) for site_id in farm.machines for _ in range(clients)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_power(farm: Farm) -> None:
    """At no sample do the machines together draw more than the farm had within the ride-through before it."""
    samples = farm.together()
    assert len(samples) > 20
    for at, watts in samples:
        most = farm.had_at_most(at, within_seconds=RIDE_THROUGH_SECONDS)
        assert watts <= most, f"{watts:.0f} W of {most:.0f} W at {at:.1f}; {farm.had}"


async def test_a_server_goes_dark_is_switched_off_boots_and_serves(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """No wind: dark, and only then off, drawing nothing. Wind again: a grant, on, a new agent, an answer."""
    async with running_farm(tmp_path, environment, sites=1, nameplate_watts=3000.0, watts=2800.0) as farm:
        [machine] = farm.machines.values()
        await farm.until_state("coast-1", "serving", ready=1)
        assert await farm.complete("coast-1") == 200
        first = await farm.report("coast-1")
        assert first is not None
        async with loaded(farm, clients=4):
            await until(lambda: machine.drawn()[-1][1] > 1500, seconds=60, what="a draw under load")
            farm.blow(0.0)
            await until(lambda: not machine.is_on, seconds=60, what="the machine's end")
        last_word = farm.stored_report("coast-1")
        assert last_word is not None
        assert last_word.state == "dark"
        assert await farm.fed("heron_feed_server_commands_total", "coast-1") == 1

        async def is_off() -> bool:
            return await farm.fed("heron_feed_server_off", "coast-1") == 1

        await until_it_says(is_off, seconds=60, what="the feed's word that it is off")
        samples = len(machine.drawn())
        assert await farm.complete("coast-1") == 0
        farm.blow(2800.0)
        await until(lambda: machine.is_on, seconds=60, what="the machine's start")
        assert len(machine.drawn()) == samples  # nothing was drawn while it was off
        await farm.until_state("coast-1", "serving", ready=1)
        assert await farm.complete("coast-1") == 200
        second = await farm.report("coast-1")
        assert second is not None
        assert second.agent_id != first.agent_id
        assert [on for _, on in machine.switched] == [True, False, True]
        check_power(farm)


async def test_a_hung_agent_cannot_keep_its_server_on(tmp_path: Path, environment: dict[str, str]) -> None:
    """It never says dark; once the ride-through is over its server is off whatever it says."""
    async with running_farm(tmp_path, environment, sites=1, nameplate_watts=3000.0, watts=2800.0) as farm:
        [machine] = farm.machines.values()
        await farm.until_state("coast-1", "serving", ready=1)
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGSTOP)
        farm.blow(0.0)
        await until(lambda: not machine.is_on, seconds=60, what="the machine's end")
        last_word = farm.stored_report("coast-1")
        assert last_word is None or last_word.state != "dark"


async def test_three_agents_under_one_allocator_stay_within_the_farms_power(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Saturated agents that take what they are granted at once, while wind falls and rises and plans move the
    shares: each keeps its cap, and together they never draw more than there is."""
    async with (
        running_farm(
            tmp_path,
            environment,
            sites=3,
            nameplate_watts=9000.0,
            watts=8500.0,
            governor="rise_hold_seconds = 0.0\nrise_step_seconds = 0.0",
        ) as farm,
        loaded(farm, clients=8),
    ):
        for site_id in farm.machines:
            await farm.until_state(site_id, "serving", ready=1)
        assert [len(machine.switched) for machine in farm.machines.values()] == [1, 1, 1]
        farm.plan(epoch=1, shares={"coast-1": 0.6, "coast-2": 0.4, "coast-3": 0.0})
        farm.blow(FEW_WATTS)
        await until(lambda: not farm.machines["coast-3"].is_on, seconds=60, what="the third one's end")
        await farm.until_granted({"coast-1": 0.6 * FEW_WATTS, "coast-2": 0.4 * FEW_WATTS, "coast-3": 0.0})
        await until(lambda: time.time() > farm.had[-1][0] + RIDE_THROUGH_SECONDS, seconds=60)
        for epoch, share in enumerate((0.4, 0.6, 0.4, 0.6), start=2):
            farm.plan(epoch=epoch, shares={"coast-1": share, "coast-2": 1 - share, "coast-3": 0.0})
            await farm.until_granted({"coast-1": share * FEW_WATTS, "coast-2": (1 - share) * FEW_WATTS})
            await farm.until_drawn("coast-1" if share > 0.5 else "coast-2", 0.42 * FEW_WATTS)  # not with 0.4
        farm.blow(8500.0)
        farm.plan(epoch=6, shares={"coast-1": 0.33, "coast-2": 0.33, "coast-3": 0.33})
        await until(lambda: farm.machines["coast-3"].is_on, seconds=90, what="the third one's start")
        for site_id in farm.machines:
            await farm.until_state(site_id, "serving", ready=1)
        check_power(farm)
        begin, end = farm.had[1][0] + RIDE_THROUGH_SECONDS, farm.had[2][0]
        drawn = [watts for at, watts in farm.together() if begin <= at < end]
        assert max(drawn) > 0.55 * FEW_WATTS, "hardly any of the farm's power was used: this shows nothing"
        for site_id in farm.machines:
            assert await farm.agent("heron_site_cap_exceeded_seconds_total", site_id) == 0


@pytest.mark.parametrize("fault", ["killed", "hung"])
async def test_redis_is_gone_while_the_wind_drops(
    tmp_path: Path, environment: dict[str, str], fault: str
) -> None:
    """The cap holds, the server goes dark and off, and comes back to serve; Redis later learns of it."""
    async with running_farm(tmp_path, environment, sites=1, nameplate_watts=3000.0, watts=2800.0) as farm:
        [machine] = farm.machines.values()
        await farm.until_state("coast-1", "serving", ready=1)
        async with loaded(farm, clients=8):
            await farm.until_drawn("coast-1", 2000)
            if fault == "killed":
                farm.redis.stop()
            else:
                farm.redis.pause()
            farm.blow(1700.0)
            await until(lambda: time.time() > farm.had[-1][0] + RIDE_THROUGH_SECONDS + 1, seconds=60)
            assert await farm.agent("heron_site_cap_exceeded_seconds_total", "coast-1") == 0
            farm.blow(0.0)
            await until(lambda: not machine.is_on, seconds=60, what="the machine's end")
            farm.blow(2800.0)
            await until(lambda: machine.is_on, seconds=60, what="the machine's start")
        await farm.until_state("coast-1", "serving", ready=1)
        assert await farm.complete("coast-1") == 200
        assert await farm.fed("heron_feed_report_age_seconds", "coast-1") is not None
        check_power(farm)
        if fault == "killed":
            farm.redis.start()
        else:
            farm.redis.resume()

        def is_known() -> bool:
            report = farm.stored_report("coast-1")
            return report is not None and report.state == "serving"

        await until(is_known, seconds=60, what="a report in Redis")
