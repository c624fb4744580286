"""One test per way in which a request can end: the answer, one outcome, and every count back at zero."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from support import toy_engine
from support.router_fleet import RouterFleet, bearer, chat, put_key, router_fleet, seconds_when_looked_at
from support.stub_site import BUSY, OK, POWER, Behaviour, stop_after, whole_answer
from support.wait import until

CHAT_PATH = "/v1/chat/completions"
WHOLE = whole_answer(CHAT_PATH, orjson.dumps(chat()), chat())
STREAM_BODY = chat(stream=True)
STREAM = b"".join(toy_engine.answer(CHAT_PATH, orjson.dumps(STREAM_BODY)))


def error_of(response: httpx.Response | bytes) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(response if isinstance(response, bytes) else response.content)[
        "error"
    ]
    assert set(error) >= {"message", "type", "code"}
    return error


def text_of(stream: bytes) -> str:
    """A chat's text."""
    values = [orjson.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\n\n")[:-2]]
    return "".join(one["delta"].get("content", "") for value in values for one in value["choices"])


def script(fleet: RouterFleet, *behaviours: Behaviour) -> None:
    """The first request that reaches any site meets the first of these, and so on."""
    shared = fleet.sites[0].script
    shared.extend(behaviours)
    for site in fleet.sites[1:]:
        site.script = shared


# an answer
async def test_an_answer_in_one_piece(store: Any):
    """Passed on byte for byte."""
    async with router_fleet(store, "a", "b") as fleet:
        response = await fleet.post(chat())
        assert (response.status_code, response.content) == (200, WHOLE)
        await fleet.settled(completed=1)


async def test_a_stream(store: Any):
    """Byte for byte what the site says when nobody asks for ids."""
    async with router_fleet(store, "a") as fleet:
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        assert fleet.site("a").inference[0].fields["return_token_ids"] is True
        await fleet.settled(completed=1)


async def test_a_long_prompt_of_a_stream_reaches_the_site_as_it_is(store: Any):
    """With the one field more, by a new connection and by a pooled one."""
    async with router_fleet(store, "a") as fleet:
        body = STREAM_BODY | {"messages": [{"role": "user", "content": "x" * 300_000}], "max_tokens": 3}
        for _ in range(2):
            status, _ = await fleet.stream(body)
            assert status == 200
        sent = orjson.dumps(body)[:-1] + b',"return_token_ids":true}'
        assert [one.raw for one in fleet.site("a").inference] == [sent, sent]
        await fleet.settled(completed=2)


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_client_s_mistake_is_not_retried(store: Any, status: int):
    """The site's own words, once."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, Behaviour(status=status, body=b'{"error": {"message": "too long"}}'))
        response = await fleet.post(chat())
        assert (response.status_code, response.content) == (status, b'{"error": {"message": "too long"}}')
        totals = await fleet.settled(client_error=1)
        assert totals["retried"] == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 405, 408, 409, 413, 415, 422, 429])
async def test_no_4xx_trips_a_breaker(store: Any, status: int, stream: bool):
    """Passed on, more often than any breaker would bear of failures."""
    async with router_fleet(store, "a") as fleet:
        script(fleet, *[Behaviour(status=status)] * 13)
        assert {(await fleet.post(chat(stream=stream))).status_code for _ in range(13)} == {status}
        entry = fleet.router.view.registry.entries["a"]
        assert (entry.breaker.state, entry.results["failed"]) == ("closed", 0)
        assert (await fleet.post(chat())).status_code == 200
        await fleet.settled(**{"shed" if status == 429 else "client_error": 13, "completed": 1})


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"model": 5}', 400), (b'{"model": "other", "messages": []}', 404)],
)
async def test_a_bad_request_reaches_no_site(store: Any, raw: bytes, status: int):
    """Refused in OpenAI's shape."""
    async with router_fleet(store, "a") as fleet:
        response = await fleet.post(raw)
        assert response.status_code == status
        assert error_of(response)["type"] == "invalid_request_error"
        assert not fleet.site("a").seen
        await fleet.settled(client_error=1)


# failure before the first byte
FAILURES = {
    "500": Behaviour(status=500),
    "502": Behaviour(status=502, body=b"<html>"),
    "closed": Behaviour(close_at_once=True),
    "cut body": Behaviour(cut_body_at=20),
    "aborted": Behaviour(body=b'{"choices": [{"finish_reason": "abort", "message": {"content": "x"}}]}'),
    "401": Behaviour(status=401),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_goes_to_another_site(store: Any, failure: Behaviour):
    """Never to the same one again; the client sees only the answer."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, failure)
        response = await fleet.post(chat())
        assert (response.status_code, response.content) == (200, WHOLE)
        assert [len(site.inference) for site in fleet.sites] == [1, 1]
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 1


STREAM_FAILURES = {
    "500": Behaviour(status=500),
    "closed": Behaviour(close_at_once=True),
    "error event": Behaviour(first_event=b'data: {"error": {"message": "dead", "code": 500}}\n\n'),
    "cut before an event": stop_after(0),
    "cut in the first event": stop_after(0, "cut_in_event"),
    "ends without an event": stop_after(0, "end"),
    "aborted at once": stop_after(0, "abort"),
}


@pytest.mark.parametrize("failure", STREAM_FAILURES.values(), ids=STREAM_FAILURES.keys())
async def test_a_stream_that_fails_before_its_first_event_starts_anew_elsewhere(
    store: Any, failure: Behaviour
):
    """Nothing was promised yet."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, failure)
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        totals = await fleet.settled(completed=1)
        assert (totals["retried"], totals["resumed"]) == (1, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stale_pooled_connection_is_replaced_in_silence(store: Any, stream: bool):
    """The site closed it as the request came: the same site is asked again, and nothing is counted."""
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.sites
        b.headroom = 0
        await fleet.announce()
        assert (await fleet.post(chat())).status_code == 200
        a.script.append(Behaviour(close_at_once=True))
        assert (await fleet.post(chat(stream=stream))).status_code == 200
        assert (len(a.inference), len(b.inference)) == (3, 0)
        entry = fleet.router.view.registry.entries["a"]
        assert (entry.results["failed"], entry.results["answered"]) == (0, 2)
        totals = await fleet.settled(completed=2)
        assert totals["retried"] == 0


async def test_a_pooled_connection_that_closes_late_is_a_failure(store: Any, monkeypatch: pytest.MonkeyPatch):
    """The site had the request, and may have died of it: not again to the same one."""
    monkeypatch.setattr("router.live.straight.STALE_SECONDS", -1.0)  # whatever it takes is late
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.sites
        b.headroom = 0
        await fleet.announce()
        assert (await fleet.post(chat())).status_code == 200
        gate = asyncio.Event()
        a.script.append(Behaviour(gate=gate, close_at_once=True))
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: a.running == 1, what="the request is there")
        b.headroom = 40
        await fleet.announce(b)
        gate.set()
        assert (await asking).status_code == 200
        assert (len(a.inference), len(b.inference)) == (2, 1)
        totals = await fleet.settled(completed=2)
        assert totals["retried"] == 1


async def test_a_site_that_is_gone_is_passed_over(store: Any):
    """Connection refused; after three the breaker spares the rest the try."""
    async with router_fleet(store, "a", "b") as fleet:
        await fleet.site("a").stop()
        for _ in range(12):
            assert (await fleet.post(chat())).status_code == 200
        assert fleet.router.view.registry.entries["a"].breaker.state != "closed"
        totals = await fleet.settled(completed=12)
        assert 0 < totals["retried"] <= 5


async def test_a_stream_that_says_nothing_in_time_goes_elsewhere(store: Any):
    """First-byte time-out."""
    async with router_fleet(store, "a", "b", first_byte_timeout_seconds=0.3) as fleet:
        script(fleet, Behaviour(hang=True))
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 1


async def test_headers_without_an_event_are_no_answer(store: Any):
    """vLLM asleep: 200 and then nothing."""
    async with router_fleet(store, "a", "b", first_byte_timeout_seconds=0.3) as fleet:
        script(fleet, stop_after(0, "comments"))
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        await fleet.settled(completed=1)


async def test_when_every_site_fails_the_client_gets_the_last_error(store: Any):
    """The site's own 500, in the end."""
    async with router_fleet(store, "a", "b") as fleet:
        fleet.site("a").default = fleet.site("b").default = Behaviour(status=500)
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["message"]) == (500, "as scripted")
        assert [len(site.inference) for site in fleet.sites] == [1, 1]
        await fleet.settled(failed=1)


async def test_without_retry_budget_the_error_is_told(store: Any):
    """After waiting for the budget as long as new work may wait."""
    options = {"retry_budget_ratio": 0, "retry_budget_minimum": 0, "hold_seconds": 0.2}
    async with router_fleet(store, "a", "b", **options) as fleet:
        script(fleet, Behaviour(status=500))
        assert (await fleet.post(chat())).status_code == 500
        totals = await fleet.settled(failed=1)
        assert totals["retried"] == 0


async def test_a_request_s_time_is_bounded(store: Any):
    """504, and no fault of the site's."""
    async with router_fleet(store, "a", request_timeout_seconds=0.3) as fleet:
        script(fleet, Behaviour(hang=True))
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["code"]) == (504, "site_timeout")
        await until(lambda: fleet.site("a").disconnects == 1, what="the site was told")
        assert fleet.router.view.registry.entries["a"].breaker.state == "closed"
        await fleet.settled(failed=1)


