"""The life of engines: start, crash, hang, back-off, stop; and clocks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.fake_drivers import FakeEngines, FakeGpus, specs
from support.wait import until

from fleet.instance import IllegalMoveError, InstanceState
from site_agent import instances
from site_agent.drivers.interface import DriverError, Drivers
from site_agent.instance import RestartRule
from site_agent.instances import InstancePool


@dataclass(slots=True)
class Rig:
    """A pool with fake drivers."""

    pool: InstancePool
    engines: FakeEngines
    gpus: FakeGpus
    ended: list[str] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    stalled: dict[str, float] = field(default_factory=dict)

    async def state(self, state: InstanceState, instance_id: str = "i0") -> None:
        await until(
            lambda: self.pool[instance_id].state is state and not self.pool[instance_id].is_stopping,
            what=f"{instance_id} {state}",
        )


@asynccontextmanager
async def running_pool(
    count: int = 1, *, start_timeout_seconds: float = 10.0, backoff_seconds: float = 0.05
) -> AsyncIterator[Rig]:
    engines, gpus = FakeEngines(), FakeGpus()
    ended: list[str] = []
    changes: list[int] = []
    stalled: dict[str, float] = {}
    async with asyncio.TaskGroup() as tasks:
        pool = InstancePool(
            specs=specs(count),
            drivers=Drivers(engines=engines, gpus=gpus),
            restart=RestartRule(backoff_seconds=backoff_seconds, max_per_hour=1000),
            probe_seconds=0.05,
            probe_failures=2,
            start_seconds=60.0,
            start_timeout_seconds=start_timeout_seconds,
            rng=random.Random(1),
            tasks=tasks,
            on_change=lambda: changes.append(1),
            on_end=ended.append,
            stall_seconds=120.0,
            stalled_seconds=lambda instance_id: stalled.get(instance_id, 0.0),
        )
        loops = [tasks.create_task(pool.watch()), tasks.create_task(pool.follow_clocks())]
        yield Rig(pool=pool, engines=engines, gpus=gpus, ended=ended, changes=changes, stalled=stalled)
        for one in pool.instances:
            pool.stop(one.instance_id)
        await pool.stopped()
        for loop in loops:
            loop.cancel()
    await engines.aclose()


async def test_an_engine_starts_and_is_admitted_when_it_is_healthy() -> None:
    """Not before; each change is told."""
    async with running_pool() as rig:
        rig.engines.not_ready.add("i0")
        rig.pool.start("i0")
        await until(lambda: rig.engines.starts["i0"] == 1)
        assert rig.pool["i0"].state is InstanceState.STARTING
        assert not rig.pool["i0"].is_admitted
        rig.engines.not_ready.clear()
        await rig.state(InstanceState.READY)
        assert rig.pool["i0"].is_admitted
        assert rig.pool.start_times.learnt_seconds is not None
        assert len(rig.changes) >= 2


async def test_an_engine_that_crashes_is_cleaned_up_and_may_start_again_after_the_back_off() -> None:
    """Its requests are told at once."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        await rig.engines.crash("i0", "out of memory")
        await rig.state(InstanceState.STOPPED)
        assert rig.ended == ["i0"]
        assert rig.engines.stops == [("i0", True)]
        assert rig.pool["i0"].last_fault == "out of memory"
        assert rig.pool.faults == {"exited": 1}
        loop = asyncio.get_running_loop()
        await until(lambda: rig.pool["i0"].can_start(loop.time()))
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)


async def test_an_engine_that_makes_no_token_is_killed() -> None:
    """Its health says yes, its counters stand still."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.stalled["i0"] = 100.0
        await asyncio.sleep(0.3)
        assert rig.pool["i0"].is_admitted, "not yet beyond the limit"
        rig.stalled["i0"] = 121.0
        await rig.state(InstanceState.STOPPED)
        assert rig.ended == ["i0"]
        assert rig.pool["i0"].last_fault is not None
        assert "no token for 121 s" in rig.pool["i0"].last_fault


async def test_an_engine_that_fails_its_probes_is_killed() -> None:
    """It hangs: the process is there, but answers nobody."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.engines.unhealthy.add("i0")
        await rig.state(InstanceState.STOPPED)
        assert rig.engines.stops == [("i0", True)]
        assert rig.pool.faults == {"timeout": 1}


