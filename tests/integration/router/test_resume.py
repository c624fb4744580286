"""Streams that lose their site go on elsewhere: the client's bytes make the same answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from support import toy_engine
from support.router_fleet import RouterFleet, chat, router_fleet, seconds_when_looked_at
from support.stub_site import OK, POWER, Behaviour, stop_after
from support.wait import until

from router.live import watch
from router.policy.breaker import WINDOW_FAILURES, WINDOW_RESULTS

CHAT_PATH = "/v1/chat/completions"
ERROR_EVENT = b'data: {"error": {"message": "EngineDead", "code": 500}}\n\n'
BODY = chat(stream=True, stream_options={"include_usage": True})
COMPLETION = {
    "model": "m",
    "prompt": "hello",
    "temperature": 0,
    "max_tokens": 25,
    "stream": True,
    "stream_options": {"include_usage": True},
}


class Answer:
    """What a client makes of a stream."""

    def __init__(self, data: bytes) -> None:
        self.text, self.finish, self.roles, self.error = "", None, 0, None
        self.ids: set[str] = set()
        self.usage: list[Any] = []
        assert data.endswith(b"data: [DONE]\n\n"), data[-300:]
        assert data.count(b"[DONE]") == 1
        assert b"token_ids" not in data
        for event in data.split(b"\n\n")[:-2]:
            if event.startswith(b":"):
                continue
            value = orjson.loads(event.removeprefix(b"data: "))
            if "error" in value:
                self.error = value["error"]["code"]
                continue
            self.ids.add(value["id"])
            if value.get("usage"):
                self.usage.append(value["usage"])
            for choice in value["choices"]:
                source = choice.get("delta", choice)
                self.roles += "role" in source
                self.text += source.get("content", source.get("text", ""))
                self.finish = choice["finish_reason"] or self.finish

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def unbroken(body: dict[str, Any], path: str = CHAT_PATH) -> Answer:
    return Answer(b"".join(toy_engine.answer(path, orjson.dumps(body))))


def script(fleet: RouterFleet, *behaviours: Behaviour) -> None:
    shared = fleet.sites[0].script
    shared.extend(behaviours)
    for site in fleet.sites[1:]:
        site.script = shared


BREAKS = ["cut", "cut_in_event", "error", "abort", "end"]


@pytest.mark.parametrize("then", BREAKS)
@pytest.mark.parametrize("events", [2, 9, 30])
async def test_a_chat_goes_on_elsewhere(store: Any, then: str, events: int):
    """However and wherever it breaks: after the first token, in the middle, before the last."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(events, then))
        status, data = await fleet.stream(BODY)
        assert status == 200
        assert Answer(data) == unbroken(BODY)
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


