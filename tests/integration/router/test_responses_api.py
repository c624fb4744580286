"""What refers to a response goes to where the response is; engines hold them in their own memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from support.recorded_site import RecordedSite, Reply
from support.router_fleet import RouterFleet, bearer, put_key, router_fleet
from support.wait import until

CREATE = {"model": "tiny", "input": "hi"}


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """Three sites; one of them answers no Responses API."""
    paths = {"c": ("/v1/chat/completions",)}
    async with router_fleet(
        store,
        *"abc",
        make_site=lambda name: RecordedSite(name, paths=paths.get(name, ())),
        hold_seconds=0.2,
    ) as running:
        yield running


def site(fleet: RouterFleet, site_id: str) -> RecordedSite:
    found = fleet.site(site_id)
    assert isinstance(found, RecordedSite)
    return found


async def create(fleet: RouterFleet, **more: Any) -> tuple[str, str]:
    """A new response's id, and where it is."""
    response = await fleet.post(CREATE | more, "/v1/responses")
    assert response.status_code == 200, response.text
    return response.json()["id"], response.headers["x-heron-site"]


def forget(fleet: RouterFleet, response_id: str) -> None:
    """As another router, which has not seen the answer."""
    fleet.router.forwarder.homes.homes.forget(response_id)


async def test_a_response_is_read_where_it_is(fleet: RouterFleet):
    """Only that site is asked; the query and the answer pass as they are."""
    for _ in range(6):
        response_id, home = await create(fleet)
        before = {one.site_id: len(site(fleet, one.site_id).asked) for one in fleet.sites}
        answer = await fleet.client.get(f"/v1/responses/{response_id}?starting_after=1")
        assert (answer.status_code, answer.json()["id"]) == (200, response_id)
        assert answer.headers["x-heron-site"] == home
        asked = site(fleet, home).asked[-1]
        assert (asked.method, asked.target) == ("GET", f"/v1/responses/{response_id}?starting_after=1")
        assert asked.headers["authorization"] == "Bearer site-secret"
        after = {one.site_id: len(site(fleet, one.site_id).asked) for one in fleet.sites}
        assert after == before | {home: before[home] + 1}
    await fleet.settled(completed=12)


async def test_a_response_is_cancelled_where_it_is(fleet: RouterFleet):
    """With `POST`, whose body stays here: it might be large, and be sent to every site."""
    response_id, home = await create(fleet, background=True)
    answer = await fleet.post(b"x" * 1_000_000, f"/v1/responses/{response_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.headers["x-heron-site"] == home
    assert (site(fleet, home).asked[-1].raw, "content-type" in site(fleet, home).asked[-1].headers) == (
        b"",
        False,
    )
    await fleet.settled(completed=2)


async def test_a_streamed_response_is_known_from_its_first_event(fleet: RouterFleet):
    """While the stream still runs."""
    gate = asyncio.Event()
    for one in fleet.sites:
        site(fleet, one.site_id).gate = gate
    body = orjson.dumps(CREATE | {"stream": True})
    async with fleet.client.stream("POST", "/v1/responses", content=body) as stream:
        home = stream.headers["x-heron-site"]
        [response_id] = site(fleet, home).held
        await until(lambda: len(fleet.router.forwarder.homes.homes) == 1, what="the id is known")
        answer = await fleet.client.get(f"/v1/responses/{response_id}")
        assert answer.headers["x-heron-site"] == home
        others = [one for one in fleet.sites if one.site_id != home]
        assert not any(site(fleet, one.site_id).asked for one in others)
        gate.set()
        data = b"".join([piece async for piece in stream.aiter_raw()])
    assert b"event: response.completed" in data
    await fleet.settled(completed=2)


async def test_a_streamed_reading_passes_as_a_stream(fleet: RouterFleet):
    """`?stream=true` of a response in the background."""
    response_id, home = await create(fleet, background=True)
    events = site(fleet, home).reply  # the recording of a stream
    stream = Reply(
        content_type="text/event-stream; charset=utf-8",
        body=b"event: x\ndata: {}\n\nevent: response.completed\ndata: {}\n\n",
    )
    site(fleet, home).override = lambda asked: stream if asked.method == "GET" else events(asked)
    async with fleet.client.stream("GET", f"/v1/responses/{response_id}?stream=true") as answer:
        data = b"".join([piece async for piece in answer.aiter_raw()])
    assert data == stream.body
    assert answer.headers["x-heron-site"] == home
    await fleet.settled(completed=2)


async def test_an_unknown_id_is_looked_for_everywhere(fleet: RouterFleet):
    """Another router may have given it out; a 404 from all sites is a 404; sites without that API rest."""
    response_id, home = await create(fleet)
    forget(fleet, response_id)
    answer = await fleet.client.get(f"/v1/responses/{response_id}")
    assert (answer.status_code, answer.headers["x-heron-site"]) == (200, home)
    missing = await fleet.client.get("/v1/responses/resp_nobody")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "response_id")
    assert "x-heron-site" not in missing.headers
    assert all(site(fleet, name).asked[-1].path == "/v1/responses/resp_nobody" for name in "ab")
    assert site(fleet, "c").asked == []
    await fleet.settled(completed=2, client_error=1)


