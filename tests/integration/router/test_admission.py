"""Who is served when there is no room for all: tiers, tenants, surplus, deadlines, after a dark spell."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import orjson
import pytest
from support.router_fleet import RouterFleet, bearer, chat, put_key, router_fleet
from support.stub_site import Behaviour, StubSite
from support.wait import until, until_it_says

from fleet.records import ForecastPoint, PowerReading
from router.live.ledger import Ledger, LedgerEntry

TIERS = ("priority", "default", "flex")


def code_of(response: httpx.Response) -> str:
    code: str = orjson.loads(response.content)["error"]["code"]
    return code


async def report(fleet: RouterFleet, headroom: int | None, **model: Any) -> None:
    """Every site reports this, and the router has seen it."""
    for site in fleet.sites:
        site.headroom = headroom
        site.model_fields = model
    await fleet.announce()


async def ask(fleet: RouterFleet, count: int, **options: Any) -> list[asyncio.Task[httpx.Response]]:
    """Requests that wait, each after the one before it; their `user` is their number."""
    headers = options.pop("headers", None)
    before = fleet.router.dispatcher.held
    asking = []
    for number in range(count):
        body = chat(user=f"{options.get('service_tier', 'default')}-{number}", **options)
        asking.append(asyncio.create_task(fleet.post(body, headers=headers)))
        await until(lambda: fleet.router.dispatcher.held > before + number, what="it waits")  # noqa: B023
    return asking


def users(site: StubSite) -> list[str]:
    """Who was served there, in order."""
    return [one.fields["user"] for one in site.inference]


# tiers and tenants
async def test_priority_goes_first_and_default_does_not_starve(store: Any):
    """Four to one while both wait; one place at a time, so that the order shows."""
    async with router_fleet(store, "a", resume_reserve_ratio=0) as fleet:
        await report(fleet, 0)
        asking = await ask(fleet, 2) + await ask(fleet, 6, service_tier="priority")
        await report(fleet, 1)
        assert {(await one).status_code for one in asking} == {200}
        order = [user.split("-")[0] for user in users(fleet.site("a"))]
        assert order == ["priority"] * 4 + ["default"] + ["priority"] * 2 + ["default"]
        await fleet.settled(completed=8)


async def test_one_tenant_s_many_do_not_delay_another_s_one(store: Any):
    """Two tenants, two keys; the modest one is second at the latest."""
    await put_key(store, "hk-greedy", tenant="greedy")
    await put_key(store, "hk-modest", tenant="modest")
    async with router_fleet(store, "a", auth="keys", resume_reserve_ratio=0) as fleet:
        await report(fleet, 0)
        asking = await ask(fleet, 30, headers=bearer("hk-greedy"))
        asking += await ask(fleet, 1, headers=bearer("hk-modest"), n=1)
        await report(fleet, 1)
        assert {(await one).status_code for one in asking} == {200}
        assert "n" in fleet.site("a").inference[0].fields or "n" in fleet.site("a").inference[1].fields
        await fleet.settled(completed=31)


async def test_in_a_full_queue_the_largest_tenant_gives_way(store: Any):
    """Its newest request is told so; the other one's waits and is served."""
    await put_key(store, "hk-greedy", tenant="greedy")
    await put_key(store, "hk-modest", tenant="modest")
    async with router_fleet(store, "a", auth="keys", hold_requests=3) as fleet:
        await report(fleet, 0)
        greedy = await ask(fleet, 3, headers=bearer("hk-greedy"))
        modest = asyncio.create_task(fleet.post(chat(), headers=bearer("hk-modest")))
        refused = await greedy[2]
        assert (refused.status_code, code_of(refused)) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        late = await fleet.post(chat(), headers=bearer("hk-greedy"))
        assert (late.status_code, code_of(late)) == (503, "queue_full")
        await report(fleet, 40)
        assert {(await one).status_code for one in (*greedy[:2], modest)} == {200}
        await fleet.settled(completed=3, shed=2)