@pytest.mark.parametrize("changes", [{}, {"tools": [{"type": "function", "function": {"name": "f"}}]}])
@pytest.mark.parametrize("then", BREAKS)
async def test_a_chat_of_which_only_the_role_came_is_asked_for_anew(
    store: Any, then: str, changes: dict[str, Any]
):
    """Whatever it asks for: its client has nothing yet, so reasoning and tool calls come whole."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(1, then))
        status, data = await fleet.stream(BODY | changes)
        assert (status, Answer(data)) == (200, unbroken(BODY | changes))
        assert [one.path for site in fleet.sites for one in site.seen if one.path != "/heron/v1/report"] == [
            CHAT_PATH,
            CHAT_PATH,
        ]
        totals = await fleet.settled(completed=1)
        assert (totals["retried"], totals["resumed"]) == (1, 0)


async def test_what_breaks_after_the_role_everywhere_closes_no_site(store: Any):
    """A request may be at fault itself (a parser that fails): its sites answered."""
    async with router_fleet(store, "a", "b", "c") as fleet:
        for site in fleet.sites:
            site.default = stop_after(1, "error")
        for _ in range(3):
            status, _ = await fleet.stream(BODY)
            assert status == 502
        entries = fleet.router.view.registry.entries
        assert [entries[name].breaker.state for name in "abc"] == ["closed"] * 3
        await fleet.settled(failed=3)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(first_event=ERROR_EVENT),
        Behaviour(status=500),
        stop_after(1, "error"),
        stop_after(3, "error"),
    ],
)
async def test_a_site_that_answers_with_nothing_but_errors_is_closed(store: Any, behaviour: Behaviour):
    """Once another site has answered so many of the same requests that it is no chance."""
    async with router_fleet(store, "a", "b", retry_budget_minimum=1000) as fleet:
        fleet.site("a").default = behaviour
        breaker = fleet.router.view.registry.entries["a"].breaker
        count = 0
        while breaker.state == "closed":
            assert (await fleet.stream(BODY))[0] == 200
            count += 1
        assert len(fleet.site("a").inference) == WINDOW_FAILURES
        await fleet.settled(completed=count)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(status=500),
        Behaviour(status=500, body=b"Internal Server Error"),
        Behaviour(first_event=ERROR_EVENT),
        stop_after(1, "error"),
    ],
)
async def test_a_request_that_every_engine_answers_with_an_error_closes_no_site(
    store: Any, behaviour: Behaviour
):
    """However often its tenant sends it, and with nobody else's requests between."""
    async with router_fleet(store, "a", "b", "c", retry_budget_minimum=1000) as fleet:
        for site in fleet.sites:
            site.default = behaviour
        for _ in range(2 * WINDOW_RESULTS):
            await fleet.stream(BODY)
        entries = fleet.router.view.registry.entries
        assert [entries[name].breaker.state for name in "abc"] == ["closed"] * 3
        for site in fleet.sites:
            site.default = OK
        assert (await fleet.stream(BODY))[0] == 200
        await fleet.settled()


async def test_a_request_that_met_an_error_asks_no_half_open_site(store: Any):
    """It is no probe, whose failure would keep others out: a later request is, and makes the way free."""
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.site("a"), fleet.site("b")
        b.headroom = 0
        await fleet.announce()
        breaker = fleet.router.view.registry.entries["b"].breaker
        for _ in range(3):
            breaker.fail(time.monotonic() - 10)
        a.script.append(Behaviour(status=500))
        poison = asyncio.create_task(fleet.post(chat(user="poison")))
        await until(lambda: fleet.router.dispatcher.held == 1, what="it waits for another site")
        a.headroom, b.headroom = 0, 40
        await fleet.announce()
        assert (breaker.state, breaker.admits(time.monotonic()), len(b.inference)) == ("open", True, 0)
        assert (await fleet.post(chat(user="honest"))).status_code == 200
        assert (await poison).status_code == 200
        assert [one.fields["user"] for one in b.inference] == ["honest", "poison"]
        await fleet.settled(completed=2)


async def test_an_engine_that_thinks_behind_the_role_is_not_stalled(store: Any):
    """Nothing but the role: the limit is that of a first byte, as the client has nothing yet."""
    async with router_fleet(
        store, "a", stall_timeout_seconds=0.2, first_byte_timeout_seconds=60.0, sse_keep_alive_seconds=5.0
    ) as fleet:
        gate = asyncio.Event()
        fleet.sites[0].default = Behaviour(gate=gate)
        asked = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: fleet.sites[0].running)
        await asyncio.sleep(1.0)
        gate.set()
        status, data = await asked
        assert (status, Answer(data)) == (200, unbroken(BODY))
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 0


def events_of(*deltas: dict[str, Any], finish: str | None = None) -> bytes:
    """Events of a chat's stream, one choice each."""
    ends = [None] * (len(deltas) - 1) + [finish]
    choices = [
        {"index": 0, "delta": delta, "finish_reason": end} for delta, end in zip(deltas, ends, strict=True)
    ]
    values = [{"id": "r", "created": 9, "model": "m", "choices": [choice]} for choice in choices]
    return b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values)


ROLE = {"role": "assistant", "content": ""}
THINKS = ({"reasoning_content": "let me think"}, {"content": "answer"})