async def test_a_site_that_cannot_say_makes_it_unknown(fleet: RouterFleet):
    """503 and not 404: the response may be there."""
    await site(fleet, "b").stop()
    answer = await fleet.client.get("/v1/responses/resp_nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "response_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    fleet.site("b").state = "dark"
    await fleet.announce(fleet.site("b"))
    assert (await fleet.client.get("/v1/responses/resp_nobody")).status_code == 404
    await fleet.settled(shed=1, client_error=1)


async def test_a_hint_that_is_wrong_is_not_the_last_word(fleet: RouterFleet):
    """The response is found where it is, and remembered there."""
    response_id, home = await create(fleet)
    other = "a" if home == "b" else "b"
    homes = fleet.router.forwarder.homes.homes
    now = asyncio.get_running_loop().time()
    homes.learn(response_id, other, now)
    answer = await fleet.client.get(f"/v1/responses/{response_id}")
    assert answer.headers["x-heron-site"] == home
    assert homes.find(response_id, now) == home
    homes.learn(response_id, other, now)
    answer = await fleet.post(CREATE | {"previous_response_id": response_id}, "/v1/responses")
    assert (answer.status_code, answer.headers["x-heron-site"]) == (200, home)


async def test_a_continued_conversation_stays_at_its_site(fleet: RouterFleet):
    """`previous_response_id` needs that site's memory."""
    response_id, home = await create(fleet)
    for _ in range(8):
        response_id, where = await create(fleet, previous_response_id=response_id)
        assert where == home
    await fleet.settled(completed=9)


async def test_a_continued_conversation_waits_for_its_site(fleet: RouterFleet):
    """While it takes nothing new: no other site is asked, and the client is told to come back."""
    response_id, home = await create(fleet)
    await fleet.set_state(home, "draining")
    answer = await fleet.post(CREATE | {"previous_response_id": response_id}, "/v1/responses")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert sum(len(site(fleet, one.site_id).asked) for one in fleet.sites) == 1


async def test_what_a_dark_site_held_is_gone(fleet: RouterFleet):
    """Its engine's memory went with its engine: 404 by those that are left."""
    response_id, home = await create(fleet)
    await fleet.set_state(home, "dark")
    answer = await fleet.post(CREATE | {"previous_response_id": response_id}, "/v1/responses")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "response_id")
    assert (await fleet.client.get(f"/v1/responses/{response_id}")).status_code == 404


async def test_a_conversation_of_another_router_is_looked_for(fleet: RouterFleet):
    """Sites that do not have it say 404 and are not at fault; 404 from all is a 404."""
    response_id, home = await create(fleet)
    for _ in range(6):
        forget(fleet, response_id)
        _, where = await create(fleet, previous_response_id=response_id)
        assert where == home
    answer = await fleet.post(CREATE | {"previous_response_id": "resp_nobody"}, "/v1/responses")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "response_id")
    assert all(entry.breaker.state == "closed" for entry in fleet.router.view.registry.entries.values())
    await fleet.settled(completed=7, client_error=1)


async def test_deleting_is_not_there(fleet: RouterFleet):
    """vLLM 0.32 has no such method."""
    answer = await fleet.client.delete("/v1/responses/resp_1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS")


