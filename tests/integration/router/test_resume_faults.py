"""What once went wrong between a stream's first byte and its end: each a small fleet and one fault."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import orjson
import pytest
from support import toy_engine
from support.router_fleet import RouterFleet, chat, router_fleet, seconds_when_looked_at
from support.stub_site import Behaviour, StubSite, stop_after
from support.wait import until

from gateway.api_paths import CHAT_PATH, DERENDER_PATH
from router.live import resume, site_questions, watch

BODY = chat(stream=True)
COMPLETION = "/v1/completions"


def text_of(data: bytes, path: str = CHAT_PATH) -> str:
    """What a client reads; comments say nothing."""
    events = [event for event in data.split(b"\n\n")[:-2] if not event.startswith(b":")]
    choices = [choice for event in events for choice in orjson.loads(event[6:])["choices"]]
    return "".join(one["text"] if path == COMPLETION else one["delta"].get("content", "") for one in choices)


WHOLE = text_of(b"".join(toy_engine.answer(CHAT_PATH, orjson.dumps(BODY))))


def script(fleet: RouterFleet, *behaviours: Behaviour) -> None:
    shared = fleet.sites[0].script
    shared.extend(behaviours)
    for site in fleet.sites[1:]:
        site.script = shared


class EncodedSite(StubSite):
    """Compresses its first continuation, which nobody asked for."""

    has_encoded = False

    async def _answer(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes
    ) -> bool:
        if path != COMPLETION or EncodedSite.has_encoded:
            return await super()._answer(writer, behaviour, path, raw)
        EncodedSite.has_encoded = True
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        writer.write(head + b"content-length: 6\r\n\r\nGZIP\n\n")
        return True


async def test_a_continuation_that_is_compressed_is_none(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes never reach the client; another site goes on."""
    monkeypatch.setattr(EncodedSite, "has_encoded", False)
    async with router_fleet(store, "a", "b", "c", make_site=EncodedSite) as fleet:
        script(fleet, stop_after(6))
        _, data = await fleet.stream(BODY)
        assert EncodedSite.has_encoded
        assert b"GZIP" not in data
        assert text_of(data) == WHOLE
        await fleet.settled(completed=1)


@pytest.mark.parametrize("breaks", [1, 2])
async def test_a_question_about_ids_has_its_own_time(
    store: Any, monkeypatch: pytest.MonkeyPatch, breaks: int
) -> None:
    """Neither the time in which the stream had to begin, nor the silence of a site before, counts for it."""
    monkeypatch.setattr(watch, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(watch, "OVER_SECONDS", 0.05)
    ages = seconds_when_looked_at(monkeypatch)
    async with router_fleet(store, "a", "b", "c", first_byte_timeout_seconds=0.3) as fleet:
        for _ in range(6):  # now there are connections to use again
            await fleet.stream(BODY)
        begun = asyncio.Event()
        script(fleet, Behaviour(gate=begun, events=6), *[stop_after(3, "error")] * (breaks - 1))
        gates = deque(asyncio.Event() for _ in range(breaks))
        *others, last = gates
        for site in fleet.sites:
            site.detokenize_gates = gates
        asking = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: bool(ages) and ages[-1] > 0.4, what="its beginning would be late by now")
        for event in (begun, *others):
            event.set()
        await until(lambda: not gates, what="the last site was asked")
        looks = len(ages)
        await until(lambda: len(ages) > looks + 20, what="the watch has looked often")
        last.set()
        _, data = await asking
        assert text_of(data) == WHOLE
        entries = fleet.router.view.registry.entries.values()
        assert sum(entry.results["failed"] for entry in entries) == 0
        await fleet.settled(completed=7)


class OpenEndSite(StubSite):
    """Says all of a stream, and does not end the connection."""

    async def _stream(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes
    ) -> bool:
        for event in toy_engine.answer(path, raw):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await asyncio.Event().wait()
        return False


