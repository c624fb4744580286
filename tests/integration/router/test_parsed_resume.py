"""Streams with reasoning and tool calls go on elsewhere, by what the new site's parsers say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from support import toy_engine
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, StubSite, stop_after
from support.wait import until

from gateway.api_paths import DERENDER_PATH, RENDER_PATH

CHAT_PATH = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "write"}}]
WITH_TOOLS = chat(stream=True, stream_options={"include_usage": True}, tools=TOOLS, max_tokens=60)
THINKING = chat(
    messages=[{"role": "user", "content": "think"}],
    stream=True,
    stream_options={"include_usage": True},
    chat_template_kwargs={"thinks": True},
    max_tokens=60,
)
BODIES = {"tools": WITH_TOOLS, "reasoning": THINKING, "both": THINKING | {"tools": TOOLS}}


@asynccontextmanager
async def parsing_fleet(
    store: Any, *sites: str, parses: str = "abc", renders: str = "abc", **options: Any
) -> AsyncIterator[RouterFleet]:
    """`parses`: the sites whose engines tell what ids mean; `renders`: those that tell of grammars."""

    def make(name: str) -> StubSite:
        site = StubSite(name, parses_ids=name in parses)
        site.renders = name in renders
        return site

    async with router_fleet(store, *sites, make_site=make, **options) as fleet:
        yield fleet


def script(fleet: RouterFleet, *behaviours: Behaviour) -> None:
    shared = fleet.sites[0].script
    shared.extend(behaviours)
    for site in fleet.sites[1:]:
        site.script = shared


class Answer:
    """What a client makes of a stream."""

    def __init__(self, data: bytes) -> None:
        assert data.endswith(b"data: [DONE]\n\n"), data[-300:]
        assert data.count(b"[DONE]") == 1
        assert b"token_ids" not in data
        self.text = self.reasoning = ""
        self.roles = 0
        self.calls: dict[int, str] = {}
        self.call_ids: dict[int, str] = {}
        self.finish: list[str] = []
        self.usage: list[Any] = []
        self.ids: set[str] = set()
        self.error: str | None = None
        for event in data.split(b"\n\n")[:-2]:
            if event.startswith(b":"):
                continue
            value = orjson.loads(event.removeprefix(b"data: "))
            if "error" in value:
                self.error = value["error"]["code"]
                continue
            self.ids.add(value["id"])
            self.usage += [value["usage"]] if value.get("usage") else []
            for choice in value["choices"]:
                delta = choice["delta"]
                self.roles += "role" in delta
                self.text += delta.get("content") or ""
                self.reasoning += delta.get("reasoning") or ""
                for piece in delta.get("tool_calls") or ():
                    index = piece["index"]
                    self.calls[index] = self.calls.get(index, "") + piece["function"]["arguments"]
                    if "id" in piece:
                        assert index not in self.call_ids
                        self.call_ids[index] = piece["id"]
                self.finish += [choice["finish_reason"]] if choice["finish_reason"] else []

    def same(self, body: dict[str, Any]) -> bool:
        """Whether it is what an unbroken stream would have said; calls' ids are anybody's choice."""
        whole = Answer(b"".join(toy_engine.answer(CHAT_PATH, orjson.dumps(body))))
        assert whole.call_ids.keys() == self.call_ids.keys()
        assert len(set(self.call_ids.values())) == len(self.call_ids)
        return {**vars(self), "call_ids": {}} == {**vars(whole), "call_ids": {}}


@pytest.mark.parametrize("then", ["cut", "cut_in_event", "error", "abort", "end"])
@pytest.mark.parametrize("name", BODIES)
async def test_it_goes_on_elsewhere(store: Any, name: str, then: str) -> None:
    """The client sees one answer, wherever it breaks."""
    async with parsing_fleet(store, "a", "b") as fleet:
        for events in (4, 9, 20, 45):
            script(fleet, stop_after(events, then))
            _, data = await fleet.stream(BODIES[name])
            assert Answer(data).same(BODIES[name]), events
            for site in fleet.sites:
                await site.announce(store)
        totals = await fleet.settled(completed=4)
        assert totals["resumed"] == 4
        assert totals["broken"] == 0


async def test_it_may_break_again_and_again(store: Any) -> None:
    """Also while it goes on."""
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(6), stop_after(5), stop_after(9, "error"), stop_after(1), stop_after(8))
        asking = asyncio.create_task(fleet.stream(BODIES["both"]))
        while not asking.done():
            for site in fleet.sites:
                await site.announce(store)
            await asyncio.sleep(0.05)
        _, data = await asking
        assert Answer(data).same(BODIES["both"])
        assert (await fleet.settled(completed=1))["resumed"] == 1
        assert not fleet.sites[0].script, "each break came"


async def test_the_site_whose_parsers_fail_is_left_for_another(store: Any) -> None:
    """What its engine said is not lost with it."""
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(12))
        statuses = fleet.sites[0].derender_statuses
        statuses.extend([500])
        for site in fleet.sites:
            site.derender_statuses = statuses
        _, data = await fleet.stream(WITH_TOOLS)
        assert Answer(data).same(WITH_TOOLS)
        await fleet.settled(completed=1)
        assert len({site.site_id for site in fleet.sites if site.inference}) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 500])
async def test_where_no_site_s_parsers_answer_it_ends_with_a_stated_error(store: Any, status: int) -> None:
    """And no site is closed for it."""
    async with parsing_fleet(store, "a", "b", resume_wait_seconds=1) as fleet:
        script(fleet, stop_after(12))
        for site in fleet.sites:
            site.derender_statuses.extend([status] * 99)
        _, data = await fleet.stream(WITH_TOOLS)
        assert Answer(data).error == "stream_lost"
        await fleet.settled(broken=1)
        _, data = await fleet.stream(chat(stream=True))
        await fleet.settled(broken=1, completed=1)


async def test_only_a_site_with_parsers_goes_on(store: Any) -> None:
    """It waits for one, however often others report: they would pass a call's markup on as text."""
    async with parsing_fleet(store, "a", "b", "c", parses="ab") as fleet:
        fleet.site("b").headroom = 0
        await fleet.announce()
        fleet.site("a").script.append(stop_after(12))
        fleet.site("c").state = "draining"  # it begins at a
        await fleet.announce()
        asking = asyncio.create_task(fleet.stream(WITH_TOOLS))
        await until(lambda: fleet.totals["in_flight"] and not fleet.site("a").script, what="it has begun")
        fleet.site("a").state, fleet.site("c").state = "draining", "serving"
        for _ in range(20):
            await fleet.announce()
            await asyncio.sleep(0.05)
        assert not asking.done()
        fleet.site("b").headroom = 9
        await fleet.announce()
        _, data = await asking
        assert Answer(data).same(WITH_TOOLS)
        assert fleet.site("c").inference == []