async def test_where_the_bodies_that_wait_take_too_much_memory_the_largest_tenant_gives_way(store: Any):
    """In any tier: its newest request is told so; the other one's waits and is served."""
    await put_key(store, "hk-greedy", tenant="greedy")
    await put_key(store, "hk-modest", tenant="modest", tiers=("priority",))
    async with router_fleet(store, "a", auth="keys") as fleet:
        fleet.router.dispatcher._queue._max_bytes = 1000
        await report(fleet, 0)
        large = [{"role": "user", "content": "x" * 300}]
        greedy = await ask(fleet, 2, headers=bearer("hk-greedy"), messages=large)
        late = await fleet.post(chat(messages=large), headers=bearer("hk-greedy"))
        assert (late.status_code, code_of(late)) == (503, "queue_full")
        modest = asyncio.create_task(
            fleet.post(chat(service_tier="priority", user="x" * 100), headers=bearer("hk-modest"))
        )
        refused = await greedy[1]
        assert (refused.status_code, code_of(refused)) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        await report(fleet, 40)
        assert {(await one).status_code for one in (greedy[0], modest)} == {200}
        await fleet.settled(completed=2, shed=2)


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_request_that_is_over_keeps_no_body(
    store: Any, monkeypatch: pytest.MonkeyPatch, is_refused: bool
):
    """What lives a little longer, for a trace or a collector, would hold more than what may wait."""
    over: list[Any] = []
    close = Ledger.close

    def noted(ledger: Ledger, entry: LedgerEntry) -> None:
        close(ledger, entry)
        over.append(entry)

    monkeypatch.setattr(Ledger, "close", noted)
    async with router_fleet(store, "a", hold_requests=0) as fleet:
        await report(fleet, 0 if is_refused else 40)
        assert (await fleet.post(chat())).status_code == (503 if is_refused else 200)
        assert [(one.request.body, one.body.raw) for one in over] == [(b"", b"")]


async def test_each_tier_s_queue_has_its_own_bound(store: Any):
    """A flood of flex leaves room for the others."""
    async with router_fleet(store, "a", hold_requests=1) as fleet:
        await report(fleet, 0)
        asking = [one for tier in TIERS for one in await ask(fleet, 1, service_tier=tier)]
        assert fleet.router.dispatcher.held_by_tier == dict.fromkeys(TIERS, 1)
        for tier in TIERS:
            assert code_of(await fleet.post(chat(service_tier=tier))) == "queue_full"
        await report(fleet, 40)
        assert {(await one).status_code for one in asking} == {200}
        await fleet.settled(completed=3, shed=3)


# flex
async def test_flex_waits_for_surplus_that_others_need_not(store: Any):
    """At 12 of 40 free a default request runs, flex does not; at 40 it does."""
    async with router_fleet(store, "a") as fleet:
        await report(fleet, 12)
        (flex,) = await ask(fleet, 1, service_tier="flex")
        assert (await fleet.post(chat(user="other"))).status_code == 200
        assert fleet.router.dispatcher.held_by_tier["flex"] == 1
        await report(fleet, 40)
        assert (await flex).status_code == 200
        assert users(fleet.site("a")) == ["other", "flex-0"]
        await fleet.settled(completed=2)


async def test_flex_is_released_at_a_pace(store: Any):
    """One now; the others wait although there is room for all."""
    async with router_fleet(store, "a", flex_requests_per_second=0.01) as fleet:
        assert (await fleet.post(chat(service_tier="flex"))).status_code == 200
        asking = await ask(fleet, 2, service_tier="flex")
        await fleet.announce()
        assert (await fleet.post(chat())).status_code == 200
        assert fleet.router.dispatcher.held_by_tier["flex"] == 2
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await fleet.settled(completed=2, client_cancelled=2)


async def test_flex_without_surplus_in_time_is_told_so(store: Any):
    """After its own time to live, not after that of the others."""
    async with router_fleet(store, "a", hold_seconds=30, flex_hold_seconds=0.2) as fleet:
        await report(fleet, 2)
        response = await fleet.post(chat(service_tier="flex"))
        assert (response.status_code, code_of(response)) == (503, "no_surplus")
        assert int(response.headers["retry-after"]) >= 1
        await fleet.settled(shed=1)