async def test_an_engine_that_answers_no_probe_hides_no_other_ones_crash() -> None:
    """Each is asked by itself; and what one says that is being stopped no longer counts."""
    async with running_pool(count=2) as rig:
        for instance_id in ("i0", "i1"):
            rig.pool.start(instance_id)
            await rig.state(InstanceState.READY, instance_id)
        rig.engines.silent.add("i0")
        seen = rig.engines.probes["i0"]
        await until(lambda: rig.engines.probes["i0"] > max(seen, rig.engines.answers["i0"]))
        await rig.engines.crash("i1")
        await rig.state(InstanceState.STOPPED, "i1")
        assert rig.pool["i0"].is_admitted, "late is not hung"

        rig.engines.unhealthy.add("i0")
        rig.pool["i0"].failed_probes = 1  # the next one would be its last
        rig.pool.stop("i0")
        await rig.state(InstanceState.STOPPED)
        asked = rig.engines.probes["i0"]
        rig.engines.silent.clear()  # a no, from the engine that is gone
        await until(lambda: rig.engines.answers["i0"] == asked)
        assert rig.ended == ["i1"]


async def test_a_single_failed_probe_is_forgiven() -> None:
    """Counted anew after the next good one; until then it takes no new requests, and both are told."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        told = len(rig.changes)
        rig.pool["i0"].failed_probes = 1
        assert not rig.pool["i0"].is_admitted, "it may hang"
        assert rig.pool["i0"].is_serving
        await until(lambda: rig.pool["i0"].failed_probes == 0)
        assert rig.pool["i0"].is_admitted
        assert len(rig.changes) > told


@pytest.mark.parametrize("reason", ["port_in_use", "bad_model", "out_of_memory", "missing_gpu"])
async def test_a_start_that_fails_backs_off(reason: str) -> None:
    """With the driver's own words."""
    async with running_pool(backoff_seconds=100) as rig:
        rig.engines.start_faults["i0"] = DriverError(reason, "what it is")  # type: ignore[arg-type]
        rig.pool.start("i0")
        await until(lambda: rig.pool["i0"].last_fault is not None)
        await rig.state(InstanceState.STOPPED)
        assert rig.pool["i0"].last_fault == "what it is"
        assert rig.pool.faults == {reason: 1}
        assert rig.pool["i0"].is_failing(asyncio.get_running_loop().time())


async def test_an_engine_that_never_gets_ready_is_killed() -> None:
    """After the start's time-out."""
    async with running_pool(start_timeout_seconds=0.2) as rig:
        rig.engines.not_ready.add("i0")
        rig.pool.start("i0")
        await until(lambda: rig.pool.faults["timeout"] == 1)
        await rig.state(InstanceState.STOPPED)
        assert rig.engines.stops == [("i0", True)]


async def test_an_engine_that_ends_while_it_starts_fails_with_its_reason() -> None:
    """The log's last lines, not a time-out."""
    async with running_pool() as rig:
        rig.engines.not_ready.add("i0")
        rig.pool.start("i0")
        await until(lambda: rig.engines.starts["i0"] == 1)
        rig.engines.exits["i0"] = "no such model"
        await until(lambda: rig.pool["i0"].last_fault == "no such model")
        await rig.state(InstanceState.STOPPED)


async def test_a_start_is_abandoned_when_it_is_told_to_stop() -> None:
    """Power went while it was loading; no failure is counted."""
    async with running_pool() as rig:
        rig.engines.not_ready.add("i0")
        rig.pool.start("i0")
        await until(lambda: rig.engines.starts["i0"] == 1)
        rig.pool.stop("i0")
        rig.pool.stop("i0")
        await rig.state(InstanceState.STOPPED)
        assert rig.engines.stops == [("i0", True)]
        assert not rig.pool.faults
        rig.engines.not_ready.clear()
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)


