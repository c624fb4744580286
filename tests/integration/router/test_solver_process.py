"""The solver's process: it may die, hang or refuse; that costs one plan."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from typing import Any

import pytest
from support.planned_site import PlannedSite, power_reading
from support.planning import demand, fleet, site
from support.signing_keys import SigningKeys
from support.wait import until

import router.live.planner
from fleet.config import FleetConfig
from fleet.memory_store import MemoryStore
from fleet.records import ClassRate, PlannerLease, RouterPresence
from fleet.signing import SIGNS_NOTHING, RecordSigner
from fleet.signing_keys import UNSIGNED, Signing, trust_of
from router.config import PlannerConfig
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.metrics import RouterMetrics
from router.live.planner import Planner
from router.live.sites import SiteRegistry
from router.live.solver_process import SolverFailedError, SolverProcess
from router.policy.planner.plan_maker import Task
from router.policy.planner.problem import PlanningProblem
from router.policy.planner.slow import solve_slow

TASK = Task(kind="slow", problem=fleet(3), instances={})


def program(text: str) -> SolverProcess:
    """Another program in the solver's place."""
    return SolverProcess((sys.executable, "-c", text))


async def test_it_solves_what_the_function_solves():
    """The same plan as in this process; the process is kept for the next one."""
    solver = SolverProcess()
    try:
        assert await solver.solve(TASK, timeout_seconds=60) == solve_slow(TASK.problem)
        pid = solver.pid
        fast = Task(kind="fast", problem=TASK.problem, instances={})
        assert (await solver.solve(fast, timeout_seconds=60)).status == "infeasible"
        assert solver.pid == pid
    finally:
        await solver.close()


async def test_a_solver_that_hangs_is_killed_and_the_next_one_is_new():
    """Its stops are no clock; whoever waits has one."""
    solver = program("import time; time.sleep(1000)")
    with pytest.raises(SolverFailedError, match=r"no plan within 0\.5 s"):
        await solver.solve(TASK, timeout_seconds=0.5)
    assert solver.pid is None


@pytest.mark.parametrize(
    "text", ["raise SystemExit(3)", "print('no plan')", "import os; os.kill(os.getpid(), 9)"]
)
async def test_a_solver_that_dies_or_talks_nonsense_is_an_error(text: str):
    """What it says on its way out is no plan."""
    solver = program(text)
    with pytest.raises(SolverFailedError):
        await solver.solve(TASK, timeout_seconds=20)
    assert solver.pid is None


async def test_a_killed_solver_is_replaced_with_the_next_problem():
    """`kill -9` between two plans, or in the midst of one."""
    solver = SolverProcess()
    try:
        await solver.solve(TASK, timeout_seconds=60)
        assert solver.pid is not None
        os.kill(solver.pid, signal.SIGKILL)
        with pytest.raises(SolverFailedError, match="died"):
            await solver.solve(TASK, timeout_seconds=60)
        assert (await solver.solve(TASK, timeout_seconds=60)).status == "optimal"
    finally:
        await solver.close()


async def test_a_problem_that_cannot_be_meant_is_refused_in_words():
    """And the process lives on."""
    twice = PlanningProblem(sites=(site("a"), site("a")), demand=demand(1.0))
    solver = SolverProcess()
    try:
        with pytest.raises(SolverFailedError, match="site a is listed twice"):
            await solver.solve(Task(kind="slow", problem=twice, instances={}), timeout_seconds=60)
        assert solver.pid is not None
    finally:
        await solver.close()


def planner_of(
    store: Any, signing: Signing = UNSIGNED, **solvers: SolverProcess
) -> tuple[Planner, FleetView, EventRing]:
    """A planner over one site with power, in this process."""
    loop = asyncio.get_running_loop()
    events = EventRing()
    from prometheus_client import CollectorRegistry

    view = FleetView(
        registry=SiteRegistry(),
        metrics=RouterMetrics(CollectorRegistry()),
        events=events,
        networks=(),
        max_clock_skew_seconds=30.0,
        trust=signing.trust,
        clock=loop.time,
        unix_clock=time.time,
        rng=random.Random(1),
    )
    stub = PlannedSite("a")
    view.take_report(stub.report(), "store", "a")
    view.take_info(stub.info(), "a")
    view.take_power(power_reading("a", 9000.0, 5), "a")
    planner = Planner(
        PlannerConfig(enabled=True, learn_seconds=0, timeout_seconds=30),
        store=store,
        view=view,
        router_id="r",
        events=events,
        signing=signing,
        clock=loop.time,
        unix_clock=time.time,
        solvers=solvers or None,  # type: ignore[arg-type]
    )
    return planner, view, events


def told(events: EventRing) -> str:
    """All that operators read of plans."""
    return "\n".join(event["text"] for event in events.recent() if event["kind"] == "plan")


async def test_a_failing_solver_leaves_the_last_plan_and_says_so():
    """An event, a count, and the plan that was there stays in use."""
    store = MemoryStore()
    planner, view, events = planner_of(store)
    running = asyncio.create_task(planner.run())
    await until(lambda: view.snapshot.plan is not None, seconds=60, what="a plan")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    plan = view.snapshot.plan

    broken = program("raise SystemExit(3)")
    planner, view_two, events = planner_of(MemoryStore(), slow=broken, fast=broken)
    view_two.take_plan(view.plans.raw)
    running = asyncio.create_task(planner.run())
    await until(lambda: planner.figures.solves.get(("slow", "failed")), seconds=60, what="a failure")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "no slow plan: the solver died" in told(events)
    assert view_two.snapshot.plan is not None
    assert plan is not None
    assert view_two.snapshot.plan.epoch == plan.epoch


