"""Planning live: a real Redis, real router processes, a real solver process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.planned_site import Feed, PlannedSite
from support.router_fleet import chat
from support.router_process import RouterProcess, is_alive, router_process
from support.wait import until_it_says

from fleet.records import Plan, PlannerLease
from fleet.store import StoreError

FAST = "[router.planner]\nenabled = true\nlearn_seconds = 0\ninterval_seconds = 10\nvalid_for_seconds = 30\n"


async def value(router: RouterProcess, name: str) -> float | None:
    """One series of its page; None: it is not there."""
    return (await router.metrics()).get(name)


@contextlib.asynccontextmanager
async def wind(store: Any, **watts: float) -> AsyncIterator[Feed]:
    """Readings of these sites, every half second."""
    feed = Feed(store, dict(watts))

    async def write() -> None:
        while True:
            with contextlib.suppress(StoreError):
                await feed.write()
            await asyncio.sleep(0.5)

    writing = asyncio.create_task(write())
    try:
        yield feed
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def plan_of(store: Any) -> Plan | None:
    """The plan that is published."""
    raw = await store.plan()
    return None if raw is None else Plan.from_json(raw)


async def until_plan(store: Any, *, above_epoch: int = 0) -> Plan:
    """A plan of a later epoch than this."""
    found: list[Plan] = []

    async def there() -> bool:
        with contextlib.suppress(StoreError):  # a connection to a Redis that is gone, kept until now
            plan = await plan_of(store)
            if plan is not None and plan.epoch > above_epoch:
                found.append(plan)
        return bool(found)

    await until_it_says(there, what=f"a plan above epoch {above_epoch}", seconds=40)
    return found[0]


@pytest.mark.slow
async def test_leadership_moves_when_the_leader_is_killed(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """One of two routers plans, both follow; killed, the other takes over with a higher epoch."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    site = PlannedSite("a")
    async with (
        wind(redis_store, a=9000.0),
        router_process(redis_server, redis_store, tmp_path / "one", site, workers=1, options=FAST) as one,
    ):
        first = await until_plan(redis_store)
        assert await value(one, "heron_router_planner_leader") == 1
        other = router_process(redis_server, redis_store, tmp_path / "two", workers=1, options=FAST)
        async with other as two:

            async def follows() -> bool:
                return await value(two, "heron_router_plan_epoch") == first.epoch

            await until_it_says(follows, what="the second router follows the plan")
            assert await value(two, "heron_router_plan_valid") == 1
            assert await value(two, "heron_router_planner_leader") == 0
            os.kill(one.process.pid, signal.SIGKILL)
            second = await until_plan(redis_store, above_epoch=first.epoch)
            assert second.router_id != first.router_id
            assert await value(two, "heron_router_planner_leader") == 1

            late = first.model_copy(update={"sequence": second.sequence + 99})
            await redis_store.publish_plan(late.to_json())

            async def refused() -> bool:
                name = 'heron_router_records_refused_total{kind="Plan",reason="stale_epoch"}'
                return bool(await value(two, name))

            await until_it_says(refused, what="the plan of the dead leader's epoch is refused")
            assert await value(two, "heron_router_plan_epoch") == second.epoch


async def test_a_plan_reaches_every_worker_and_moves_with_the_power(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """Requests go where the plan says; as the power moves from one site to the other, so do they, at once."""
    sites = PlannedSite("a"), PlannedSite("b")
    for site in sites:
        site.headroom = 1000
    options = 'policy = "planned"\n' + FAST.replace("interval_seconds = 10", "interval_seconds = 600")
    async with (
        wind(redis_store, a=9000.0, b=100.0) as feed,
        router_process(redis_server, redis_store, tmp_path, *sites, workers=2, options=options) as router,
        httpx.AsyncClient(base_url=router.url, timeout=30) as client,
    ):

        async def all_go_to(name: str) -> bool:
            answers = [
                await client.post("/v1/chat/completions", content=orjson.dumps(chat())) for _ in range(10)
            ]
            return {answer.headers["x-heron-site"] for answer in answers} == {name}

        plan = await until_plan(redis_store)
        assert set(plan.weights["m"]["SS"]) == {"a"}
        await until_it_says(lambda: all_go_to("a"), what="all requests go to a", seconds=20)
        feed.watts = {"a": 100.0, "b": 9000.0}

        async def moved() -> bool:
            plan = await plan_of(redis_store)
            return plan is not None and "a" not in plan.weights.get("m", {}).get("SS", {})

        await until_it_says(moved, what="a plan for the new power", seconds=20)
        assert (await value(router, 'heron_router_planner_solves_total{kind="fast",result="ok"}') or 0) >= 1


async def test_the_solver_ends_with_its_router(redis_server: Any, redis_store: Any, tmp_path: Path):
    """`kill -9` of the router leaves no solver behind."""
    site = PlannedSite("a")
    async with (
        wind(redis_store, a=9000.0),
        router_process(redis_server, redis_store, tmp_path, site, workers=1, options=FAST) as router,
    ):
        await until_plan(redis_store)
        children = Path(f"/proc/{router.process.pid}/task/{router.process.pid}/children").read_text().split()
        solvers = [
            int(pid) for pid in children if b"solver_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert solvers
        assert all(os.getpriority(os.PRIO_PROCESS, pid) >= 10 for pid in solvers)
        os.kill(router.process.pid, signal.SIGKILL)

        async def gone() -> bool:
            return not any(map(is_alive, solvers))

        await until_it_says(gone, what="the solver is gone")


async def test_the_epoch_grows_over_an_emptied_redis(redis_server: Any, redis_store: Any, tmp_path: Path):
    """The lease and the plan are lost with it; who leads next begins above what it has seen."""
    site = PlannedSite("a")
    async with (
        wind(redis_store, a=9000.0),
        router_process(redis_server, redis_store, tmp_path, site, workers=1, options=FAST) as router,
    ):
        first = await until_plan(redis_store)
        redis_server.stop()
        redis_server.start()

        async def knows_the_site() -> bool:
            try:
                await redis_store.publish_site_info("a", site.info())
            except StoreError:  # the connection to the old server, or the new one is not up
                return False
            return True

        async def leads() -> bool:
            try:
                raw = await redis_store.planner_lease()
            except StoreError:  # another connection to the old server, kept until now
                return False
            epoch = None if raw is None else PlannerLease.from_json(raw).epoch
            return epoch is not None and epoch == await value(router, "heron_router_plan_epoch")

        await until_it_says(knows_the_site, what="a Redis that answers")
        again = await until_plan(redis_store, above_epoch=first.epoch - 1)
        assert again.epoch >= first.epoch
        await until_it_says(leads, what="the plan under the lease's epoch")