@pytest.mark.parametrize("how", ["the router stops", "its client leaves"])
async def test_a_stream_that_is_whole_is_no_broken_one(
    store: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its site's connection may end a little later: nothing more is said to the client meanwhile."""
    monkeypatch.setattr(watch, "OVER_SECONDS", 60)
    async with router_fleet(store, "a", make_site=OpenEndSite) as fleet:
        data = b""
        async with fleet.client.stream("POST", CHAT_PATH, content=orjson.dumps(BODY)) as response:
            async for piece in response.aiter_raw():
                data += piece
                if data.endswith(b"data: [DONE]\n\n"):
                    if how == "its client leaves":
                        break
                    await fleet.router.forwarder.terminate()
        assert data.count(b"[DONE]") == 1
        assert text_of(data) == WHOLE
        await fleet.settled(completed=1)


@pytest.mark.parametrize("after", ["0", "0.001"])
async def test_a_site_that_pushes_back_for_no_time_at_all_is_not_asked_for_ever(
    store: Any, after: str
) -> None:
    """It says no room figure, and `retry-after: 0`: the resume ends when its time is over."""
    async with router_fleet(store, "a", "b", resume_wait_seconds=0.5) as fleet:
        for site in fleet.sites:
            site.headroom = None
            site.default = Behaviour(status=503, headers={"retry-after": after})
        await fleet.announce()
        script(fleet, stop_after(5))
        async with asyncio.timeout(5):
            _, data = await fleet.stream(BODY)
        assert data.count(b'"code":"stream_lost"') == 1
        await fleet.settled(broken=1)
        asked = [one for site in fleet.sites for one in site.inference if one.path == COMPLETION]
        assert len(asked) < 40


NATIVE: dict[str, dict[str, Any]] = {
    "/v1/messages": {"max_tokens": 30, "messages": [{"role": "user", "content": "why"}]},
    "/v1/responses": {"max_output_tokens": 30, "input": "why"},
}


def parsing(name: str) -> StubSite:
    return StubSite(name, parses_ids=True)


@pytest.mark.parametrize("path", NATIVE)
async def test_a_client_that_was_told_that_its_stream_is_broken_does_not_wait_for_it(
    store: Any, path: str
) -> None:
    """It sees nothing that follows: its site is let go at once."""
    choice = {"index": 0, "delta": {"content": 5}, "finish_reason": None}
    chunk = {"id": "x", "model": "m", "created": 1, "choices": [choice]}
    nonsense = b"data: %b\n\n" % orjson.dumps(chunk)
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        script(fleet, Behaviour(first_event=nonsense, events=1, then="hang"))
        async with asyncio.timeout(5):
            _, data = await fleet.stream(NATIVE[path] | {"model": "m", "stream": True}, path)
        assert data.count(b"event: error") == 1
        await fleet.settled(broken=1)
        assert len([one for site in fleet.sites for one in site.inference]) == 1


async def test_who_waits_for_its_turn_at_parsers_that_say_nothing_does_not_wait_for_all_before_it(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them has its time to answer; ten would take ten times as long."""
    monkeypatch.setattr(site_questions, "MEANINGS_AT_ONCE", 1)
    monkeypatch.setattr(site_questions, "DERENDER_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(site_questions, "TURN_SECONDS", 0.5, raising=False)
    body = BODY | {"tools": [{"type": "function", "function": {"name": "write"}}], "max_tokens": 60}
    async with router_fleet(store, "a", "b", make_site=parsing, resume_wait_seconds=0.3) as fleet:
        for site in fleet.sites:
            site.derender_gate = asyncio.Event()
        await fleet.set_state("b", "draining")
        script(fleet, *[stop_after(12)] * 10)
        began = asyncio.Event()
        fleet.sites[0].script = deque([Behaviour(gate=began, events=20)] * 10)
        asking = [asyncio.create_task(fleet.stream(body)) for _ in range(10)]
        active = fleet.router.forwarder.active
        await until(lambda: sum(one.is_committed for one in active) == 10, what="all have begun")
        await fleet.set_state("b", "serving")
        await fleet.set_state("a", "draining")
        began.set()
        fleet.sites[1].script.clear()
        async with asyncio.timeout(6):
            answers = await asyncio.gather(*asking)
        assert all(data.count(b'_lost"') == 1 for _, data in answers)
        assert any(one.path == DERENDER_PATH for one in fleet.sites[1].seen)
        await fleet.settled(broken=10)


async def test_sites_that_break_before_they_told_anything_are_tried_so_often(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that tell nothing are no step forward where they are generated anew: it may be this stream that
    breaks whatever takes it."""
    monkeypatch.setattr(resume, "MAX_FRUITLESS_RESUMES", 2)
    tools = [{"type": "function", "function": {"name": "write", "strict": True}}]
    thinks = {"messages": [{"role": "user", "content": "think"}], "chat_template_kwargs": {"thinks": True}}
    body = BODY | thinks | {"tools": tools, "max_tokens": 60}
    options: dict[str, Any] = {"stall_timeout_seconds": 0.5, "resume_wait_seconds": 1}
    async with router_fleet(store, *"abcdefgh", make_site=parsing, **options) as fleet:
        for site in fleet.sites:
            site.default = stop_after(1, "hang")  # half a character
        script(fleet, stop_after(13))
        _, data = await fleet.stream(body)
        assert data.count(b'"code":"stream_lost"') == 1
        seen = [one for site in fleet.sites for one in site.inference if one.path == COMPLETION]
        assert all(one.raw == seen[0].raw for one in seen), "from the same place each time"
        assert sum(len(site.inference) for site in fleet.sites) == 1 + 3
        await fleet.settled(broken=1)


async def test_a_site_that_refuses_a_continuation_is_left_for_another(store: Any) -> None:
    """Its engines may take less than those where it began."""
    async with router_fleet(store, "a", "b", "c") as fleet:
        script(fleet, stop_after(6), Behaviour(status=400))
        _, data = await fleet.stream(BODY)
        assert text_of(data) == WHOLE
        await fleet.settled(completed=1)


async def test_where_every_site_refuses_a_continuation_its_client_is_told_at_once(store: Any) -> None:
    """Nothing is gained by waiting for room."""
    async with router_fleet(store, "a", "b", "c", resume_wait_seconds=60) as fleet:
        for site in fleet.sites:
            site.default = Behaviour(status=400)
        script(fleet, stop_after(6))
        async with asyncio.timeout(10):
            _, data = await fleet.stream(BODY)
        assert data.count(b'"code":"stream_lost"') == 1
        asked = [one for site in fleet.sites for one in site.inference if one.path == COMPLETION]
        assert len(asked) == 3
        await fleet.settled(broken=1)