# deadlines
@pytest.mark.parametrize(
    ("options", "headers"),
    [({}, {"x-heron-deadline-seconds": "1"}), ({"slo": {"SS": {"ttft_seconds": 1.0}}}, {})],
    ids=["client", "class"],
)
async def test_what_cannot_be_in_time_is_refused_at_once(
    store: Any, options: dict[str, Any], headers: dict[str, str]
):
    """The site's own figures say that the first token would come too late; it hears nothing of it."""
    async with router_fleet(store, "a", **options) as fleet:
        await report(fleet, 40, ttft_seconds_p50=5.0)
        response = await fleet.post(chat(), headers=headers)
        assert (response.status_code, code_of(response)) == (503, "deadline_unreachable")
        assert int(response.headers["retry-after"]) >= 1
        assert not fleet.site("a").inference
        await report(fleet, 40)
        assert (await fleet.post(chat(), headers=headers)).status_code == 200, "unknown is no reason"
        await fleet.settled(shed=1, completed=1)


async def test_a_class_s_time_for_the_whole_answer_counts_its_tokens(store: Any):
    """30 tokens at half a second each are not done in ten."""
    async with router_fleet(store, "a", slo={"SS": {"e2e_seconds": 10.0}}) as fleet:
        await report(fleet, 40, ttft_seconds_p50=0.1, itl_seconds_p50=0.5)
        assert code_of(await fleet.post(chat(max_tokens=30))) == "deadline_unreachable"
        assert (await fleet.post(chat(max_tokens=10))).status_code == 200
        await fleet.settled(shed=1, completed=1)


async def test_a_queue_that_is_too_long_for_a_deadline_is_not_joined(store: Any):
    """One place, three seconds a request: whoever has one second is told now."""
    async with router_fleet(store, "a") as fleet:
        await report(fleet, 0, max_concurrency=1, ttft_seconds_p50=0.1, itl_seconds_p50=0.1)
        response = await fleet.post(chat(), headers={"x-heron-deadline-seconds": "1"})
        assert (response.status_code, code_of(response)) == (503, "deadline_unreachable")
        (patient,) = await ask(fleet, 1, headers={"x-heron-deadline-seconds": "20"})
        await report(fleet, 40)
        assert (await patient).status_code == 200
        await fleet.settled(shed=1, completed=1)


def known_site(site_id: str) -> StubSite:
    """One that says how fast it is: a 70B instance."""
    site = StubSite(site_id)
    site.headroom = 200
    kind = {"tensor_parallel_degree": 4, "gpu_clock_mhz": 1980}
    site.model_fields = {
        "max_concurrency": 256,
        "running_requests": 0,
        "instances": [{"instance_id": "i", "state": "ready", **kind}],
    }
    known = {"model": site.model, "profile_id": "llama-3.1-70b/h100/tp4", "start_seconds": 60.0, **kind}
    site.info_fields = {"configurations": [known]}
    return site


async def test_where_more_comes_than_can_be_in_time_only_as_many_go_there_as_can(store: Any):
    """Though the site has room for all: some wait a little, some are refused, and later there is time again.
    A class without an SLO knows no such limit."""
    promised = {"MS": {"ttft_seconds": 0.5, "e2e_seconds": 5.0}}
    long = [{"role": "user", "content": "wind " * 1200}]
    async with router_fleet(store, "a", make_site=known_site, policy="heron", slo=promised) as fleet:
        burst = await asyncio.gather(*(fleet.post(chat(max_tokens=10, messages=long)) for _ in range(60)))
        codes = Counter(one.status_code for one in burst)
        assert set(codes) == {200, 503}
        assert len(fleet.site("a").inference) == codes[200] >= 2
        assert {code_of(one) for one in burst if one.status_code == 503} == {"deadline_unreachable"}
        assert fleet.router.dispatcher.held == 0
        await fleet.announce()
        others = await asyncio.gather(*(fleet.post(chat(max_tokens=10)) for _ in range(60)))
        assert {one.status_code for one in others} == {200}, "SS is promised nothing"

        async def is_served() -> bool:
            return (await fleet.post(chat(max_tokens=10, messages=long))).status_code == 200

        await until_it_says(is_served, what="time for it again")