async def test_a_client_s_own_deadline_is_obeyed(store: Any):
    """And told to the site as seconds left."""
    async with router_fleet(store, "a") as fleet:
        script(fleet, Behaviour(hang=True))
        response = await fleet.post(chat(), headers={"x-heron-deadline-seconds": "0.3"})
        assert response.status_code == 504
        assert 0 < float(fleet.site("a").inference[0].headers["x-heron-deadline-seconds"]) <= 0.3
        await fleet.settled(failed=1)


async def test_a_client_s_deadline_asks_for_a_stream_s_first_token_only(store: Any):
    """docs/admission.md: a stream that has begun in time goes on to its end, over a break too."""
    async with router_fleet(store, "a", "b") as fleet:
        gates = [asyncio.Event(), asyncio.Event()]
        script(fleet, stop_after(9, base=Behaviour(gate=gates[0])), Behaviour(gate=gates[1]))
        headers = {"x-heron-deadline-seconds": "1.5"}
        asking = asyncio.create_task(fleet.stream(STREAM_BODY, headers=headers))
        await until(lambda: any(one.is_committed for one in fleet.router.forwarder.active), what="it began")
        [exchange] = fleet.router.forwarder.active
        deadline_at = exchange.received_at + 1.5
        await until(lambda: asyncio.get_running_loop().time() > deadline_at + 1, what="its deadline is past")
        for gate in gates:
            gate.set()
        status, data = await asking
        assert (status, text_of(data)) == (200, text_of(STREAM))
        sent = [one for site in fleet.sites for one in site.inference]
        told = [one.headers.get("x-heron-deadline-seconds") for one in sent]
        assert sorted(value is None for value in told) == [False, True]  # a resume has none: it was met
        await fleet.settled(completed=1)