async def test_a_stop_that_fails_is_tried_again_with_force() -> None:
    """An engine that is not known to be gone is not stopped."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.engines.stop_faults.append(DriverError("timeout", "does not end"))
        rig.pool.drain("i0")
        rig.pool.stop("i0", kill=False)
        await rig.state(InstanceState.STOPPED)
        assert rig.pool.faults == {"timeout": 1}
        assert rig.engines.stops == [("i0", True)]


async def test_a_calm_stop_is_hurried_by_a_later_order_to_kill() -> None:
    """Power fell while it took its grace; it is back as a new engine, which nothing of that touches."""
    async with running_pool() as rig:
        rig.engines.grace_seconds = 60.0
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.pool.drain("i0")
        rig.pool.stop("i0", kill=False)
        await until(lambda: rig.engines.stops == [("i0", False)])
        rig.pool.stop("i0", kill=False)
        rig.pool.stop("i0", kill=True)
        rig.pool.stop("i0", kill=True)
        await rig.state(InstanceState.STOPPED)
        assert rig.engines.stops == [("i0", False), ("i0", True)]
        assert not rig.pool["i0"].is_killed
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)


async def test_a_stop_that_cannot_be_hurried_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Counted, and said."""
    async with running_pool() as rig:
        rig.engines.grace_seconds = 0.3
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.pool.drain("i0")
        rig.pool.stop("i0", kill=False)
        await until(lambda: rig.engines.stops == [("i0", False)])
        rig.engines.stop_faults.append(DriverError("timeout", "does not end"))
        rig.pool.stop("i0", kill=True)
        await rig.state(InstanceState.STOPPED)
        assert rig.pool.faults == {"timeout": 1}
        assert "an engine could not be stopped: does not end" in caplog.messages


async def test_a_drain_can_be_taken_back() -> None:
    """And an illegal order is an error."""
    async with running_pool() as rig:
        rig.pool.start("i0")
        await rig.state(InstanceState.READY)
        rig.pool.drain("i0")
        assert not rig.pool["i0"].is_admitted
        rig.pool.admit("i0")
        assert rig.pool["i0"].is_admitted
        with pytest.raises(IllegalMoveError):
            rig.pool.start("i0")


async def test_clocks_follow_the_last_order_and_full_means_unlocked() -> None:
    """Each instance once."""
    async with running_pool(2) as rig:
        rig.pool.set_clock(800, full_clock_mhz=1980)
        await until(lambda: rig.gpus.clocks == {"i0": 800, "i1": 800})
        rig.pool.set_clock(1200, full_clock_mhz=1980)
        rig.pool.set_clock(1980, full_clock_mhz=1980)
        await until(lambda: rig.gpus.clocks == {"i0": None, "i1": None})


async def test_a_clock_that_cannot_be_set_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """And counted, and said in the driver's words, without a trace; the meter makes up for it meanwhile."""
    async with running_pool(1) as rig:
        rig.gpus.faults.append(DriverError("failed", "no permission"))
        rig.pool.set_clock(800, full_clock_mhz=1980)
        await until(lambda: rig.gpus.clocks == {"i0": 800})
        assert rig.pool.faults == {"failed": 1}
        (line,) = [one for one in caplog.records if one.levelname == "ERROR"]
        assert line.getMessage() == "a clock could not be set: no permission"
        assert line.exc_info is None


async def test_a_clock_that_cannot_be_set_for_long_is_not_said_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted each time; said when it begins, when the reason is another, and once a minute."""
    monkeypatch.setattr(instances, "CLOCK_RETRY_SECONDS", 0.01)
    async with running_pool(2) as rig:
        rig.gpus.set_fault = DriverError("timeout", "NVML hangs")
        rig.pool.set_clock(800, full_clock_mhz=1980)
        await until(lambda: rig.pool.faults["timeout"] >= 20)
        assert caplog.messages == ["a clock could not be set: NVML hangs"] * 2
        rig.gpus.set_fault = DriverError("failed", "no permission")
        await until(lambda: rig.pool.faults["failed"] >= 20)
        assert caplog.messages[2:] == ["a clock could not be set: no permission"] * 2
        monkeypatch.setattr(instances, "CLOCK_FAULT_SECONDS", 0.0)
        await until(lambda: len(caplog.messages) > 6)
        rig.gpus.set_fault = None
        await until(lambda: rig.gpus.clocks == {"i0": 800, "i1": 800})