async def test_a_site_whose_parsers_had_no_time_is_asked_again(store: Any) -> None:
    """As after any break: once it has reported anew."""
    async with parsing_fleet(store, "a", "b", sse_keep_alive_seconds=0.1) as fleet:
        fleet.site("a").script.append(stop_after(12))
        fleet.site("b").state = "draining"  # it begins at a
        await fleet.announce()
        asking = asyncio.create_task(fleet.stream(WITH_TOOLS))
        await until(lambda: not fleet.site("a").script, what="it has begun")
        fleet.site("a").state, fleet.site("b").state = "draining", "serving"
        fleet.site("b").derender_statuses.append(503)
        await fleet.announce()
        await until(lambda: not fleet.site("b").derender_statuses, what="b was asked")
        [exchange] = fleet.router.forwarder.active
        await until(lambda: exchange.placement is None, what="b was left")
        broke_at = exchange.wrote_at
        await until(lambda: exchange.wrote_at > broke_at, what="the watch has written a comment")
        await fleet.announce()
        _, data = await asking
        assert Answer(data).same(WITH_TOOLS)
        assert data.count(b": heron continues") >= 1, "its client is kept alive meanwhile"
        assert {one.path for one in fleet.site("b").inference} == {"/v1/completions"}


async def test_a_stream_that_ends_in_an_error_waits_for_no_parser(store: Any) -> None:
    """The next site is asked at once."""
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(12), stop_after(6, "error"))
        gate = asyncio.Event()
        for site in fleet.sites:
            site.derender_gate = gate
        asking = asyncio.create_task(fleet.stream(WITH_TOOLS))
        await until(lambda: len([one for site in fleet.sites for one in site.inference]) == 3, what="a third")
        gate.set()
        _, data = await asking
        assert Answer(data).same(WITH_TOOLS)


