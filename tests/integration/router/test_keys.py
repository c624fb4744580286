"""Who may come in: API keys, their quotas and tiers, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import AsyncOpenAI
from support.router_fleet import TOKEN, RouterFleet, bearer, chat, put_key, router_fleet
from support.stub_site import Behaviour
from support.wait import until

from fleet.memory_store import MemoryStore

KEY = "hk-" + "k" * 43
OTHER = "hk-" + "o" * 43


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(response.content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def status(fleet: RouterFleet, key: str = KEY, **changes: Any) -> int:
    return (await fleet.post(chat(**changes), headers=bearer(key))).status_code


async def until_status(fleet: RouterFleet, wanted: int, key: str = KEY, **changes: Any) -> None:
    """Ask until the answer is that: a record takes a second to be read."""
    for _ in range(500):
        if await status(fleet, key, **changes) == wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never {wanted}")


@pytest.mark.parametrize(
    "headers", [bearer(KEY), {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}], ids=str
)
async def test_a_key_opens_the_door_and_stays_outside_the_site(store: Any, headers: dict[str, str]):
    """OpenAI's way and Anthropic's; what the site sees is the fleet's own token."""
    await put_key(store, KEY)
    async with router_fleet(store, "a", auth="keys") as fleet:
        assert (await fleet.post(chat(), headers=headers)).status_code == 200
        seen = fleet.site("a").inference[0].headers
        assert seen["authorization"] == f"Bearer {TOKEN}"
        assert KEY not in str(seen)
        await fleet.settled(completed=1)


@pytest.mark.parametrize(
    ("headers", "word"),
    [({}, "no API key"), (bearer("hk-wrong"), "not known"), ({"authorization": "Basic aGs6"}, "not known")],
    ids=["none", "unknown", "basic"],
)
async def test_without_a_good_key_it_is_401_in_openai_s_shape(store: Any, headers: dict[str, str], word: str):
    """With WWW-Authenticate; no site hears of it, and the key is not repeated."""
    await put_key(store, KEY)
    async with router_fleet(store, "a", auth="keys") as fleet:
        response = await fleet.post(chat(), headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-should-retry"] == "false"
        error = error_of(response)
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert word in error["message"]
        assert "hk-wrong" not in response.text
        assert (await fleet.post(b"{", headers=headers)).status_code == 401, "before the body is looked at"
        assert not fleet.site("a").inference
        await fleet.settled(client_error=2)


async def test_a_body_is_not_waited_for_without_a_good_key(store: Any):
    """The head says enough: 401 at once, in the shape of the path's API; a good key's body may come."""
    async with router_fleet(store, "a", auth="keys") as fleet:
        await put_key(store, KEY)
        await until_status(fleet, 200)
        answers = {}
        for key in ("hk-other", KEY):
            reader, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
            body = orjson.dumps(chat())
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:5])
            if key == KEY:
                writer.write(body[5:])
            answers[key] = await asyncio.wait_for(reader.readuntil(b"}"), 10)
            writer.close()
        assert answers[KEY].startswith(b"HTTP/1.1 200")
        assert answers["hk-other"].startswith(b"HTTP/1.1 401")
        assert b"www-authenticate: Bearer" in answers["hk-other"]
        assert answers["hk-other"].count(b"content-type") == 1
        assert b"invalid_api_key" in answers["hk-other"]


async def test_expired_and_revoked_keys_are_401_and_say_so(store: Any):
    """With what to do."""
    await put_key(store, KEY, expires_at_unix_seconds=1000.0)
    await put_key(store, OTHER, revoked_at_unix_seconds=1000.0)
    async with router_fleet(store, "a", auth="keys") as fleet:
        for key, word in ((KEY, "expired"), (OTHER, "revoked")):
            response = await fleet.post(chat(), headers=bearer(key))
            assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
            assert word in error_of(response)["message"]
        await fleet.settled(client_error=2)