@pytest.mark.parametrize("token_ids", [True, False])
async def test_reasoning_after_a_break_is_passed_on_whole(store: Any, token_ids: bool):
    """Cut after the role, and after an event whose ids are those of reasoning not shown yet."""
    hidden = {"index": 0, "delta": {"content": ""}, "finish_reason": None, "token_ids": [5]}
    begun = events_of(ROLE) + b"data: " + orjson.dumps({"id": "q", "choices": [hidden]}) + b"\n\n"
    whole = events_of(ROLE, *THINKS, finish="stop")
    async with router_fleet(store, "a", "b", token_ids=token_ids) as fleet:
        script(fleet, Behaviour(first_event=begun), Behaviour(first_event=whole))
        _, data = await fleet.stream(BODY)
        assert data == whole + b"data: [DONE]\n\n"
        await fleet.settled(completed=1)


async def test_a_continuation_that_thinks_ends_with_a_stated_error(store: Any):
    """By text; its reasoning is not part of what the client was answered, nor may it be lost in silence."""
    async with router_fleet(store, "a", "b", token_ids=False) as fleet:
        script(fleet, stop_after(5), Behaviour(first_event=events_of(ROLE, *THINKS, finish="stop")))
        _, data = await fleet.stream(BODY)
        assert Answer(data).error == "stream_lost"
        assert b"reasoning or a tool call" in data
        assert unbroken(BODY).text.startswith(Answer(data).text)
        await fleet.settled(broken=1)


@pytest.mark.parametrize("then", BREAKS)
async def test_a_completion_goes_on_elsewhere(store: Any, then: str):
    """In its own shape."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(7, then))
        status, data = await fleet.stream(COMPLETION, "/v1/completions")
        assert status == 200
        assert Answer(data) == unbroken(COMPLETION, "/v1/completions")
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


@pytest.mark.parametrize("events", [31, 32])
async def test_what_only_lacks_its_end_is_finished_here(store: Any, events: int):
    """After the finish or the usage: no site is asked."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(events))
        _, data = await fleet.stream(BODY)
        assert Answer(data) == unbroken(BODY)
        assert sum(len(site.inference) for site in fleet.sites) == 1
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


@pytest.mark.parametrize("then", ["hang", "comments"])
async def test_a_stalled_stream_goes_on_elsewhere(store: Any, then: str):
    """Comments of a hung engine do not count."""
    async with router_fleet(store, "a", "b", stall_timeout_seconds=0.4) as fleet:
        script(fleet, stop_after(5, then))
        _, data = await fleet.stream(BODY)
        assert Answer(data) == unbroken(BODY)
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


TOOLS = [{"type": "function", "function": {"name": "write_file"}}]


async def test_an_engine_that_holds_a_tool_call_back_is_not_stalled(
    store: Any, monkeypatch: pytest.MonkeyPatch
):
    """Its parser says nothing until the call is whole, and the stream could not go on elsewhere."""
    async with router_fleet(store, "a", "b", stall_timeout_seconds=0.2) as fleet:
        gate = asyncio.Event()
        script(fleet, Behaviour(gate=gate))
        asking = asyncio.create_task(fleet.stream(BODY | {"tools": TOOLS}))
        await until(lambda: any(one.is_committed for one in fleet.router.forwarder.active), what="it began")
        looked_at = seconds_when_looked_at(monkeypatch)
        await until(lambda: looked_at and looked_at[-1] > 1.5, what="the watch has seen it silent, twice")
        gate.set()
        _, data = await asking
        assert Answer(data) == unbroken(BODY | {"tools": TOOLS})
        assert (await fleet.settled(completed=1))["resumed"] == 0


@pytest.mark.parametrize("events", [1, 5])
async def test_a_stream_that_cannot_go_on_and_stands_still_ends_at_last(
    store: Any, monkeypatch: pytest.MonkeyPatch, events: int
):
    """After the role alone another site is asked; later it ends with the stated error."""
    monkeypatch.setattr(watch, "HIDDEN_OUTPUT_SECONDS", 0.4)
    async with router_fleet(store, "a", "b", stall_timeout_seconds=0.1) as fleet:
        script(fleet, stop_after(events, "hang"))
        _, data = await fleet.stream(BODY | {"tools": TOOLS})
        if events == 1:
            assert Answer(data) == unbroken(BODY | {"tools": TOOLS})
            await fleet.settled(completed=1)
        else:
            assert Answer(data).error == "stream_lost"
            await fleet.settled(broken=1)