@pytest.mark.parametrize("parses", ["", "a"])
async def test_without_parsers_anywhere_else_it_ends_with_a_stated_error(store: Any, parses: str) -> None:
    """No ids are asked for where nobody could read them."""
    async with parsing_fleet(store, "a", parses=parses, resume_wait_seconds=0.5) as fleet:
        script(fleet, stop_after(12, "cut"))
        asking = asyncio.create_task(fleet.stream(WITH_TOOLS))
        _, data = await asking
        assert Answer(data).error == "stream_lost"
        await fleet.settled(broken=1)
        [first, *_] = fleet.site("a").inference
        assert first.fields.get("return_token_ids") is (True if parses else None)


REFUSED: list[dict[str, Any]] = [
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "write"}}},
    {"stop": ["END"]},
]


@pytest.mark.parametrize("changes", REFUSED, ids=["required", "named", "stop"])
async def test_what_cannot_be_made_on_is_not_continued(store: Any, changes: dict[str, Any]) -> None:
    """A grammar's state is lost with the engine; stop strings would be looked for from the seam on."""
    async with parsing_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(12))
        _, data = await fleet.stream(WITH_TOOLS | changes)
        assert Answer(data).error == "stream_lost"
        await fleet.settled(broken=1)


async def test_a_client_that_goes_away_frees_all(store: Any) -> None:
    """While the parsers are asked, too."""
    async with parsing_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(12), Behaviour(gate=asyncio.Event()))  # it never ends
        asking = asyncio.create_task(fleet.stream(WITH_TOOLS))
        await until(
            lambda: any(one.path == DERENDER_PATH for site in fleet.sites for one in site.seen), what="asked"
        )
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await fleet.settled(client_cancelled=1))["resumed"] == 0


async def test_a_stalled_one_goes_on_elsewhere(store: Any) -> None:
    """A continuation that stands still is a break as any."""
    async with parsing_fleet(store, "a", "b", "c", stall_timeout_seconds=0.5) as fleet:
        script(fleet, stop_after(12), stop_after(6, "hang"))
        _, data = await fleet.stream(BODIES["both"])
        assert Answer(data).same(BODIES["both"])
        assert (await fleet.settled(completed=1))["resumed"] == 1
        assert len([one for site in fleet.sites for one in site.inference]) == 3


async def test_no_client_reaches_the_parsers(store: Any) -> None:
    """They are for routers."""
    async with parsing_fleet(store, "a") as fleet:
        answer = await fleet.post({"model": "m"}, DERENDER_PATH)
        assert answer.status_code == 404
        assert fleet.site("a").seen == [] or all(one.path != DERENDER_PATH for one in fleet.site("a").seen)


STRICT = [{"type": "function", "function": {"name": "write", "strict": True}}]
PONDERING = THINKING | {"messages": [{"role": "user", "content": "ponder"}]}
BY_GRAMMAR = {
    "strict": PONDERING | {"tools": STRICT},
    "demanded": PONDERING | {"tools": TOOLS, "tool_choice": "required"},
    "structured": PONDERING | {"response_format": {"type": "json_object"}},
}


def events_of_reasoning(body: dict[str, Any]) -> int:
    """How many events come before the first that is neither role nor reasoning."""
    events = toy_engine.answer(CHAT_PATH, orjson.dumps(body | {"return_token_ids": True}))
    deltas = [orjson.loads(event[6:])["choices"][0]["delta"] for event in events[1:40]]
    return 1 + next(index for index, delta in enumerate(deltas) if delta.keys() - {"reasoning"})


@pytest.mark.parametrize("name", BY_GRAMMAR)
async def test_before_what_a_grammar_makes_it_goes_on_by_the_new_site_s_grammar(
    store: Any, name: str
) -> None:
    """Which it is asked for; ids that told nothing yet are generated anew."""
    body = BY_GRAMMAR[name]
    last = events_of_reasoning(body)
    assert last > 4
    async with parsing_fleet(store, "a", "b") as fleet:
        for events in range(3, last + 1):
            script(fleet, stop_after(events))
            _, data = await fleet.stream(body)
            assert Answer(data).same(body), events
            for site in fleet.sites:
                await site.announce(store)
        assert (await fleet.settled(completed=last - 2))["resumed"] == last - 2
        seen = [one for site in fleet.sites for one in site.seen]
        assert sum(one.path == RENDER_PATH for one in seen) == last - 2
        continued = [one.fields for one in seen if one.path == "/v1/completions"]
        grammar = {"structural_tag": orjson.dumps(body.get("tools")).decode()}
        assert [fields["structured_outputs"] for fields in continued] == [grammar] * (last - 2)
        assert not any("response_format" in fields for fields in continued)


