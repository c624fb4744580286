"""Quotas of one key over several routers, and over the workers of one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
from support.router_fleet import RouterFleet, bearer, chat, put_key, router_fleet
from support.router_process import router_process
from support.stub_site import Behaviour, StubSite
from support.wait import until, until_it_says

from fleet.memory_store import MemoryStore

KEY = "hk-" + "k" * 43
BODY = orjson.dumps(chat())


async def ask(fleet: RouterFleet) -> httpx.Response:
    return await fleet.post(chat(), headers=bearer(KEY))


async def spend(fleet: RouterFleet) -> int:
    """All that a key has there; how many came in."""
    count = 0
    while (await ask(fleet)).status_code == 200:
        count += 1
    return count


async def test_what_was_spent_at_one_router_is_gone_at_the_other(store: Any):
    """Within a second; each tells its clients what is left in the fleet."""
    await put_key(store, KEY, requests_per_minute=40)
    async with (
        router_fleet(store, "a", auth="keys") as one,
        router_fleet(store, "b", auth="keys", seed=2) as two,
    ):
        assert (await ask(two)).status_code == 200
        assert 39 <= await spend(one) <= 42

        async def is_known() -> bool:
            await asyncio.sleep(0.3)  # a minute has 40: so asking does not use what comes back
            return int((await ask(two)).headers["x-ratelimit-remaining-requests"]) < 3

        await until_it_says(is_known, seconds=10, what="the other router knows")
        assert await spend(two) <= 3
        await one.settled()
        await two.settled()


async def test_requests_at_once_are_counted_over_both(store: Any):
    """One that is under way at one router leaves no room at the other, until it is over."""
    await put_key(store, KEY, concurrent_requests=1)
    async with router_fleet(store, "a", auth="keys") as one, router_fleet(store, auth="keys", seed=2) as two:
        gate = asyncio.Event()
        one.site("a").script.append(Behaviour(gate=gate))
        running = asyncio.create_task(ask(one))
        await until(lambda: one.totals["in_flight"] == 1, what="it is under way")

        async def is_refused() -> bool:
            return (await ask(two)).status_code == 429

        async def is_admitted() -> bool:
            return (await ask(two)).status_code == 200

        await until_it_says(is_refused, seconds=10, what="no room at the other")
        gate.set()
        assert (await running).status_code == 200
        await until_it_says(is_admitted, seconds=10, what="room again")


async def test_without_redis_each_goes_on_by_itself_and_nothing_is_counted_twice():
    """What was spent meanwhile is told when it answers again."""
    store = MemoryStore()
    await put_key(store, KEY, requests_per_minute=30)
    async with (
        router_fleet(store, "a", auth="keys") as one,
        router_fleet(store, "b", auth="keys", seed=2) as two,
    ):
        store.is_down = True
        assert 30 <= await spend(one) <= 32
        assert (await ask(two)).status_code == 200
        store.is_down = False

        async def is_known() -> bool:
            await asyncio.sleep(0.5)
            return int((await ask(two)).headers["x-ratelimit-remaining-requests"]) < 3

        await until_it_says(is_known, seconds=15, what="the other router knows")
        assert two.router.ring is not None
        (credential,) = two.router.ring.credentials()
        assert credential.quota.requests is not None
        assert credential.quota.requests.level > -20, "a debt of what both let in, not of more"


async def test_workers_of_one_router_share(redis_server: Any, redis_store: Any, tmp_path: Path):
    """A connection to another worker finds nothing left."""
    site = StubSite("a")
    site.headroom = 1000
    await put_key(redis_store, KEY, requests_per_minute=20)
    async with router_process(
        redis_server, redis_store, tmp_path, site, workers=3, options='auth = "keys"'
    ) as router:

        async def statuses(requests: int) -> list[int]:
            async with httpx.AsyncClient(base_url=router.url, timeout=30, headers=bearer(KEY)) as client:
                return [
                    (await client.post("/v1/chat/completions", content=BODY)).status_code
                    for _ in range(requests)
                ]

        first = await statuses(30)
        assert 20 <= first.count(200) <= 22
        await asyncio.sleep(1.5)
        others = await asyncio.gather(*(statuses(2) for _ in range(12)))
        let_in = sum(part.count(200) for part in others)
        assert let_in <= 3, "what has come back meanwhile, and no worker's own twenty"
