"""Another policy while the router runs, on its operations port, with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.router_fleet import chat, router_fleet
from support.router_process import RouterProcess, router_process
from support.stub_site import StubSite
from support.wait import until_it_says

from router.live.operations import MAX_ORDER_BYTES

PAGE = "/heron/v1/policy"


async def switch(router: RouterProcess, **body: Any) -> dict[str, Any]:
    response = await router.operations.put(PAGE, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def end_a_worker(router: RouterProcess, workers: int) -> None:
    """Kill one, and wait until another has taken its place."""
    ended = (await router.workers())[0]["pid"]
    os.kill(ended, signal.SIGKILL)

    async def is_replaced() -> bool:
        now = await router.workers()
        return now[0]["pid"] not in (None, ended) and sum(one["is_ready"] for one in now) == workers

    await until_it_says(is_replaced, what="a new worker serves", seconds=30)


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_switch_reaches_every_worker_and_everybody_who_asks(
    redis_server: Any, redis_store: Any, tmp_path: Path, workers: int
):
    """A worker that is started again afterwards follows it too; presence, metrics and events say which."""
    async with router_process(redis_server, redis_store, tmp_path, StubSite("a"), workers=workers) as router:
        before = (await router.operations.get(PAGE)).json()
        assert "least_loaded" in before["policies"]
        page = await switch(router, policy="power_weighted", parameters={"age_seconds": 900})
        assert page["policy"] == "power_weighted"
        assert page["parameters"] == {"age_seconds": 900.0}
        if workers > 1:
            assert page["workers"] == {"following": workers, "configured": workers}
            await end_a_worker(router, workers)
            assert (await router.operations.get(PAGE)).json()["workers"]["following"] == workers
        metrics = await router.metrics()
        assert metrics['heron_router_policy_info{policy="power_weighted"}'] == 1
        assert metrics["heron_router_policy_switches_total"] == 1
        fleet = await router.fleet()
        assert fleet["router"]["policy"] == "power_weighted"
        assert any(event["kind"] == "policy" for event in fleet["events"])
        key = f"heron:default:router:{fleet['router']['router_id']}"

        async def is_said() -> bool:
            presence = orjson.loads(redis_server.client().get(key))
            return presence["policy"] == "power_weighted"

        await until_it_says(is_said, what="presence names it", seconds=10)


async def test_a_page_in_a_browser_may_not_switch_and_nobody_with_a_huge_order(
    redis_server: Any, redis_store: Any, tmp_path: Path
):
    """Also one that came by the router's own name (DNS rebinding): a browser says where a PUT is from."""
    async with router_process(redis_server, redis_store, tmp_path, StubSite("a"), workers=1) as router:
        before = (await router.operations.get(PAGE)).json()["policy"]
        origin = {"origin": str(router.operations.base_url).rstrip("/")}
        page = await router.operations.put(PAGE, json={"policy": "round_robin"}, headers=origin)
        assert page.status_code == 403
        assert "browsers" in page.json()["error"]
        huge = await router.operations.put(PAGE, content=b" " * (MAX_ORDER_BYTES + 1))
        assert huge.status_code == 413
        assert (await router.operations.get(PAGE)).json()["policy"] == before
        assert (await switch(router, policy="round_robin"))["policy"] == "round_robin"


async def test_traffic_follows_the_switch(store: Any):
    """Round robin takes turns; least_loaded goes where the room is; nothing is restarted between."""
    async with router_fleet(store, "a", "b", policy="round_robin", affinity=False) as fleet:
        fleet.site("a").limit, fleet.site("b").limit = 1000, 20
        await fleet.announce()

        async def shares() -> list[int]:
            before = [len(fleet.site(name).seen) for name in "ab"]
            for _ in range(20):
                assert (await fleet.client.post("/v1/chat/completions", json=chat())).status_code == 200
            return [len(fleet.site(name).seen) - count for name, count in zip("ab", before, strict=True)]

        assert await shares() == [10, 10]
        fleet.router.policy.switch(b'{"policy": "least_loaded"}')
        assert (await shares())[0] >= 17


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"policy": "magic"}', "allowed are heron, least_loaded"),
        (b'{"policy": "heron", "parameters": {"speed": 1}}', "heron.speed = 1: no such parameter; allowed"),
        (b'{"policy": "heron", "parameters": {"packing": 2}}', "less than or equal to 1"),
        (b'{"policy": "heron", "parameters": 3}', "must be an object"),
        (b'{"policy": "heron", "more": 3}', "no such key: more"),
    ],
)
async def test_a_bad_switch_changes_nothing_and_says_why(store: Any, body: bytes, says: str):
    """400, with what is allowed."""
    async with router_fleet(store, "a") as fleet:
        before = fleet.router.policy.page()
        url = f"{fleet.operations_url}{PAGE}"
        response = await fleet.client.put(url, content=body)
        assert response.status_code == 400
        assert says in response.json()["error"]
        assert fleet.router.policy.page() == before


async def test_a_switch_without_parameters_takes_the_configurations(store: Any):
    """Those of the policy that is switched to."""
    tables = {"power_weighted": {"age_seconds": 60}}
    async with router_fleet(store, "a", policy="least_loaded", policy_parameters=tables) as fleet:
        fleet.router.policy.switch(b'{"policy": "power_weighted"}')
        assert fleet.router.policy.page()["parameters"] == {"age_seconds": 60.0}