async def test_a_stream_that_does_not_begin_by_its_client_s_deadline_ends(store: Any):
    """A role is no token."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(1, "hang"))
        headers = {"x-heron-deadline-seconds": "0.6"}
        status, data = await fleet.stream(STREAM_BODY, headers=headers)
        assert (status, error_of(data)["code"]) == (504, "site_timeout")
        await fleet.settled(failed=1)


async def test_a_stream_that_has_begun_has_no_limit_of_time(store: Any, monkeypatch: pytest.MonkeyPatch):
    """A long answer is no late one; what stands still is another matter."""
    async with router_fleet(store, "a", "b", request_timeout_seconds=0.4) as fleet:
        gate = asyncio.Event()
        script(fleet, stop_after(9, base=Behaviour(gate=gate)))
        asking = asyncio.create_task(fleet.stream(STREAM_BODY))
        await until(lambda: any(one.is_committed for one in fleet.router.forwarder.active), what="it began")
        looked_at = seconds_when_looked_at(monkeypatch)
        await until(lambda: looked_at and looked_at[-1] > 1.2, what="the watch has seen it late, twice")
        gate.set()
        status, data = await asking
        assert (status, text_of(data)) == (200, text_of(STREAM)), "over a break, too"
        await fleet.settled(completed=1)


async def test_an_answer_that_is_too_large_is_refused(store: Any):
    """Memory is bounded; a retry would not help."""
    async with router_fleet(store, "a", "b", max_answer_bytes=1024) as fleet:
        script(fleet, Behaviour(body=b'{"x":"' + b"x" * 4096 + b'"}'))
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["code"]) == (502, "answer_too_large")
        await fleet.settled(failed=1)


async def test_an_error_event_of_the_client_s_making_is_an_error_status(store: Any):
    """A 400 inside a 200 is a 400."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, Behaviour(first_event=b'data: {"error": {"message": "no", "code": 400}}\n\n'))
        status, data = await fleet.stream(STREAM_BODY)
        assert (status, error_of(data)["message"]) == (400, "no")
        await fleet.settled(client_error=1)


