"""An operator takes a site out of service: no new work goes there, what runs there goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
from support.router_fleet import RouterFleet, chat, router_fleet
from support.router_process import RouterProcess, router_process
from support.stub_site import Behaviour, StubSite
from support.wait import until, until_it_says

from fleet.records import Cordon

RECORD = Cordon(reason="new fans", since_unix_seconds=1.8e9).to_json()
LIFTED = Cordon(since_unix_seconds=1.8e9, lifted_at_unix_seconds=1.9e9).to_json()


def is_cordoned(fleet: RouterFleet, site_id: str) -> bool:
    site = fleet.router.view.snapshot.sites.get(site_id)
    return site is not None and site.cordon is not None


async def cordon(fleet: RouterFleet, site_id: str, seconds: float | None = None) -> None:
    until_unix = None if seconds is None else time.time() + seconds
    record = Cordon(reason="new fans", since_unix_seconds=1.8e9, until_unix_seconds=until_unix)
    await fleet.store.write_cordon(site_id, record.to_json(), seconds)
    await until(lambda: is_cordoned(fleet, site_id), what="the router has read it")


async def test_new_work_goes_elsewhere_and_what_runs_goes_on(store: Any) -> None:
    """And comes back when the cordon is lifted."""
    async with router_fleet(store, "a", "b") as fleet:
        gate = asyncio.Event()
        for site in fleet.sites:
            site.default = Behaviour(gate=gate)
        under_way = [asyncio.create_task(fleet.stream(chat(stream=True))) for _ in range(8)]
        await until(lambda: all(site.running for site in fleet.sites), what="both work")
        await cordon(fleet, "a")
        before = len(fleet.site("a").inference)
        gate.set()
        for _ in range(10):
            assert (await fleet.post(chat())).status_code == 200
        assert {status for status, _ in await asyncio.gather(*under_way)} == {200}
        assert len(fleet.site("a").inference) == before
        events = [event["text"] for event in fleet.router.events.recent()]
        assert "a is cordoned: it gets no new work (new fans)" in events
        await store.write_cordon("a", LIFTED, None)
        await until(lambda: not is_cordoned(fleet, "a"), what="the router has read it")
        for _ in range(20):
            await fleet.post(chat())
        assert len(fleet.site("a").inference) > before
        await fleet.settled(completed=38)


async def test_it_ends_by_itself(store: Any) -> None:
    """After its time."""
    async with router_fleet(store, "a") as fleet:
        await cordon(fleet, "a", 1.0)
        await until(lambda: not is_cordoned(fleet, "a"), what="over")
        assert (await fleet.post(chat())).status_code == 200


async def test_a_redis_that_loses_everything_does_not_lose_it(redis_server: Any, redis_store: Any) -> None:
    """The router writes it anew, for as long as was left of it; what the operator says next counts."""
    async with router_fleet(redis_store, "a", "b") as fleet:
        await cordon(fleet, "a")
        await cordon(fleet, "b", 3600.0)
        redis_server.client().flushall()
        await fleet.announce()
        said = {
            f"Redis had lost the cordon of {site}: it holds, and was written there again" for site in "ab"
        }
        await until(
            lambda: said <= {event["text"] for event in fleet.router.events.recent()}, what="both are told of"
        )
        assert await redis_store.cordons(["a"]) == [RECORD]
        assert is_cordoned(fleet, "a")
        assert is_cordoned(fleet, "b")
        assert 3500 < redis_server.client().ttl("heron:default:cordon:b") <= 3600
        await redis_store.write_cordon("a", LIFTED, None)
        await until(lambda: not is_cordoned(fleet, "a"), what="the router has read it")
        assert (await fleet.post(chat())).status_code == 200


async def test_where_every_site_is_cordoned_requests_wait_and_are_told_to_come_back(store: Any) -> None:
    """As where there is no room."""
    async with router_fleet(store, "a", hold_seconds=0.2) as fleet:
        await cordon(fleet, "a")
        refused = await fleet.post(chat())
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert fleet.site("a").inference == []


async def test_a_site_that_comes_back_is_cordoned_from_the_first(store: Any) -> None:
    """A router that has forgotten the site has not forgotten the operator's word."""
    async with router_fleet(store, "a", "b") as fleet:
        await cordon(fleet, "a")
        fleet.router.view.forget("a")
        assert not is_cordoned(fleet, "a")
        fleet.router.view.take_report(fleet.site("a").report(), "event")
        assert is_cordoned(fleet, "a")


async def test_a_record_that_makes_no_sense_is_counted_and_passed_over(store: Any) -> None:
    """What was before holds."""
    async with router_fleet(store, "a") as fleet:
        await store.write_cordon("a", b"nonsense", None)
        refused = fleet.router.metrics.records_refused
        await until(lambda: refused.get(("Cordon", "malformed")), what="it was read")
        assert not is_cordoned(fleet, "a")
        await store.write_cordon("a", RECORD, None)
        await until(lambda: is_cordoned(fleet, "a"), what="the good one")
        await store.write_cordon("a", b"x" * 300_000, None)
        await until(lambda: refused.get(("Cordon", "too_large")), what="it was read")
        assert is_cordoned(fleet, "a")
        assert refused == {("Cordon", "malformed"): 1, ("Cordon", "too_large"): 1}


async def test_junk_in_its_place_makes_a_cordon_last_no_longer(store: Any) -> None:
    """It is over when it said, whatever stands under its key by then."""
    async with router_fleet(store, "a") as fleet:
        now = time.time()
        ending = Cordon(since_unix_seconds=now, until_unix_seconds=now + 3)
        await store.write_cordon("a", ending.to_json(), None)
        await until(lambda: is_cordoned(fleet, "a"), what="cordoned")
        await store.write_cordon("a", b"nonsense", None)
        await until(lambda: not is_cordoned(fleet, "a"), what="over")
        assert time.time() >= now + 3


async def ask(router: RouterProcess, requests: int) -> None:
    """So many requests, each over a connection of its own, so that every worker gets some."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=router.url, timeout=30, limits=limits) as client:
        for _ in range(requests):
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def until_none_goes_to(site: StubSite, router: RouterProcess) -> None:
    """Ask in rounds until one has left it out."""
    deadline = time.monotonic() + 20
    while True:
        before = len(site.inference)
        await ask(router, 20)
        if len(site.inference) == before:
            return
        assert time.monotonic() < deadline, "it still gets work"


async def test_workers_and_the_console_know(redis_server: Any, redis_store: Any, tmp_path: Path) -> None:
    """All of them, those too that were started since."""
    sites = StubSite("a"), StubSite("b")
    async with router_process(redis_server, redis_store, tmp_path, *sites, workers=2) as router:
        await redis_store.write_cordon("a", RECORD, None)
        await until_none_goes_to(sites[0], router)
        [cordoned] = [site for site in (await router.fleet())["sites"] if site["cordon"]]
        assert (cordoned["site_id"], cordoned["cordon"]["reason"]) == ("a", "new fans")
        assert (await router.metrics())['heron_router_site_cordoned{site="a"}'] == 1
        [victim, *_] = [worker["pid"] for worker in await router.workers()]
        os.kill(victim, signal.SIGKILL)

        async def is_gone() -> bool:
            return victim not in [worker["pid"] for worker in await router.workers()]

        await until_it_says(is_gone, what="another worker in its place")
        await router.until_ready(2)
        before = len(sites[0].inference)
        await ask(router, 20)
        assert len(sites[0].inference) == before