async def test_a_new_key_works_and_a_revoked_one_does_not_without_a_restart(store: Any):
    """The records are read every second."""
    async with router_fleet(store, "a", auth="keys") as fleet:
        assert await status(fleet) == 401
        await put_key(store, KEY)
        await until_status(fleet, 200)
        await put_key(store, KEY, revoked_at_unix_seconds=1000.0)
        await until_status(fleet, 401)
        await fleet.settled()


async def test_keys_that_are_known_stay_while_the_store_is_away_or_empty(store: MemoryStore):
    """And a router never becomes open by itself."""
    await put_key(store, KEY)
    async with router_fleet(store, "a", auth="keys") as fleet:
        assert fleet.router.ring is not None
        store.is_down = True
        assert (await status(fleet), await status(fleet, OTHER)) == (200, 401)
        store._api_keys.clear()
        store.is_down = False
        read_at = fleet.router.ring.read_at
        await until(lambda: fleet.router.ring.read_at != read_at, what="the empty store was read")
        assert (await status(fleet), await status(fleet, OTHER)) == (200, 401)
        page = (await fleet.client.get(f"{fleet.operations_url}/metrics")).text
        assert "heron_router_api_keys_gone 1.0\n" in page, "whoever restarts this router must know"
        await put_key(store, OTHER)
        await until_status(fleet, 200, OTHER)
        assert await status(fleet) == 200
        await fleet.settled()


async def test_a_router_that_starts_without_its_store_says_so_and_lets_nobody_in(store: MemoryStore):
    """Neither 401, which clients take as final, nor an open door; not ready until it has read the keys."""
    await put_key(store, KEY)
    store.is_down = True
    async with router_fleet(store, auth="keys", announce=False) as fleet:
        response = await fleet.post(chat(), headers=bearer(KEY))
        assert (response.status_code, error_of(response)["code"]) == (503, "keys_not_read")
        assert int(response.headers["retry-after"]) >= 1
        async with httpx.AsyncClient(base_url=fleet.operations_url) as operator:
            ready = await operator.get("/readyz")
            assert (ready.status_code, "API keys" in ready.text) == (503, True)
        store.is_down = False
        await until(lambda: fleet.router.ring is not None and fleet.router.ring.read_at is not None)
        assert (await fleet.post(chat(), headers=bearer(OTHER))).status_code == 401
        await fleet.settled()


async def test_what_is_not_hot_is_closed_as_well(store: Any):
    """All but the health check, and a browser's preflight, which carries no key."""
    await put_key(store, KEY)
    async with router_fleet(store, "a", auth="keys") as fleet:
        for path in ("/v1/models", "/v1/models/m", "/openapi.json", "/nothing"):
            response = await fleet.client.get(path)
            assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        assert (await fleet.client.get("/v1/models", headers=bearer(KEY))).status_code == 200
        assert (await fleet.client.get("/v1/models", headers={"x-api-key": KEY})).status_code == 200
        assert (await fleet.client.get("/health")).status_code == 200
        assert (await fleet.client.request("OPTIONS", "/v1/models")).status_code != 401


async def test_an_open_router_takes_any_key_and_none(store: Any):
    """Clients need one for OpenAI's library; it is not looked at."""
    async with router_fleet(store, "a") as fleet:
        assert (await fleet.post(chat())).status_code == 200
        assert await status(fleet) == 200
        assert (await fleet.client.get("/v1/models")).status_code == 200


async def test_a_tier_that_the_key_may_not_ask_for_is_403(store: Any):
    """It names those that it may."""
    await put_key(store, KEY, tiers=("default", "flex"))
    async with router_fleet(store, "a", auth="keys") as fleet:
        response = await fleet.post(chat(service_tier="priority"), headers=bearer(KEY))
        error = error_of(response)
        assert (response.status_code, error["code"], error["param"]) == (
            403,
            "tier_not_allowed",
            "service_tier",
        )
        assert "default, flex" in error["message"]
        assert await status(fleet, service_tier="flex") == 200
        assert await status(fleet, service_tier="auto") == 200
        await fleet.settled(client_error=1, completed=2)