async def test_an_error_in_the_router_is_a_500(store: Any, monkeypatch: pytest.MonkeyPatch):
    """Logged, told, and counted like any other."""
    async with router_fleet(store, "a") as fleet:
        monkeypatch.setattr(fleet.router.view.registry, "loads", {})
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["type"]) == (500, "server_error")
        await fleet.settled(failed=1)


# pushback
PUSHBACKS = {"power": POWER, "plain 503": BUSY}


@pytest.mark.parametrize("pushback", PUSHBACKS.values(), ids=PUSHBACKS.keys())
async def test_a_pushback_goes_to_another_site(store: Any, pushback: Behaviour):
    """No retry, no fault."""
    async with router_fleet(store, "a", "b", retry_budget_ratio=0, retry_budget_minimum=0) as fleet:
        script(fleet, pushback)
        assert (await fleet.post(chat())).status_code == 200
        assert [len(site.inference) for site in fleet.sites] == [1, 1]
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 0
        entries = fleet.router.view.registry.entries.values()
        assert sum(sum(entry.pushbacks.values()) for entry in entries) == 1


async def test_a_503_inside_a_200_is_a_pushback(store: Any):
    """As an overloaded vLLM streams it."""
    async with router_fleet(store, "a", "b", retry_budget_ratio=0, retry_budget_minimum=0) as fleet:
        script(fleet, Behaviour(first_event=b'data: {"error": {"message": "full", "code": 503}}\n\n'))
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        await fleet.settled(completed=1)


async def test_pushbacks_never_open_a_breaker(store: Any):
    """However many."""
    async with router_fleet(store, "a", hold_seconds=0) as fleet:
        fleet.site("a").default = POWER
        for _ in range(10):
            assert (await fleet.post(chat())).status_code == 503
            await fleet.announce()
        assert fleet.router.view.registry.entries["a"].breaker.state == "closed"
        await fleet.settled(shed=10)


async def test_after_three_pushbacks_a_request_waits_and_any_site_may_take_it(store: Any):
    """Also one that had pushed it back."""
    async with router_fleet(store, *"abcd") as fleet:
        script(fleet, POWER, POWER, POWER, POWER)
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="the request waits")
        await fleet.announce()
        assert (await asking).status_code == 200
        assert sum(len(site.inference) for site in fleet.sites) == 5
        await fleet.settled(completed=1)


# waiting
async def test_new_work_waits_for_room(store: Any):
    """And is served when a site reports some."""
    async with router_fleet(store, "a") as fleet:
        fleet.site("a").headroom = 0
        await fleet.announce()
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="the request waits")
        fleet.site("a").headroom = 10
        await fleet.announce()
        assert (await asking).status_code == 200
        await fleet.settled(completed=1)


async def test_waiting_is_first_come_first_served(store: Any):
    """A request that ends makes room for the one that waits longest."""
    async with router_fleet(store, "a", resume_reserve_ratio=0) as fleet:
        site = fleet.site("a")
        site.headroom = 1
        await fleet.announce()
        gate = asyncio.Event()
        site.script.append(Behaviour(gate=gate))
        site.headroom = 0
        first = asyncio.create_task(fleet.stream(STREAM_BODY))
        await until(lambda: site.running == 1, what="the first runs")
        entry = fleet.router.view.registry.loads["m"]["a"]
        entry.answered(0.0)
        waiting = []
        for index in range(3):
            waiting.append(asyncio.create_task(fleet.post(chat(user=f"u{index}"))))
            await until(lambda index=index: fleet.router.dispatcher.held == index + 1, what="it waits")
        gate.set()
        await asyncio.gather(first, *waiting)
        assert [one.fields.get("user") for one in site.inference] == [None, "u0", "u1", "u2"]
        await fleet.settled(completed=4)