async def test_a_stream_may_break_again_and_again(store: Any):
    """Each site adds a few tokens."""
    async with router_fleet(store, *"abcdef") as fleet:
        script(fleet, *(stop_after(4, then) for then in BREAKS))
        _, data = await fleet.stream(BODY)
        assert Answer(data) == unbroken(BODY)
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1
        assert all(site.inference for site in fleet.sites)


async def test_a_killed_site_s_streams_all_go_on(store: Any):
    """Twenty at once; the port refuses from then on."""
    async with router_fleet(store, *"ab") as fleet:
        gate = asyncio.Event()
        fleet.site("a").default = Behaviour(gate=gate)
        fleet.site("b").default = Behaviour(gate=gate)
        asking = [asyncio.create_task(fleet.stream(chat(**BODY, user=f"u{index}"))) for index in range(20)]
        await until(lambda: sum(site.running for site in fleet.sites) == 20, what="all run")
        await until(
            lambda: all(exchange.is_committed for exchange in fleet.router.forwarder.active),
            what="all have begun",
        )
        hit = fleet.site("a").running
        await fleet.site("a").stop()
        gate.set()
        for _, data in await asyncio.gather(*asking):
            assert Answer(data) == unbroken(BODY)
        totals = await fleet.settled(completed=20)
        assert totals["resumed"] == hit > 0


async def test_a_resume_says_so_to_the_site(store: Any):
    """`x-heron-resume: 1`, the same request id, the site token, and never the client's."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(5))
        headers = {
            "x-request-id": "my-id",
            "authorization": "Bearer client-secret",
            "x-heron-tier": "priority",
            "x-heron-affinity": "session-1",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cookie": "c=1",
        }
        await fleet.stream(BODY, headers=headers)
        seen = [one for site in fleet.sites for one in site.seen]
        assert {one.path for one in seen} == {CHAT_PATH, "/detokenize", "/v1/completions"}
        for one in seen:
            assert one.headers["x-request-id"] == "my-id"
            assert one.headers["authorization"] == "Bearer site-secret"
            assert one.headers["x-heron-tier"] == "default"
            assert one.headers["x-heron-affinity"] == seen[0].headers["x-heron-affinity"] != "session-1"
            assert one.headers["traceparent"] == headers["traceparent"]
            assert one.headers["x-heron-class"] == "SS"
            assert int(one.headers["x-heron-expected-output-tokens"]) == 30
            assert "cookie" not in one.headers
            assert (one.headers.get("x-heron-resume") == "1") == (one.path != CHAT_PATH)


async def test_without_ids_it_goes_on_by_text(store: Any):
    """An engine that has none: the frame holds, and the text so far is continued."""
    async with router_fleet(store, "a", "b", token_ids=False) as fleet:
        script(fleet, stop_after(6))
        _, data = await fleet.stream(BODY)
        answer = Answer(data)
        assert (answer.roles, answer.finish, len(answer.ids), len(answer.usage)) == (1, "length", 1, 1)
        sent = [one for site in fleet.sites for one in site.inference]
        assert "return_token_ids" not in sent[0].fields
        last = next(one for one in sent if len(one.fields["messages"]) == 2).fields
        assert last["continue_final_message"] is True
        assert answer.text.startswith(last["messages"][-1]["content"])
        await fleet.settled(completed=1)


async def test_a_chat_with_an_image_goes_on_by_text(store: Any):
    """Sites take ids, but ids do not hold the image: the continuation gets it again."""
    parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    body = BODY | {"messages": [{"role": "user", "content": parts}]}
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(6))
        _, data = await fleet.stream(body)
        answer = Answer(data)
        assert (answer.roles, answer.finish, answer.error, len(answer.ids)) == (1, "length", None, 1)
        first, last = sorted(
            (one for site in fleet.sites for one in site.inference), key=lambda one: len(one.raw)
        )
        assert (first.path, last.path) == (CHAT_PATH, CHAT_PATH)
        assert last.fields["messages"][0]["content"] == parts
        assert last.fields["messages"][1]["role"] == "assistant"
        assert b"return_token_ids" not in first.raw + last.raw
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


async def test_a_site_without_detokenize_is_continued_by_text(store: Any):
    """Ids without their text are of no use."""
    async with router_fleet(store, "a", "b") as fleet:
        for site in fleet.sites:
            site.detokenize_status = 404
        script(fleet, stop_after(6))
        _, data = await fleet.stream(BODY)
        assert Answer(data).finish == "length"
        assert not [one for site in fleet.sites for one in site.inference if one.path == "/v1/completions"]
        await fleet.settled(completed=1)


async def test_a_client_that_asks_for_ids_gets_all_of_them(store: Any):
    """Also over the seam."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(6))
        _, data = await fleet.stream(BODY | {"return_token_ids": True})
        ids = [
            token
            for event in data.split(b"\n\n")[:-2]
            for choice in orjson.loads(event.removeprefix(b"data: "))["choices"]
            for token in choice.get("token_ids") or []
        ]
        prompt = toy_engine.prompt_ids("hi")
        whole: list[int] = []
        for _ in range(30):
            whole.append(toy_engine.next_id(prompt + whole))
        assert ids == whole
        await fleet.settled(completed=1)