async def test_a_client_that_leaves_while_its_request_is_patient_leaves_nothing(store: Any):
    """Neither in the line nor in a count; and the site never hears of it."""
    promised = {"MS": {"ttft_seconds": 30.0, "e2e_seconds": 60.0}}
    long = [{"role": "user", "content": "wind " * 1200}]
    slow = {"heron": {"burst_seconds": 0.01, "utilisation": 0.01}}
    options: dict[str, Any] = {"policy": "heron", "slo": promised, "policy_parameters": slow}
    async with router_fleet(store, "a", make_site=known_site, **options) as fleet:
        assert (await fleet.post(chat(max_tokens=10, messages=long))).status_code == 200
        asking = await ask(fleet, 3, max_tokens=10, messages=long)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: fleet.router.dispatcher.held == 0, what="nobody waits")
        await fleet.settled(completed=1, client_cancelled=3)
        assert len(fleet.site("a").inference) == 1


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(store: Any):
    """Long before the time to live."""
    async with router_fleet(store, "a", hold_seconds=60) as fleet:
        await fleet.set_state("a", "dark")
        response = await fleet.post(chat(), headers={"x-heron-deadline-seconds": "0.3"})
        assert (response.status_code, code_of(response)) == (503, "deadline_unreachable")
        await fleet.settled(shed=1)


# the end of a dark spell
def power(site: StubSite, back_in_seconds: float) -> PowerReading:
    """No power now, enough of it soon."""
    return PowerReading(
        schema_version="1.0",
        sequence=time.time_ns() // 1_000_000,
        feed_id=f"feed-{site.site_id}",
        site_id=site.site_id,
        farm_id="farm",
        observed_at_unix_seconds=time.time(),
        period_seconds=1.0,
        available_power_watts=0.0,
        granted_power_watts=0.0,
        nameplate_capacity_watts=1000.0,
        quality="good",
        source="test",
        forecast=(
            ForecastPoint(horizon_seconds=back_in_seconds, p10_watts=900.0, p50_watts=900.0, p90_watts=900.0),
        ),
    )


class Client:
    """Retries as OpenAI's client does: as often as it takes, when Retry-After says."""

    def __init__(self, fleet: RouterFleet) -> None:
        self._fleet = fleet
        self.retries = 0

    async def ask(self, number: int) -> int:
        tier = TIERS[number % 2]
        while True:
            response = await self._fleet.post(chat(user=str(number), service_tier=tier))
            if response.status_code != 503:
                return response.status_code
            assert code_of(response) in ("no_power", "no_capacity", "queue_full")
            self.retries += 1
            await asyncio.sleep(float(response.headers["retry-after"]) / 2)


async def test_when_a_dark_fleet_comes_back_held_work_is_released_within_its_room(store: Any):
    """Forty places, 200 requests held or retrying: no site gets more than it reported, all are served."""
    options: dict[str, Any] = {"hold_seconds": 0.5, "hold_requests": 50, "resume_reserve_ratio": 0}
    async with router_fleet(store, *"abc", **options) as fleet:
        for site, limit in zip(fleet.sites, (8, 12, 20), strict=True):
            site.limit = limit
            site.model_fields = {"prefill_tokens_per_second": 3000.0}
            site.default = Behaviour(delay_seconds=0.02)
            site.state = "dark"
            await store.publish_power_reading(site.site_id, power(site, 1.0).to_json(), log=False)
        await fleet.announce()
        await until(
            lambda: all(fleet.router.view.records(s.site_id).power for s in fleet.sites), what="power"
        )
        client = Client(fleet)
        asking = [asyncio.create_task(client.ask(number)) for number in range(200)]
        await until(lambda: client.retries > 50, what="clients retry")
        assert not any(site.inference for site in fleet.sites)
        for site in fleet.sites:
            site.state = "serving"

        async def go_on_reporting() -> None:
            while True:
                await fleet.announce()
                await asyncio.sleep(0.05)

        reporting = asyncio.create_task(go_on_reporting())
        try:
            async with asyncio.timeout(60):
                assert set(await asyncio.gather(*asking)) == {200}
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        # 1 %: a machine that stands still for a second while requests are on their way is no storm
        assert sum(site.pushed_back for site in fleet.sites) <= 2
        assert all(0 < site.most_running <= (site.limit or 0) for site in fleet.sites)
        served = [one.fields["user"] for site in fleet.sites for one in site.inference]
        assert sorted(map(int, served)) == list(range(200))
        totals = await fleet.settled()
        assert totals["completed"] == 200
        assert totals["shed"] == client.retries