@pytest.mark.parametrize(("state", "code"), [("dark", "no_power"), ("serving", "no_capacity")])
async def test_without_room_in_time_the_client_is_told_when_to_come_back(store: Any, state: str, code: str):
    """503, Retry-After, and the reason."""
    async with router_fleet(store, "a", hold_seconds=0.2) as fleet:
        fleet.site("a").headroom = 0
        await fleet.set_state("a", state)
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["code"]) == (503, code)
        assert int(response.headers["retry-after"]) >= 1
        assert not fleet.site("a").inference
        await fleet.settled(shed=1)


async def test_a_router_that_knows_no_site_says_so(store: Any):
    """It has just begun and hears of nobody: that is not "full"."""
    async with router_fleet(store, "a", announce=False, hold_seconds=0.2) as fleet:
        response = await fleet.post(chat())
        assert (response.status_code, error_of(response)["code"]) == (503, "no_site")
        assert int(response.headers["retry-after"]) >= 1
        await fleet.settled(shed=1)


async def test_the_queue_is_bounded(store: Any):
    """Beyond it work is refused at once."""
    async with router_fleet(store, "a", hold_requests=2, hold_seconds=0.5) as fleet:
        await fleet.set_state("a", "dark")
        responses = await asyncio.gather(*(fleet.post(chat()) for _ in range(5)))
        assert [response.status_code for response in responses] == [503] * 5
        await fleet.settled(shed=5)


async def test_work_for_a_fleet_that_is_not_known_yet_waits(store: Any):
    """No 404 before any site was heard."""
    async with router_fleet(store, "a", announce=False) as fleet:
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="the request waits")
        await fleet.announce()
        assert (await asking).status_code == 200
        await fleet.settled(completed=1)


# the client leaves
async def leave(asking: asyncio.Task[Any]) -> None:
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_leaves_before_the_answer(store: Any):
    """Not streamed: the site is told at once all the same."""
    async with router_fleet(store, "a") as fleet:
        script(fleet, Behaviour(hang=True))
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.site("a").running == 1, what="the request is there")
        await leave(asking)
        await until(lambda: fleet.site("a").disconnects == 1, what="the site was told")
        await fleet.settled(client_cancelled=1)


async def test_a_client_that_leaves_in_mid_stream(store: Any):
    """The connection to the site is cut."""
    async with router_fleet(store, "a") as fleet:
        script(fleet, Behaviour(gate=asyncio.Event()))
        async with fleet.client.stream("POST", CHAT_PATH, content=orjson.dumps(STREAM_BODY)) as response:
            pieces = response.aiter_raw()
            while b'"content":' not in await anext(pieces):
                pass
        await until(lambda: fleet.site("a").disconnects == 1, what="the site was told")
        await fleet.settled(client_cancelled=1)
        [durations] = fleet.router.metrics.durations.values()
        assert durations.ttft.buckets()[-1] == ("+Inf", 1.0), "it had its first token"
        assert durations.e2e.buckets()[-1] == ("+Inf", 0.0)


async def test_a_client_that_leaves_while_it_waits(store: Any):
    """No site ever hears of it."""
    async with router_fleet(store, "a") as fleet:
        await fleet.set_state("a", "dark")
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="the request waits")
        await leave(asking)
        await fleet.settled(client_cancelled=1)
        assert not fleet.site("a").inference


async def test_a_client_that_leaves_while_its_stream_waits_for_power(store: Any):
    """Its place in the queue is free again."""
    async with router_fleet(store, "a", sse_keep_alive_seconds=0.1) as fleet:
        script(fleet, stop_after(3, "hang"))
        asking = asyncio.create_task(fleet.stream(STREAM_BODY))
        await until(lambda: fleet.site("a").running == 1, what="the stream runs")
        await fleet.set_state("a", "dark")
        fleet.site("a").cut()
        await until(lambda: fleet.router.dispatcher.held == 1, what="the stream waits")
        await leave(asking)
        await fleet.settled(client_cancelled=1)