@pytest.mark.parametrize("statuses", [(), (200, 500), (200, 404), (200, 200, 404)])
async def test_tokens_behind_a_stop_string_over_the_seam_are_not_counted(
    store: Any, statuses: tuple[int, ...]
):
    """They came with it in one event, and the engine did not know it; where it does not say, all count."""
    text = unbroken(BODY).text
    whole = toy_engine.answer(CHAT_PATH, orjson.dumps(BODY))
    # a stop string of the last character before the break, and the two after it
    before = len(Answer(b"".join(whole[:7]) + b"data: [DONE]\n\n").text)
    body = BODY | {"stop": text[before - 1 : before + 2]}
    expected = unbroken(body)
    assert expected.finish == "stop"
    async with router_fleet(store, "a", "b") as fleet:
        for site in fleet.sites:
            site.detokenize_statuses.extend(statuses)
        script(fleet, stop_after(7), Behaviour(tokens_an_event=12))
        _, data = await fleet.stream(body)
        answer = Answer(data)
        if statuses:
            expected.usage, answer.usage, usage = [], [], (expected.usage, answer.usage)
            assert usage[0][0]["completion_tokens"] < usage[1][0]["completion_tokens"] < 20
        assert answer == expected
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


async def test_a_resume_that_is_pushed_back_goes_on_elsewhere(store: Any):
    """Pushback, plain 503, and an error event count for nothing."""
    async with router_fleet(store, *"abcde") as fleet:
        busy = Behaviour(first_event=b'data: {"error": {"message": "full", "code": 503}}\n\n')
        script(fleet, stop_after(5), POWER, Behaviour(status=500), busy)
        _, data = await fleet.stream(BODY)
        assert Answer(data) == unbroken(BODY)
        await fleet.settled(completed=1)


async def test_a_resume_waits_for_power_and_comments_keep_the_client_alive(store: Any):
    """Every site dark; then one comes back."""
    async with router_fleet(store, "a", sse_keep_alive_seconds=0.3) as fleet:
        script(fleet, stop_after(5, "hang"))
        asking = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: fleet.site("a").running == 1, what="the stream runs")
        await until(lambda: any(x.is_committed for x in fleet.router.forwarder.active), what="it has begun")
        await fleet.set_state("a", "dark")
        fleet.site("a").cut()
        await until(lambda: fleet.router.dispatcher.held == 1, what="the stream waits")
        [exchange] = fleet.router.forwarder.active
        wrote_at = exchange.wrote_at
        await until(lambda: exchange.wrote_at > wrote_at, what="a comment was written")
        await fleet.set_state("a", "serving")
        status, data = await asking
        assert status == 200
        assert b"\n: " in data
        assert Answer(data) == unbroken(BODY)
        await fleet.settled(completed=1)