async def test_over_its_requests_a_minute_a_key_is_told_when_to_come_back(store: Any):
    """429 as OpenAI says it, with what is left on every answer; another key is not touched."""
    await put_key(store, KEY, requests_per_minute=2)
    await put_key(store, OTHER, tenant="other")
    async with router_fleet(store, "a", auth="keys") as fleet:
        first = await fleet.post(chat(), headers=bearer(KEY))
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert await status(fleet) == 200
        response = await fleet.post(chat(), headers=bearer(KEY))
        assert (response.status_code, error_of(response)["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(response.headers["retry-after"]) <= 36
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert await status(fleet, OTHER) == 200
        await fleet.settled(completed=3, shed=1)


async def test_tokens_are_settled_by_what_the_answer_says(store: Any):
    """The estimate comes back, less what was used."""
    await put_key(store, KEY, tokens_per_minute=100_000)
    async with router_fleet(store, "a", auth="keys") as fleet:
        assert fleet.router.ring is not None
        (credential,) = fleet.router.ring.credentials()
        assert credential.quota.tokens is not None
        response = await fleet.post(chat(max_tokens=30), headers=bearer(KEY))
        used = orjson.loads(response.content)["usage"]["total_tokens"]
        await fleet.settled(completed=1)
        assert credential.quota.tokens.level == pytest.approx(100_000 - used, abs=1)
        fleet.site("a").default = Behaviour(status=400)
        assert await status(fleet) == 400
        await fleet.settled()
        assert credential.quota.tokens.level > 100_000 - used - 1, "nothing was worked on"


async def test_a_request_larger_than_its_key_s_minute_is_told_that_it_never_fits(store: Any):
    """And that trying again is of no use."""
    await put_key(store, KEY, tokens_per_minute=20)
    async with router_fleet(store, "a", auth="keys") as fleet:
        response = await fleet.post(chat(), headers=bearer(KEY))
        assert response.status_code == 429
        assert (error_of(response)["type"], error_of(response)["code"]) == ("tokens", "rate_limit_exceeded")
        assert "make it smaller" in error_of(response)["message"]
        assert response.headers["x-should-retry"] == "false"
        await fleet.settled(shed=1)


async def test_so_many_requests_at_once_and_no_more(store: Any):
    """A stream that is under way counts, one that has ended does not."""
    await put_key(store, KEY, concurrent_requests=1)
    async with router_fleet(store, "a", auth="keys") as fleet:
        gate = asyncio.Event()
        fleet.site("a").script.append(Behaviour(gate=gate))
        streaming = asyncio.create_task(fleet.stream(chat(stream=True), headers=bearer(KEY)))
        await until(lambda: fleet.site("a").running == 1, what="the stream runs")
        response = await fleet.post(chat(), headers=bearer(KEY))
        assert (response.status_code, response.headers["retry-after"] in ("1", "2")) == (429, True)
        gate.set()
        await streaming
        await fleet.settled(completed=1, shed=1)
        assert await status(fleet) == 200


@pytest.mark.parametrize("limit", [{"requests_per_minute": 0}, {"concurrent_requests": 0}])
async def test_a_body_of_too_many_requests_is_not_looked_at(store: Any, limit: dict[str, int]):
    """Undoing and parsing it may take a second, in which nobody else is served: a wrong one is a 429, too."""
    await put_key(store, KEY, **limit)
    async with router_fleet(store, "a", auth="keys") as fleet:
        response = await fleet.post(b"{", headers={**bearer(KEY), "content-encoding": "gzip"})
        assert (response.status_code, error_of(response)["code"]) == (429, "rate_limit_exceeded")
        assert response.headers["x-request-id"]
        assert response.headers["x-should-retry"] == "false"
        await fleet.settled(shed=1)


async def test_what_a_request_holds_of_a_quota_comes_back_however_it_ends(store: Any):
    """One at once, and the next may come: refused for its body, its model, its tier, its tokens, or gone."""
    await put_key(store, KEY, concurrent_requests=1, tokens_per_minute=10_000, requests_per_minute=100)
    async with router_fleet(store, "a", auth="keys") as fleet:
        for body, code in (
            (b"{", 400),
            (orjson.dumps(chat(model="other")), 404),
            (orjson.dumps(chat(service_tier="priority")), 403),
            (orjson.dumps(chat(messages=[{"role": "user", "content": "x" * 100_000}])), 429),
            (orjson.dumps(chat()), 200),
        ):
            assert (await fleet.post(body, headers=bearer(KEY))).status_code == code
        fleet.site("a").script.append(Behaviour(hang=True))
        asking = asyncio.create_task(fleet.post(chat(), headers=bearer(KEY)))
        await until(lambda: fleet.site("a").running == 1, what="it runs")
        asking.cancel()
        await until(lambda: fleet.totals["in_flight"] == 0, what="its client has gone")
        response = await fleet.post(chat(), headers=bearer(KEY))
        assert response.status_code == 200
        assert response.headers["x-ratelimit-remaining-requests"] == "93"
        await fleet.settled(client_error=3, shed=1, completed=2, client_cancelled=1)


async def test_openai_s_client_raises_its_own_errors(store: Any):
    """AuthenticationError, PermissionDeniedError, RateLimitError."""
    await put_key(store, KEY, requests_per_minute=2)
    async with router_fleet(store, "a", auth="keys") as fleet:

        async def ask(key: str, **changes: Any) -> Any:
            async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0) as client:
                return await client.chat.completions.create(**chat(**changes))

        with pytest.raises(openai.AuthenticationError) as refused:
            await ask(OTHER)
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.PermissionDeniedError):
            await ask(KEY, service_tier="priority")
        await ask(KEY)
        with pytest.raises(openai.RateLimitError) as limited:
            await ask(KEY)
        assert limited.value.code == "rate_limit_exceeded"
        await fleet.settled()