async def test_inside_of_a_strict_call_it_ends_with_a_stated_error(store: Any) -> None:
    """Its arguments are no JSON yet."""
    body = WITH_TOOLS | {"tools": STRICT}
    events = toy_engine.answer(CHAT_PATH, orjson.dumps(body | {"return_token_ids": True}))
    first = next(index for index, event in enumerate(events) if b"tool_calls" in event)
    async with parsing_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(first + 3))
        _, data = await fleet.stream(body)
        assert Answer(data).error == "stream_lost"
        await fleet.settled(broken=1)


@pytest.mark.parametrize("name", ["demanded", "structured"])
async def test_inside_of_what_a_grammar_makes_it_ends_with_a_stated_error(store: Any, name: str) -> None:
    """Its state is lost."""
    body = BY_GRAMMAR[name]
    async with parsing_fleet(store, "a", "b") as fleet:
        script(fleet, stop_after(events_of_reasoning(body) + 6))
        _, data = await fleet.stream(body)
        assert Answer(data).error == "stream_lost"
        assert (await fleet.settled(broken=1))["resumed"] == 0


async def test_a_site_that_does_not_tell_its_grammar_is_left_for_another(store: Any) -> None:
    """Whatever it answers."""
    body = BY_GRAMMAR["strict"]
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(4))
        statuses = fleet.sites[0].render_statuses
        statuses.extend([400])
        for site in fleet.sites:
            site.render_statuses = statuses
        _, data = await fleet.stream(body)
        assert Answer(data).same(body)
        await fleet.settled(completed=1)
        assert sum(one.path == RENDER_PATH for site in fleet.sites for one in site.seen) == 2


async def test_where_no_site_tells_its_grammar_it_ends_with_a_stated_error(store: Any) -> None:
    """Of an older build."""
    body = BY_GRAMMAR["strict"]
    async with parsing_fleet(store, "a", "b", renders="") as fleet:
        script(fleet, stop_after(4))
        _, data = await fleet.stream(body)
        assert Answer(data).error == "stream_lost"


@pytest.mark.parametrize("name", BY_GRAMMAR)
async def test_of_an_event_with_more_ids_than_it_told_the_rest_is_generated_anew(
    store: Any, name: str
) -> None:
    """A grammar may have begun in it; and so after a second break, when an event is what came in a while."""
    body = BY_GRAMMAR[name]
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        for events in range(2, 7):
            script(
                fleet,
                stop_after(events, base=Behaviour(tokens_an_event=3)),
                stop_after(3, base=Behaviour(tokens_an_event=2)),
            )
            asking = asyncio.create_task(fleet.stream(body))
            while not asking.done():
                for site in fleet.sites:
                    await site.announce(store)
                await asyncio.sleep(0.05)
            _, data = await asking
            assert Answer(data).same(body), events
            assert not fleet.sites[0].script
        await fleet.settled(completed=5)
        prompts = [
            one.fields["prompt"] for site in fleet.sites for one in site.seen if one.path == "/v1/completions"
        ]
        line_break = 5
        assert len(prompts) == 10
        assert not any(line_break in prompt for prompt in prompts), "none goes on behind the reasoning"


async def test_of_a_stream_that_only_lacks_its_end_no_token_is_taken_back(store: Any) -> None:
    """The usage counts the silent ones too."""
    body = BY_GRAMMAR["structured"]
    whole = Answer(b"".join(toy_engine.answer(CHAT_PATH, orjson.dumps(body))))
    async with parsing_fleet(store, "a", "b") as fleet:
        count = len(toy_engine.answer(CHAT_PATH, orjson.dumps(body | {"return_token_ids": True})))
        script(fleet, stop_after(count - 2))
        _, data = await fleet.stream(body)
        assert Answer(data).usage == whole.usage
        await fleet.settled(completed=1)


@pytest.mark.parametrize("status", [400, 500])
async def test_where_parsers_do_not_say_what_an_event_told_another_site_is_asked(
    store: Any, status: int
) -> None:
    """Before the stream goes on."""
    body = BY_GRAMMAR["structured"]
    async with parsing_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(4, base=Behaviour(tokens_an_event=3)))
        statuses = fleet.sites[0].derender_statuses
        statuses.extend([status])
        for site in fleet.sites:
            site.derender_statuses = statuses
        _, data = await fleet.stream(body)
        assert Answer(data).same(body)
        await fleet.settled(completed=1)
