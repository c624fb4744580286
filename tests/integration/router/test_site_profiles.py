"""Sites that tell of their own profiles: promised, triaged and planned for by them, live."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.planned_site import PlannedSite
from support.router_fleet import chat, router_fleet
from support.router_process import router_process
from support.stub_site import StubSite
from support.wait import until, until_it_says

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profile_record import ProfileInfo
from fleet.records import Plan
from tests.integration.router.test_planner import FAST, until_plan, value, wind

KIND = {"tensor_parallel_degree": 4, "gpu_clock_mhz": 1980}
MINE = "llama-3.1-70b/nvidia-h100-80gb-hbm3/tp4/0123456789ab"


def measured(times: float, **changes: Any) -> dict[str, Any]:
    """The default profile's times so many times over, as a site tells of it."""
    truth = LLAMA_70B_H100_TP4
    slow = replace(
        truth,
        profile_id=MINE,
        rows=tuple(replace(row, itl_seconds=times * row.itl_seconds) for row in truth.rows),
        kv_seconds_per_token=times * truth.kv_seconds_per_token,
        step_overhead_seconds=times * truth.step_overhead_seconds,
        prefill_tokens_per_second=truth.prefill_tokens_per_second / times,
    )
    return ProfileInfo.of(replace(slow, **changes)).model_dump()


def site_of(site_id: str, profile: dict[str, Any] | None) -> StubSite:
    """One instance with room for all, that says how it runs; None: its profile's name alone."""
    site = StubSite(site_id)
    site.headroom = 200
    site.model_fields = {
        "max_concurrency": 256,
        "running_requests": 0,
        "instances": [{"instance_id": "i", "state": "ready", **KIND}],
    }
    known = {"model": site.model, "profile_id": MINE, **KIND}
    site.info_fields = {"configurations": [known], "profiles": [] if profile is None else [profile]}
    return site


async def spread(client: httpx.AsyncClient, count: int = 24) -> Counter[str]:
    """Which sites answered."""
    answers = [
        await client.post("/v1/chat/completions", content=orjson.dumps(chat(max_tokens=20)))
        for _ in range(count)
    ]
    assert {one.status_code for one in answers} == {200}
    return Counter(one.headers["x-heron-site"] for one in answers)


async def test_promised_work_goes_to_the_site_that_can_keep_the_promise(store: Any) -> None:
    """Two sites report the same room and no times; by its measured profile one takes ten times as long as the
    other, whose five-fold is promised. Without the profiles nobody could tell them apart."""
    profiles = {"fast": measured(1.0), "slow": measured(10.0)}
    options: dict[str, Any] = {"policy": "heron", "slo_factor": 5.0}
    async with router_fleet(
        store, *profiles, make_site=lambda name: site_of(name, profiles[name]), **options
    ) as fleet:
        assert set(await spread(fleet.client)) == {"fast"}
        await fleet.settled()
    async with router_fleet(
        type(store)(), *profiles, make_site=lambda name: site_of(name, None), **options
    ) as fleet:
        assert set(await spread(fleet.client)) == {"fast", "slow"}, "as any site that tells nothing"
        await fleet.settled()


async def test_workers_go_by_the_profiles_too(redis_server: Any, redis_store: Any, tmp_path: Path) -> None:
    """The record reaches them as it was written."""
    sites = site_of("fast", measured(1.0)), site_of("slow", measured(10.0))
    options = 'policy = "heron"\nslo_factor = 5.0\n'
    async with (
        router_process(redis_server, redis_store, tmp_path, *sites, workers=2, options=options) as router,
        httpx.AsyncClient(base_url=router.url, timeout=30) as client,
    ):

        async def all_go_there() -> bool:
            async with httpx.AsyncClient(base_url=router.url, timeout=30) as other:  # of either worker
                return set(await spread(client)) | set(await spread(other)) == {"fast"}

        await until_it_says(all_go_there, what="all requests go to the fast one", seconds=30)


def wrong(**changes: Any) -> dict[str, Any]:
    return measured(1.0) | changes


@pytest.mark.parametrize(
    "profiles",
    [
        [wrong(rows=[])],
        [wrong(prefill_tokens_per_second=0.0)],
        [wrong(idle_watts=float("1e300"))],
        [wrong(), wrong()],
        [wrong(rows=[measured(1.0)["rows"][0]] * 4000)],
        [wrong(profile_id=f"p{number}") for number in range(60)],
        [wrong(gpu_model="x" * 300_000)],
        "mine.json",
        [["deep"] * 100],
    ],
    ids=["no-rows", "endless", "watts", "twice", "rows", "many", "huge", "text", "lists"],
)
async def test_a_hostile_profile_is_refused_and_the_last_good_record_stays(store: Any, profiles: Any) -> None:
    """Counted and told of; the site serves on by what it said before."""
    sites = {"fast": measured(1.0), "slow": measured(10.0)}
    options: dict[str, Any] = {"policy": "heron", "slo_factor": 5.0}
    async with router_fleet(
        store, *sites, make_site=lambda name: site_of(name, sites[name]), **options
    ) as fleet:
        slow = fleet.site("slow")
        slow.info_fields |= {"profiles": profiles}
        await fleet.announce()
        await store.publish_site_info("slow", slow.info())
        refused = fleet.router.metrics.records_refused
        await until(lambda: any(kind == "SiteInfo" for kind, _ in refused), what="it was refused")
        assert {reason for kind, reason in refused if kind == "SiteInfo"} <= {"malformed", "too_large"}
        assert any(event["kind"] == "record_refused" for event in fleet.router.events.recent())
        assert set(await spread(fleet.client)) == {"fast"}
        await fleet.settled()


class MeasuredSite(PlannedSite):
    """That runs a profile which nobody ships, at two clocks."""

    def info(self) -> bytes:
        """With the profile."""
        values = orjson.loads(super().info())
        known = {"model": "m", "tensor_parallel_degree": 4, "profile_id": MINE, "max_concurrency": 64}
        clocks = (800, 1980)
        values["configurations"] = [known | {"gpu_clock_mhz": clock} for clock in clocks]
        values["profiles"] = [measured(2.0, clocks_mhz=clocks)]
        return orjson.dumps(values)


async def test_a_site_that_tells_of_its_profile_is_planned_for(
    redis_server: Any, redis_store: Any, tmp_path: Path
) -> None:
    """By the solver in its own process, beside one with a shipped profile; a nameless one is left out."""
    sites = PlannedSite("a"), MeasuredSite("b"), site_of("c", None)
    for site in sites:
        site.headroom = 1000
    options = 'policy = "planned"\n' + FAST
    async with (
        wind(redis_store, a=9000.0, b=9000.0, c=9000.0),
        router_process(redis_server, redis_store, tmp_path, *sites, workers=2, options=options) as router,
        httpx.AsyncClient(base_url=router.url, timeout=30) as client,
    ):
        plans: list[Plan] = []

        async def is_of_all() -> bool:
            plans.append(await until_plan(redis_store))  # the first may be made before all are known
            unplanned = await value(router, "heron_router_planner_unplanned_sites")
            return plans[-1].weights["m"]["SS"].keys() == {"a", "b"} and unplanned == 1

        await until_it_says(is_of_all, what="a plan for a and b", seconds=40)
        shares = plans[-1].weights["m"]["SS"]
        assert shares["b"] < shares["a"], "it takes twice as long"
        known = [await value(router, f'heron_router_site_profile_known{{site="{name}"}}') for name in "abc"]
        assert known == [1, 1, 0]

        async def follows() -> bool:
            return set(await spread(client)) == {"a", "b"}

        await until_it_says(follows, what="requests go to both", seconds=20)
