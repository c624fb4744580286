"""The power loop: cap and meter in, orders out, a heartbeat with each turn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.fake_drivers import FakeEngines, FakeGpus, specs
from support.wait import until

from fleet.instance import InstanceState
from fleet.power import RideThrough
from fleet.profile import LLAMA_70B_H100_TP4, SitePowerModel
from fleet.records import PowerQuality
from site_agent import power_loop
from site_agent.admission import Admission
from site_agent.drivers.interface import DriverError, Drivers
from site_agent.governor import Governor
from site_agent.instance import Instance, RestartRule
from site_agent.instances import InstancePool
from site_agent.limits import Limits, instance_watts
from site_agent.power_loop import PowerLoop
from site_agent.processes import WatchdogError
from site_agent.site_model import SiteModel
from site_agent.situation import CapForecast, Decision, GovernorRule, SiteView
from site_agent.slots import Ask, Pushback, Slots

MODEL = SiteModel(
    profile=LLAMA_70B_H100_TP4,
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=16,
    clocks_mhz=LLAMA_70B_H100_TP4.clocks_mhz,
)


@dataclass(slots=True)
class FakeCap:
    """CapSource."""

    watts: float = 7000.0
    has_reading: bool = True
    quality: PowerQuality | None = "good"
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def cap_watts(self, now: float) -> float:
        return self.watts

    def forecast(self, now: float) -> tuple[tuple[CapForecast, ...], float]:
        return (), 0.0

    def fall_to(self, watts: float) -> None:
        self.watts = watts
        self.news.set()


@dataclass(slots=True)
class Rig:
    """A loop with fake drivers."""

    loop: PowerLoop
    cap: FakeCap
    gpus: FakeGpus
    engines: FakeEngines
    pool: InstancePool
    admission: Admission
    beats: list[int]
    changes: list[int]

    async def all_ready(self) -> None:
        await until(lambda: all(one.is_admitted for one in self.pool.instances), what="all ready")


@asynccontextmanager
async def running_loop(
    *, cap: FakeCap | None = None, gpus: FakeGpus | None = None, tick_seconds: float = 0.02
) -> AsyncIterator[Rig]:
    engines, gpus, cap = FakeEngines(), gpus or FakeGpus(560.0), cap or FakeCap()
    beats: list[int] = []
    changes: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        pool = InstancePool(
            specs=specs(2),
            drivers=Drivers(engines=engines, gpus=gpus),
            restart=RestartRule(),
            probe_seconds=1.0,
            probe_failures=5,
            start_seconds=60.0,
            start_timeout_seconds=5.0,
            rng=random.Random(1),
            tasks=tasks,
            on_change=lambda: None,
            on_end=lambda _instance_id: None,
        )
        admission = Admission(
            slots=Slots(
                seats=pool.instances,
                limits=Limits(max_concurrency=16),
                resume_reserve_ratio=0.0,
                start_seconds=2.0,
            )
        )
        loop = PowerLoop(
            governor=Governor(
                model=MODEL,
                rule=GovernorRule(rise_hold_seconds=0.2, drain_seconds=0.2),
                ride_through=RideThrough.for_site(max_site_watts=6000),
            ),
            cap=cap,
            gpus=gpus,
            pool=pool,
            admission=admission,
            tick_seconds=tick_seconds,
            beat=lambda: beats.append(1),
            on_change=lambda: changes.append(1),
        )
        loops = [
            tasks.create_task(work) for work in (loop.run(), loop.meter(), pool.watch(), pool.follow_clocks())
        ]
        yield Rig(
            loop=loop,
            cap=cap,
            gpus=gpus,
            engines=engines,
            pool=pool,
            admission=admission,
            beats=beats,
            changes=changes,
        )
        loop.is_closing = True
        for one in pool.instances:
            pool.stop(one.instance_id)
        await pool.stopped()
        for task in loops:
            task.cancel()
    await engines.aclose()


async def test_with_power_engines_start_and_with_none_they_stop() -> None:
    """The clock goes down first, and nothing is in the way of the rest."""
    async with running_loop() as rig:
        await rig.all_ready()
        rig.gpus.watts = 2 * 460.0
        rig.cap.fall_to(1300)
        await until(lambda: all(one.state is InstanceState.STOPPED for one in rig.pool.instances))
        assert rig.admission.slots.is_short_of_power
        assert rig.loop.commands["StopEngine"] == 2
        assert rig.gpus.clocks == {"i0": 800, "i1": 800}
        assert rig.loop.status is not None
        assert rig.loop.status.target_instances == 0
        assert rig.loop.status.draw_source == "gpu"


async def test_streams_that_do_not_finish_are_broken_off() -> None:
    """Counted, and the engine stops without grace."""
    async with running_loop() as rig:
        await rig.all_ready()
        interrupted: list[str] = []
        flights = [rig.admission.open(one, lambda: interrupted.append("x")) for one in rig.pool.instances]
        rig.gpus.watts = 2 * 1800.0
        rig.cap.fall_to(1300)
        await until(lambda: len(interrupted) == 2, what="both broken off")
        assert rig.loop.broken_streams == 2
        await until(lambda: len(rig.engines.stops) == 2)
        assert all(kill for _, kill in rig.engines.stops)
        for flight in flights:
            rig.admission.close(flight)


async def test_an_episode_hurries_a_calm_stop_that_is_under_way() -> None:
    """Its grace may be longer than the ride-through, and its watts are above the cap."""
    async with running_loop() as rig:
        await rig.all_ready()
        rig.engines.grace_seconds = 60.0
        rig.pool.drain("i1")
        rig.pool.stop("i1", kill=False)
        await until(lambda: rig.engines.stops == [("i1", False)])
        rig.gpus.watts = 2 * 1800.0
        rig.cap.fall_to(1300)
        await until(lambda: not rig.pool["i1"].is_stopping, what="gone within the grace")
        assert ("i1", True) in rig.engines.stops


async def test_a_new_reading_is_acted_on_at_once() -> None:
    """Not at the next tick, which here never comes."""
    async with running_loop(tick_seconds=1000) as rig:
        await until(lambda: rig.loop.commands["StartEngine"] == 2)
        await rig.all_ready()
        rig.cap.fall_to(1200)
        await until(lambda: rig.loop.commands["StopEngine"] == 2)
        assert rig.loop.status is not None
        assert rig.loop.status.cap_watts == 1200


async def test_before_the_first_reading_it_only_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the safe floor counts."""
    monkeypatch.setattr(power_loop, "FIRST_READING_SECONDS", 0.3)
    cap = FakeCap(watts=0.0, has_reading=False)
    async with running_loop(cap=cap) as rig:
        await until(lambda: len(rig.beats) >= 3)
        before = rig.loop.status
        await until(lambda: rig.loop.status is not None, what="governed by the floor")
        assert before is None
        assert not rig.loop.commands