async def test_operators_see_keys_and_refusals(store: MemoryStore):
    """How many keys, how old the list is, and why requests were refused; never a key or a tenant."""
    await put_key(store, KEY)
    async with router_fleet(store, "a", auth="keys") as fleet:
        assert (await status(fleet), await status(fleet, OTHER)) == (200, 401)
        async with httpx.AsyncClient(base_url=fleet.operations_url) as operator:
            page = (await operator.get("/metrics")).text
        assert "heron_router_api_keys 1.0" in page
        assert "heron_router_auth_open 0.0" in page
        assert 'heron_router_refusals_total{code="invalid_api_key"} 1.0' in page
        assert "heron_router_api_keys_age_seconds " in page
        assert "acme" not in page


async def test_a_real_redis_carries_keys(redis_store: Any):
    """The same through the other store."""
    async with router_fleet(redis_store, "a", auth="keys") as fleet:
        assert await status(fleet) == 401
        await put_key(redis_store, KEY, tiers=("flex",))
        await until_status(fleet, 200, service_tier="flex")
        await fleet.settled()


async def test_the_access_log_says_whose_request_it_was(store: Any, caplog: Any) -> None:
    """And how long its answer was."""
    await put_key(store, KEY, tenant="acme")
    async with router_fleet(store, "a", auth="keys", access_log=True) as fleet:
        await fleet.post(chat(), headers=bearer(KEY) | {"x-request-id": "one"})
        await fleet.post(chat(stream=True), headers=bearer(KEY) | {"x-request-id": "two"})
        await fleet.settled(completed=2)
    lines = {vars(one)["request_id"]: vars(one) for one in caplog.records if one.name == "heron.access"}
    assert {lines[name]["tenant"] for name in ("one", "two")} == {"acme"}
    assert lines["two"]["output_tokens"] == 30
    assert lines["one"]["output_tokens"] == 30