async def test_a_response_is_nobody_s_without_a_key(store: Any):
    """401 before any site is asked; a preflight carries no key."""
    async with router_fleet(
        store, "a", make_site=RecordedSite, auth="keys", cors_origins=("https://a.example",)
    ) as fleet:
        answer = await fleet.client.get("/v1/responses/resp_1")
        assert answer.status_code in (401, 503)  # 503: no key was read yet
        assert site(fleet, "a").asked == []
        asked = {"origin": "https://a.example", "access-control-request-method": "GET"}
        assert (await fleet.client.options("/v1/responses/resp_1", headers=asked)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_call_counts_among_its_key_s_requests_at_once(store: Any, method: str):
    """It may ask every site; but not among those of a minute: whoever waits for a response polls it."""
    key = "hk-" + "k" * 43
    await put_key(store, key, requests_per_minute=1, concurrent_requests=1)
    async with router_fleet(store, "a", make_site=RecordedSite, auth="keys") as fleet:
        assert (await fleet.post(CREATE, "/v1/responses", headers=bearer(key))).status_code == 200
        path = "/v1/responses/resp_unknown" + ("/cancel" if method == "POST" else "")
        for _ in range(3):
            assert (await fleet.client.request(method, path, headers=bearer(key))).status_code == 404
        assert fleet.router.ring is not None
        (credential,) = fleet.router.ring.credentials()
        assert credential.quota.in_flight == 0
        credential.quota.in_flight = 1
        asked = len(site(fleet, "a").asked)
        refused = await fleet.client.request(method, path, headers=bearer(key))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert len(site(fleet, "a").asked) == asked
        credential.quota.in_flight = 0
        await fleet.settled()


async def test_a_response_is_not_found_for_another_tenant(store: Any):
    """Neither to read, nor to cancel, nor to continue; and no site is asked."""
    keys = {tenant: f"hk-{tenant[0] * 43}" for tenant in ("acme", "other")}
    for tenant, key in keys.items():
        await put_key(store, key, tenant=tenant)
    async with router_fleet(store, "a", make_site=RecordedSite, auth="keys") as fleet:
        own, foreign = (bearer(keys[tenant]) for tenant in ("acme", "other"))
        made = await fleet.post(CREATE, "/v1/responses", headers=own)
        path = f"/v1/responses/{made.json()['id']}"
        asked = len(site(fleet, "a").asked)
        assert (await fleet.client.get(path, headers=foreign)).status_code == 404
        assert (await fleet.client.post(f"{path}/cancel", headers=foreign)).status_code == 404
        more = CREATE | {"previous_response_id": made.json()["id"]}
        refused = await fleet.post(more, "/v1/responses", headers=foreign)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "previous_response_not_found")
        assert len(site(fleet, "a").asked) == asked
        assert (await fleet.client.get(path, headers=own)).status_code == 200
        assert (await fleet.post(more, "/v1/responses", headers=own)).status_code == 200


@pytest.mark.parametrize("ending", ["room", "client leaves", "time is over"])
async def test_who_waits_for_its_home_holds_nobody_up(store: Any, ending: str):
    """Its home is full: others are answered elsewhere, and however it ends nothing of it is left."""
    async with router_fleet(
        store, "a", "b", make_site=RecordedSite, hold_seconds=0.5 if ending == "time is over" else 30.0
    ) as fleet:
        response_id, home = await create(fleet)
        fleet.site(home).headroom = 0
        await fleet.announce(fleet.site(home))
        bound = CREATE | {"previous_response_id": response_id}
        asking = asyncio.create_task(fleet.post(bound, "/v1/responses"))
        await until(lambda: fleet.router.dispatcher.held == 1, what="it waits for its home")
        for _ in range(5):
            _, elsewhere = await create(fleet)
            assert elsewhere != home
        if ending == "client leaves":
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await fleet.settled(completed=6, client_cancelled=1)
        elif ending == "room":
            fleet.site(home).headroom = 10
            await fleet.announce(fleet.site(home))
            assert (await asking).headers["x-heron-site"] == home
            await fleet.settled(completed=7)
        else:
            assert (await asking).status_code == 503
            await fleet.settled(completed=6, shed=1)