async def test_a_meter_that_answers_nothing_is_modelled_not_zero() -> None:
    """And said to be."""
    async with running_loop(gpus=FakeGpus(None)) as rig:
        await rig.all_ready()
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_watts > 1600)
        assert rig.loop.status is not None
        assert rig.loop.status.draw_source == "modelled"
        assert rig.loop.status.draw_watts == pytest.approx(MODEL.modelled_watts([0, 0], 1980))


async def test_a_meter_and_clocks_that_fail_together_do_not_break_the_cap() -> None:
    """As when NVML hangs: the draw is modelled at the clocks that the GPUs may run at, not at those ordered,
    and what then does not fit is stopped."""
    async with running_loop(gpus=FakeGpus(None)) as rig:
        await rig.all_ready()
        flights = [
            rig.admission.open(one, lambda: None, Ask()) for one in rig.pool.instances for _ in range(16)
        ]
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_watts > 4000)
        rig.gpus.set_fault = DriverError("timeout", "NVML hangs in an earlier call")
        cap = 1.05 * MODEL.worst_watts(MODEL.uniform(2), 800) / 0.96
        assert cap < MODEL.modelled_watts([16, 16], 1980)
        rig.cap.fall_to(cap)
        await until(lambda: rig.loop.commands["SetClock"] == 1)
        await until(lambda: rig.loop.commands["StopEngine"] >= 1, what="one stopped, as clocks did not fall")
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_watts <= cap)
        assert [one.clock_mhz for one in rig.pool.instances] == [None, None]
        assert rig.pool.faults["timeout"] >= 1
        for flight in flights:
            rig.admission.close(flight)
        rig.gpus.set_fault = None
        await until(lambda: [one.clock_mhz for one in rig.pool.instances] == [800, 800], what="set after all")
        assert not rig.pool.is_clock_doubtful(asyncio.get_running_loop().time())