async def test_a_new_leaders_epoch_is_above_every_plan_that_it_has_seen():
    """Over an emptied store, with a clock that is behind the old leader's."""
    planner, view, _ = planner_of(MemoryStore())
    running = asyncio.create_task(planner.run())
    await until(lambda: view.snapshot.plan is not None, seconds=60, what="a plan")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert view.plans.plan is not None
    ahead = view.plans.plan.model_copy(update={"epoch": view.plans.plan.epoch + 10_000_000})
    other, view_two, _ = planner_of(MemoryStore())
    view_two.take_plan(ahead.to_json())
    running = asyncio.create_task(other.run())
    await until(
        lambda: view_two.plans.plan is not None and view_two.plans.plan.epoch > ahead.epoch,
        seconds=60,
        what="a plan above it",
    )
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_without_the_extra_there_is_a_message_and_no_planning(monkeypatch: pytest.MonkeyPatch):
    """The router runs."""
    monkeypatch.setattr(router.live.planner.importlib.util, "find_spec", lambda _name: None)
    planner, _, events = planner_of(MemoryStore())
    async with asyncio.timeout(5):
        await planner.run()
    assert "pip install '.[plan]' in a checkout" in told(events)
    assert not planner.figures.is_available


async def test_a_store_that_is_away_makes_no_leader():
    """And breaks nothing."""
    planner, view, _ = planner_of(MemoryStore(is_down=True))
    running = asyncio.create_task(planner.run())
    await asyncio.sleep(0.5)
    assert not running.done()
    assert not planner.is_leader
    assert view.snapshot.plan is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_epoch_from_no_clock_is_passed_over():
    """Going on from it would end the numbers, and a lease that cannot be written every router."""
    store = MemoryStore()
    hostile = PlannerLease(router_id="x", sequence=1, epoch=2**53 - 1, acquired_at_unix_seconds=1.0)
    assert await store.acquire_planner_lease("x", hostile.to_json(), 0.3)
    planner, view, _ = planner_of(store)
    running = asyncio.create_task(planner.run())
    await until(lambda: view.snapshot.plan is not None, seconds=60, what="a plan")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert view.snapshot.plan.epoch < 2**53 - 1


def signing_of_routers() -> Signing:
    keys = SigningKeys()
    trusted = {"router": [keys.public("router")]}
    return Signing(
        RecordSigner("default", keys.key("router")),
        trust_of(FleetConfig.model_validate({"trusted_keys": trusted})),
    )


async def test_a_lease_that_no_router_wrote_keeps_none_from_planning():
    """Nor one that a router wrote once, put back without an end; what another leads by now counts."""
    signing = signing_of_routers()
    for signer, signed_at in ((SIGNS_NOTHING, 0.0), (signing.signer, time.time() - 60)):
        store = MemoryStore()
        lease = PlannerLease(router_id="x", sequence=1, epoch=1, acquired_at_unix_seconds=1.0)
        assert await store.acquire_planner_lease("x", signer.to_json(lease, unix_now=signed_at), 1e6)
        planner, view, _ = planner_of(store, signing)
        running = asyncio.create_task(planner.run())
        await until(lambda view=view: view.snapshot.plan is not None, seconds=60, what="a plan")
        assert planner.is_leader
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    raw = await store.planner_lease()
    assert raw is not None
    assert signing.trust.read(PlannerLease, raw, unix_now=time.time()).router_id == "r"
    second, _, _ = planner_of(store, signing)
    second._router_id = "second"
    running = asyncio.create_task(second.run())
    await asyncio.sleep(0.5)
    assert not second.is_leader
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_routers_demand_counts_once():
    """Under however many names its record lies, old or new; who cannot sign adds none."""
    signing, store = signing_of_routers(), MemoryStore()
    rate = ClassRate(requests_per_second=2.0, prompt_tokens=100.0, output_tokens=10.0)

    def presence(router_id: str, sequence: int) -> RouterPresence:
        return RouterPresence(
            sequence=sequence,
            router_id=router_id,
            started_at_unix_seconds=1.0,
            url="http://a",
            operations_url="http://b",
            version="1",
            policy="heron",
            workers=1,
            demand={"m": {"SS": rate}},
        )

    now = time.time()
    for number in range(20):
        raw = signing.signer.to_json(presence("one", number), unix_now=now)
        await store.publish_router(f"copy-{number}", raw, 15)
    await store.publish_router("two", signing.signer.to_json(presence("two", 1), unix_now=now), 15)
    await store.publish_router("old", signing.signer.to_json(presence("old", 1), unix_now=now - 60), 15)
    await store.publish_router("evil", presence("evil", 1).to_json(), 15)
    planner, view, events = planner_of(store, signing)
    taken: list[Any] = []
    planner._maker.take_loads = lambda loads, _now: taken.append(loads)  # type: ignore[method-assign]
    await planner._read_demand()
    (loads,) = taken
    assert sum(load.requests_per_second for load in loads.values()) == 4.0
    refused = [event["text"] for event in events.recent() if "RouterPresence" in event["text"]]
    assert len(refused) == 2
    assert view.known_sites() == ["a"]


async def test_a_solver_s_pipe_that_is_closed_is_a_solver_that_died(monkeypatch: pytest.MonkeyPatch):
    """uvloop says RuntimeError of it."""
    solver = SolverProcess()

    def closed(_self: asyncio.StreamWriter, _data: bytes) -> None:
        raise RuntimeError("unable to perform operation on <WriteUnixTransport>; the handler is closed")

    monkeypatch.setattr(asyncio.StreamWriter, "write", closed)
    with pytest.raises(SolverFailedError, match="handler is closed"):
        await solver.solve(TASK, timeout_seconds=60)
    assert solver.pid is None
