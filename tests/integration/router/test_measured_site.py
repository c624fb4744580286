"""A site with files of its own, a router with the planner on: the plan names what the files describe, and the
site follows it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.measured import document_of, row_of
from support.router_process import RouterProcess, router_process
from support.wait import until_it_says

from fleet.performance import PerformanceProfile
from fleet.profile import LLAMA_70B_H100_TP4
from fleet.records import Plan, SiteInfo
from tests.integration.site_agent.test_plan import MODEL, running_site

CLOCKS = (1500, 700)
FULL_CLOCK_MHZ = 1500
"""Clocks that no shipped profile has."""
LOW_WATTS, FULL_WATTS = 2530.0, 9000.0
"""One instance of 4 GPUs, and all there is."""
PLANNER = (
    "[router.planner]\nenabled = true\nlearn_seconds = 20\ninterval_seconds = 3600\nvalid_for_seconds = 600\n"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def write_file(path: Path, degree: int, *, watts_times: float) -> Path:
    """What `heron profile run` would write of an engine at this degree, as fast as the default one at 4."""
    truth: PerformanceProfile = replace(
        LLAMA_70B_H100_TP4,
        full_clock_mhz=FULL_CLOCK_MHZ,
        rows=tuple(replace(row, watts=watts_times * row.watts) for row in LLAMA_70B_H100_TP4.rows),
        idle_watts=115.0 * degree,
    )
    rows = [
        row_of(truth, batch, prompt, clock)
        for clock, prompt, batch in itertools.product(CLOCKS, (512, 4096), (1, 4, 16))
    ]
    facts = {"tensor_parallel_degree": degree, "full_clock_mhz": FULL_CLOCK_MHZ, "idle_watts": 115.0 * degree}
    path.write_text(document_of(rows, **facts).model_dump_json())
    return path


async def ask(router: RouterProcess, stopping: asyncio.Event) -> None:
    """More than two instances of 4 GPUs end: eight requests a second, whose clients leave after a moment."""

    async def one(client: httpx.AsyncClient) -> None:
        body = {"model": MODEL, "prompt": "one two three", "max_tokens": 200, "stream": True}
        try:
            await client.post("/v1/completions", json=body, timeout=1.0)
        except httpx.HTTPError:
            return

    async with httpx.AsyncClient(base_url=router.url) as client, asyncio.TaskGroup() as asking:
        while not stopping.is_set():
            asking.create_task(one(client))
            await asyncio.sleep(0.125)


async def test_a_plan_names_what_a_site_s_files_describe_and_the_site_follows(
    redis_server: Any, redis_store: Any, tmp_path: Path
) -> None:
    """It came up with little power, in the only degree that fits; with all of it its own files say that the
    other one ends three quarters more, which is too little for it to move at once by itself."""
    four = write_file(tmp_path / "mine-tp4.json", 4, watts_times=1.0)
    eight = write_file(tmp_path / "mine-tp8.json", 8, watts_times=1.6)
    engine: dict[str, Any] = {
        "profile": str(four),
        "other_profiles": (str(eight),),
        "other_tensor_parallel_degrees": (8,),
        "max_concurrency": 4,
        "other_max_concurrency": (14,),
    }
    low: dict[str, Any] = {"watts": LOW_WATTS, "instances": 1, "slo_e2e_seconds": 600.0}
    async with running_site(tmp_path, redis_server.url, **low, **engine) as site:
        assert {degree for degree, _ in await site.layout()} == {4}
        site.watts[0] = FULL_WATTS
        await site.until_layout({(4, FULL_CLOCK_MHZ): 2})
        [raw] = await redis_store.site_infos(["north"])
        info = SiteInfo.from_json(raw)
        assert [one.tensor_parallel_degree for one in info.profiles] == [4, 8]
        assert {one.profile_id for one in info.profiles} == {one.profile_id for one in info.configurations}
        async with router_process(
            redis_server, redis_store, tmp_path, workers=1, options=f'policy = "heron"\n{PLANNER}'
        ) as router:
            stopping = asyncio.Event()
            asking = asyncio.create_task(ask(router, stopping))
            found: list[Plan] = []

            async def is_ordered() -> bool:
                plan = await redis_store.plan()
                if plan is not None:
                    found.append(Plan.from_json(plan))
                return bool(found) and "north" in found[-1].targets

            try:
                await until_it_says(is_ordered, what="a plan for the site", seconds=120)
            finally:
                stopping.set()
                await asking
            [target] = found[-1].targets["north"]
            assert (target.tensor_parallel_degree, target.instances) == (8, 1)
            assert target.gpu_clock_mhz == FULL_CLOCK_MHZ
            await site.until_layout({(8, FULL_CLOCK_MHZ): 1}, seconds=90)