async def test_a_clock_that_was_ordered_and_not_set_yet_is_modelled_as_it_is() -> None:
    """A fall counts when it is confirmed, a rise from its order on."""
    async with running_loop(gpus=FakeGpus(None)) as rig:
        await rig.all_ready()
        first = rig.pool.instances[0]
        assert rig.loop.clock_mhz(first) == 1980
        rig.pool.set_clock(800, full_clock_mhz=1980)
        assert rig.loop.clock_mhz(first) == 1980
        await until(lambda: rig.loop.clock_mhz(first) == 800)
        rig.gpus.set_fault = DriverError("failed", "no")
        rig.pool.set_clock(1980, full_clock_mhz=1980)
        await until(lambda: rig.loop.clock_mhz(first) == 1980, what="it may have risen")


async def test_a_start_that_was_seen_is_what_is_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the governor, and in what those are told who are to come back."""
    seen: list[float | None] = []
    decide = Governor.decide

    def remember(self: Governor, view: SiteView, now: float) -> Decision:
        seen.append(view.start_seconds)
        return decide(self, view, now)

    monkeypatch.setattr(Governor, "decide", remember)
    async with running_loop() as rig:
        await rig.all_ready()
        await until(lambda: seen[-1] is not None and rig.admission.slots.start_seconds < 5.0)
    assert seen[0] is None


async def test_a_request_may_take_the_place_of_one_that_has_just_ended() -> None:
    """Though the meter still shows that one, and another beside it would not fit; for a second, no longer."""
    async with running_loop(cap=FakeCap(watts=5200.0)) as rig:
        watts = instance_watts(LLAMA_70B_H100_TP4, MODEL.full_clock_mhz, 16)
        rig.admission.slots.limits = Limits(max_concurrency=16, watts=watts)
        await rig.all_ready()
        chosen = rig.admission.choose()
        assert isinstance(chosen, Instance)
        flight = rig.admission.open(chosen, lambda: None)
        rig.gpus.watts = 3580.0
        await until(lambda: rig.loop.draw(asyncio.get_running_loop().time())[0] == pytest.approx(4598.0))
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_watts > 4500)
        rig.admission.close(flight)
        assert isinstance(rig.admission.choose(), Instance)
        await until(lambda: isinstance(rig.admission.choose(), Pushback), what="the meter is believed again")


async def test_an_episode_above_the_cap_is_in_the_status() -> None:
    """For the report: since when, on the loop's clock."""
    async with running_loop() as rig:
        await rig.all_ready()
        await until(lambda: rig.loop.status is not None and rig.loop.status.draw_watts > 0)
        assert rig.loop.status is not None
        assert rig.loop.status.episode_at is None
        before = asyncio.get_running_loop().time()
        rig.cap.fall_to(0.0)
        await until(lambda: rig.loop.status is not None and rig.loop.status.episode_at is not None)
        assert before - 60 < (rig.loop.status.episode_at or 0.0) <= asyncio.get_running_loop().time()


async def test_a_change_of_the_cap_is_told() -> None:
    """So that routers hear of it at once."""
    async with running_loop() as rig:
        await rig.all_ready()
        before = len(rig.changes)
        rig.cap.fall_to(5900)
        await until(lambda: len(rig.changes) > before)
        assert rig.loop.status is not None
        assert rig.loop.status.headroom_watts == pytest.approx(
            5900 - MODEL.power.site_watts(rig.gpus.watts or 0)
        )


async def test_without_a_watchdog_the_agent_ends() -> None:
    """Engines that nobody watches may not run."""

    def beat() -> None:
        raise WatchdogError("gone")

    async def run() -> None:
        async with running_loop() as rig:
            rig.loop._beat = beat
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as error:
        await run()
    assert error.value.subgroup(WatchdogError) is not None