async def test_a_resume_goes_before_new_work_and_may_use_the_reserve(store: Any):
    """Room for one within the reserve: the stream gets it, the new request waits."""
    async with router_fleet(store, "a", "b") as fleet:
        a, b = fleet.site("a"), fleet.site("b")
        a.headroom = 0
        b.headroom = 40
        await fleet.announce()
        b.script.append(stop_after(5, "hang"))
        streaming = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: any(x.is_committed for x in fleet.router.forwarder.active), what="it has begun")
        await fleet.set_state("b", "dark")
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: fleet.router.dispatcher.held == 1, what="new work waits")
        b.cut()
        await until(lambda: fleet.router.dispatcher.held == 2, what="the stream waits too")
        gate = asyncio.Event()
        a.script.append(Behaviour(gate=gate))
        a.headroom = 1  # of 40, with a reserve of 4: nothing for new work
        await fleet.announce(a)
        await until(lambda: len(a.inference) == 1, what="one of them is served")
        assert a.inference[0].headers["x-heron-resume"] == "1"
        gate.set()
        assert Answer((await streaming)[1]) == unbroken(BODY)
        assert not asking.done()
        a.headroom = 40
        await fleet.announce(a)
        assert (await asking).status_code == 200
        await fleet.settled(completed=2)


@pytest.mark.parametrize(("state", "code"), [("dark", "power_lost"), ("faulted", "stream_lost")])
async def test_a_stream_that_finds_no_room_ends_with_the_cause(store: Any, state: str, code: str):
    """In-band, and whole up to there."""
    async with router_fleet(store, "a", resume_wait_seconds=0.3) as fleet:
        script(fleet, stop_after(5, "hang"))
        asking = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: any(x.is_committed for x in fleet.router.forwarder.active), what="it has begun")
        await fleet.set_state("a", state)
        fleet.site("a").cut()
        status, data = await asking
        answer = Answer(data)
        assert (status, answer.error, answer.finish) == (200, code, None)
        assert unbroken(BODY).text.startswith(answer.text)
        await fleet.settled(broken=1)


REFUSED: list[dict[str, Any]] = [
    {"n": 2},
    {"logprobs": True},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"response_format": {"type": "json_object"}},
]


@pytest.mark.parametrize("changes", REFUSED, ids=lambda changes: next(iter(changes)))
async def test_what_cannot_be_continued_ends_with_a_stated_error(store: Any, changes: dict[str, Any]):
    """docs/resume.md: refused; no ids are asked for either."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(5))
        status, data = await fleet.stream(BODY | changes)
        answer = Answer(data)
        assert (status, answer.error) == (200, "stream_lost")
        [seen] = [one for site in fleet.sites for one in site.inference]
        assert "return_token_ids" not in seen.fields
        await fleet.settled(broken=1)


@pytest.mark.parametrize("changes", REFUSED, ids=lambda changes: next(iter(changes)))
async def test_what_cannot_be_continued_is_still_retried_before_its_first_event(
    store: Any, changes: dict[str, Any]
):
    """Nothing was sent: nothing to continue."""
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(0))
        status, data = await fleet.stream(BODY | changes | {"n": 1})
        assert (status, Answer(data).error) == (200, None)
        await fleet.settled(completed=1)


async def test_reasoning_in_the_answer_is_not_continued(store: Any):
    """Its parser's state was lost with the engine."""
    choice = {"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}
    event = b"data: " + orjson.dumps({"id": "1", "choices": [choice]}) + b"\n\n"
    async with router_fleet(store, "a", "b") as fleet:
        script(fleet, Behaviour(first_event=event))
        _, data = await fleet.stream(BODY)
        assert Answer(data).error == "stream_lost"
        await fleet.settled(broken=1)


async def test_an_answer_cut_by_power_is_sent_again_before_new_work(store: Any):
    """Not streamed: simply retried, outside the retry budget, as accepted work."""
    async with router_fleet(store, "a", "b", retry_budget_ratio=0, retry_budget_minimum=0) as fleet:
        a, b = fleet.site("a"), fleet.site("b")
        b.headroom = 0
        await fleet.announce()
        a.script.append(Behaviour(hang=True))
        asking = asyncio.create_task(fleet.post(chat()))
        await until(lambda: a.running == 1, what="the request is there")
        await fleet.set_state("a", "draining")
        a.cut()
        await until(lambda: fleet.router.dispatcher.held == 1, what="it waits")
        b.headroom = 1
        await fleet.announce(b)
        assert (await asking).status_code == 200
        assert fleet.router.view.registry.entries["a"].breaker.state == "closed"
        totals = await fleet.settled(completed=1)
        assert totals["retried"] == 1