# admission: what a key's quota and the queues hold goes back on every way out
KEY = "hk-" + "k" * 43
LIMITS = {"requests_per_minute": 100, "tokens_per_minute": 100_000, "concurrent_requests": 10}
NOWHERE = {"x-heron-deadline-seconds": "0.2"}
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str], int, str]] = {
    "no key": ({}, {}, {"authorization": "Bearer hk-x"}, 401, "invalid_api_key"),
    "tier": ({}, {"service_tier": "priority"}, {}, 403, "tier_not_allowed"),
    "quota": ({}, {"max_tokens": 1, "user": "x" * 500_000}, {}, 429, "rate_limit_exceeded"),
    "queue full": ({"hold_requests": 0}, {}, {}, 503, "queue_full"),
    "time to live": ({"hold_seconds": 0.2}, {}, {}, 503, "no_power"),
    "flex's time to live": ({"flex_hold_seconds": 0.2}, {"service_tier": "flex"}, {}, 503, "no_surplus"),
    "deadline": ({}, {}, NOWHERE, 503, "deadline_unreachable"),
    "bad request": ({}, {"n": 0}, {}, 400, "invalid_field"),
    "unknown model": ({}, {"model": "other"}, {}, 404, "model_not_found"),
}


@pytest.mark.parametrize(("options", "body", "headers", "status", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_what_is_refused_holds_nothing(
    store: Any,
    options: dict[str, Any],
    body: dict[str, Any],
    headers: dict[str, str],
    status: int,
    code: str,
):
    """One outcome each, no place in a queue, nothing taken of the quota but the request itself."""
    await put_key(store, KEY, tiers=("default", "flex"), **LIMITS)
    async with router_fleet(store, "a", auth="keys", **options) as fleet:
        await fleet.set_state("a", "dark")
        response = await fleet.post(chat(**body), headers=bearer(KEY) | headers)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert not fleet.site("a").inference
        await fleet.settled(**{"shed" if status in (429, 503) else "client_error": 1})
        assert fleet.router.ring is not None
        (key,) = fleet.router.ring.credentials()
        assert key.quota.tokens is not None
        assert key.quota.tokens.level > 99_000, "what was not worked on is not paid for"


ENDINGS: dict[str, tuple[Behaviour, str]] = {
    "answered": (OK, "completed"),
    "client's mistake": (Behaviour(status=400), "client_error"),
    "every site fails": (Behaviour(status=500), "failed"),
    "pushed back": (BUSY, "shed"),
    "broken": (stop_after(4), "broken"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("behaviour", "outcome"), ENDINGS.values(), ids=ENDINGS)
async def test_a_key_s_quota_is_given_back_however_a_request_ends(
    store: Any, behaviour: Behaviour, outcome: str, stream: bool
):
    """Nothing of the key is under way any more."""
    if outcome == "broken" and not stream:
        behaviour = Behaviour(cut_body_at=10)
        outcome = "failed"
    await put_key(store, KEY, **LIMITS)
    options = {"hold_seconds": 0.3, "resume_wait_seconds": 0.3}
    async with router_fleet(store, "a", auth="keys", **options) as fleet:
        fleet.site("a").default = behaviour
        await fleet.post(chat(stream=stream, n=1, logprobs=True), headers=bearer(KEY))
        totals = await fleet.settled()
        assert totals[outcome] == 1


@pytest.mark.parametrize("where", ["waiting", "at the site", "in mid-stream"])
async def test_a_client_that_leaves_gives_its_quota_back(store: Any, where: str):
    """Wherever it was; what the site had read by then is paid for."""
    await put_key(store, KEY, **LIMITS)
    async with router_fleet(store, "a", auth="keys") as fleet:
        site = fleet.site("a")
        if where == "waiting":
            await fleet.set_state("a", "dark")
        else:
            script(fleet, Behaviour(hang=True) if where == "at the site" else stop_after(3, "hang"))
        asking = asyncio.create_task(fleet.post(chat(stream=where == "in mid-stream"), headers=bearer(KEY)))
        await until(lambda: fleet.router.dispatcher.held + site.running == 1, what="it is there")
        assert fleet.router.ring is not None
        (key,) = fleet.router.ring.credentials()
        assert key.quota.in_flight == 1
        await leave(asking)
        await fleet.settled(client_cancelled=1)
        assert key.quota.tokens is not None
        assert (key.quota.tokens.level == 100_000) == (where == "waiting")


# shutdown
async def test_shutdown_lets_what_is_under_way_finish(store: Any):
    """Within the grace."""
    async with router_fleet(store, "a", shutdown_grace_seconds=10) as fleet:
        gate = asyncio.Event()
        script(fleet, Behaviour(gate=gate))
        asking = asyncio.create_task(fleet.stream(STREAM_BODY))
        await until(lambda: fleet.totals["in_flight"] == 1 and fleet.site("a").running == 1)
        stopping = asyncio.create_task(fleet.router.stop())
        gate.set()
        assert await asking == (200, STREAM)
        await stopping
        await fleet.settled(completed=1)


async def test_shutdown_ends_the_rest_with_a_stated_error(store: Any):
    """A stream in-band, a waiting request with 503; never a bare cut."""
    async with router_fleet(store, "a", shutdown_grace_seconds=1.2) as fleet:
        script(fleet, stop_after(3, "hang"), Behaviour(hang=True))
        streaming = asyncio.create_task(fleet.stream(STREAM_BODY))
        await until(lambda: fleet.site("a").running == 1)
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.site("a").running == 2)
        await fleet.router.stop()
        status, data = await streaming
        assert (status, error_of(data.split(b"\n\n")[-3].removeprefix(b"data: "))["code"]) == (
            200,
            "stream_lost",
        )
        assert (await asking).status_code == 503
        await fleet.settled(broken=1, shed=1)


async def test_many_requests_of_every_kind_at_once(store: Any):
    """Whatever happens to each, the sum is right and nothing is left behind."""
    async with router_fleet(store, *"abc", hold_seconds=0.5, resume_wait_seconds=2) as fleet:
        kinds = [OK, POWER, BUSY, Behaviour(status=500), Behaviour(close_at_once=True), stop_after(4)]
        script(fleet, *kinds * 10)
        bodies = [chat(stream=index % 2 == 0, user=f"u{index}") for index in range(60)]
        responses = await asyncio.gather(*(fleet.post(body) for body in bodies))
        totals = await fleet.settled()
        assert totals["requests"] == len(responses) == 60
        for response, body in zip(responses, bodies, strict=True):
            if response.status_code == 200:
                assert response.content == (STREAM if body["stream"] else WHOLE)


def has_one_behind(fleet: RouterFleet) -> bool:
    """Whether a request waits behind the answer to another of its client."""
    connections: Any = fleet.router._server._server.server_state.connections
    return any(one.pipeline for one in connections)


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_client_that_leaves_with_a_request_behind_its_stream(store: Any, is_whole: bool):
    """Both are over, and neither keeps its place: not the one that is being answered either.

    A whole one behind it stops our reading, so that only the next write shows that the client has gone.
    """
    gate = asyncio.Event()
    body = orjson.dumps(STREAM_BODY)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT_PATH.encode()
    first = head + b"content-length: %d\r\n\r\n" % len(body) + body
    behind = first if is_whole else head + b"transfer-encoding: chunked\r\n\r\nZZ\r\n"
    async with router_fleet(store, "a") as fleet:
        await fleet.stream(STREAM_BODY)  # a pooled connection: the next one goes the straight way
        script(fleet, Behaviour(gate=gate))
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
        writer.write(first)
        await reader.readuntil(b"data:")
        writer.write(behind)
        if is_whole:
            await until(lambda: has_one_behind(fleet), what="it waits")
            writer.transport.abort()
            gate.set()
        else:
            await until(lambda: fleet.site("a").disconnects == 1, what="the site was told")
        await until(lambda: fleet.totals["in_flight"] == 0, what="both are over")
        assert fleet.router.view.registry.entries["a"].in_flight == 0
        assert fleet.router.failed_task() is None
        writer.close()


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"token_ids":['
        + b"[" * 600
        + b"]" * 600
        + b'],"finish_reason":null}]}\n\n',
        b'data: {"error":{"code":"\xc2\xb2"}}\n\n',
    ],
    ids=["deep", "a code of no digits"],
)
async def test_a_stream_that_makes_no_sense_is_its_site_s_fault(store: Any, event: bytes):
    """Not the router's, and another site may make sense of it."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, Behaviour(first_event=event))
        assert await fleet.stream(STREAM_BODY) == (200, STREAM)
        await fleet.settled(completed=1)
