"""Streams of Messages and Responses go on elsewhere as chats, of which their clients see nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest
from support import toy_engine
from support.router_fleet import RouterFleet, router_fleet
from support.stub_site import Behaviour, StubSite, stop_after
from support.wait import until

from gateway.outlet import Outlet
from router.policy.messages_as_chat import messages_as_chat
from router.policy.responses_as_chat import responses_as_chat

CHAT_PATH = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {}}
THINKS = {"chat_template_kwargs": {"thinks": True}}
REASONS = {"reasoning": {"effort": "low"}}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 60,
    "messages": [{"role": "user", "content": "why"}],
    "temperature": 0,
    "stream": True,
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "max_output_tokens": 60,
    "input": "why",
    "temperature": 0,
    "stream": True,
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("/v1/messages", MESSAGES),
    "messages with tools": (
        "/v1/messages",
        MESSAGES | THINKS | {"tools": [{"name": "write", "input_schema": SCHEMA}]},
    ),
    "responses": ("/v1/responses", RESPONSES),
    "responses with tools": (
        "/v1/responses",
        RESPONSES
        | REASONS
        | {"tools": [{"type": "function", "name": "write", "parameters": SCHEMA, "strict": False}]},
    ),
}
AS_CHAT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/v1/messages": messages_as_chat,
    "/v1/responses": responses_as_chat,
}


def translated(name: str) -> tuple[bytes, Outlet]:
    path, body = BODIES[name]
    made = AS_CHAT[path](body)
    assert made is not None
    return orjson.dumps(made.fields), made.outlet


def unbroken(name: str) -> bytes:
    """What the client of a whole stream gets."""
    chat, outlet = translated(name)
    return b"".join(map(outlet.feed, toy_engine.answer(CHAT_PATH, chat)))


def events_of(data: bytes) -> list[dict[str, Any]]:
    """Comments left out."""
    found = []
    for event in data.split(b"\n\n"):
        if event and not event.startswith(b":"):
            name, payload = event.split(b"\n")
            value = orjson.loads(payload.removeprefix(b"data: "))
            assert name == b"event: " + value["type"].encode()
            found.append(value)
    return found


def loss_in(data: bytes) -> dict[str, Any]:
    """The stated error at the end; of a response's stream the failed response comes behind it."""
    events = events_of(data)
    if events[-1]["type"] == "response.failed":
        failed = events.pop()
        assert failed["response"]["error"] == {"code": "server_error", "message": events[-1]["message"]}
    assert events[-1]["type"] == "error"
    return events[-1]


def told(data: bytes) -> list[Any]:
    """What a client makes of a stream: deltas in a row are one, and what is anybody's choice is left out."""
    made: list[Any] = []
    for event in events_of(data):
        for name in ("sequence_number", "obfuscation"):
            event.pop(name, None)
        delta = event.get("delta")
        text = delta if isinstance(delta, str) else None
        if isinstance(delta, dict):
            [key] = delta.keys() - {"type", "stop_reason", "stop_sequence", "signature"} or [None]
            text = delta.pop(key) if key is not None else None
        elif text is not None:
            del event["delta"]
        if text is not None and made and made[-1][0] == event:
            made[-1][1] += text
        else:
            made.append([event, text or ""])
    return orjson.loads(_without_call_ids(orjson.dumps(made)))


def summary(data: bytes) -> list[Any]:
    """The same by kind: in what sites say after a break, text and calls are in no order."""
    texts: dict[str, str] = {}
    rest = []
    for event, text in told(data):
        kind = str(event["type"]) + str((event.get("delta") or {}).get("type"))
        if text:
            is_call = "json" in kind or "arguments" in kind
            texts[kind + str(len(texts)) if is_call else kind] = texts.get(kind, "") + text
        elif event["type"] in ("message_delta", "message_start", "response.created"):
            rest.append(event)
        elif event["type"] == "response.completed":
            rest.append(event["response"]["usage"])
    return [sorted(texts.values()), rest]


def _without_call_ids(data: bytes) -> bytes:
    """The toy engine numbers its calls."""
    number = 0
    while (start := data.find(b"call-")) >= 0:
        end = data.index(b'"', start)
        data = data.replace(data[start:end], b"c%d" % number)
        number += 1
    return data


def counted(fleet: RouterFleet) -> dict[tuple[str, str], float]:
    """What the metric says, by API and result."""
    families = fleet.router.metrics.registry.collect()
    [streams] = [one for one in families if one.name == "heron_router_streams_as_chats"]
    return {(one.labels["api"], one.labels["result"]): one.value for one in streams.samples}


def parsing(name: str) -> StubSite:
    return StubSite(name, parses_ids=True)


def script(fleet: RouterFleet, *behaviours: Behaviour) -> None:
    shared = fleet.sites[0].script
    shared.extend(behaviours)
    for site in fleet.sites[1:]:
        site.script = shared


@pytest.mark.parametrize("name", BODIES)
async def test_a_whole_stream_is_a_chat_at_the_site_and_none_to_the_client(store: Any, name: str) -> None:
    """A query, as Anthropic's client has it, means nothing to a chat."""
    path, body = BODIES[name]
    async with router_fleet(store, "a", make_site=parsing) as fleet:
        _, data = await fleet.stream(body, f"{path}?beta=true")
        assert told(data) == told(unbroken(name))
        assert b"token_ids" not in data
        [seen] = [one for one in fleet.sites[0].seen if one.raw]
        assert seen.path == CHAT_PATH
        assert seen.fields == orjson.loads(translated(name)[0]) | {"return_token_ids": True}
        await fleet.settled(completed=1)


@pytest.mark.parametrize("then", ["cut", "error", "abort"])
@pytest.mark.parametrize("name", BODIES)
async def test_a_broken_one_goes_on_elsewhere(store: Any, name: str, then: str) -> None:
    """The client sees one answer, wherever it breaks."""
    path, body = BODIES[name]
    compared = summary if "tools" in name else told
    whole = compared(unbroken(name))
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        for events in (3, 6, 12, 25, 50):
            script(fleet, stop_after(events, then))
            _, data = await fleet.stream(body, path)
            assert compared(data) == whole, events
            for site in fleet.sites:
                await site.announce(store)
        assert (await fleet.settled(completed=5))["resumed"] == 5
        assert counted(fleet) == {(path.removeprefix("/v1/"), "chat"): 5}


NATIVE = {
    "a system message amid the others": (
        "/v1/messages",
        MESSAGES | {"messages": [*MESSAGES["messages"], {"role": "system", "content": "x"}]},
    ),
    "in one piece": ("/v1/messages", MESSAGES | {"stream": False}),
    "a field of tomorrow": ("/v1/messages", MESSAGES | {"tomorrow": 1}),
    "what cannot go on as a chat either": ("/v1/messages", MESSAGES | {"stop_sequences": ["x" * 3000]}),
    "to be kept": ("/v1/responses", RESPONSES | {"store": True}),
    "in the background": ("/v1/responses", RESPONSES | {"background": True}),
    "going on from another": ("/v1/responses", RESPONSES | {"previous_response_id": "resp_1"}),
}


@pytest.mark.parametrize("name", NATIVE)
async def test_what_is_no_chat_goes_to_the_site_as_it_came(store: Any, name: str) -> None:
    """Byte for byte."""
    path, body = NATIVE[name]
    async with router_fleet(store, "a", make_site=parsing) as fleet:
        raw = orjson.dumps(body)
        await fleet.client.post(path, content=raw)
        assert [(one.path, one.raw) for one in fleet.sites[0].seen if one.raw] == [(path, raw)]
        wanted = {(path.removeprefix("/v1/"), "request"): 1} if body["stream"] else {}
        assert counted(fleet) == wanted


@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_it_can_be_switched_off(store: Any, name: str) -> None:
    """Then every stream goes as it came."""
    path, body = BODIES[name]
    async with router_fleet(store, "a", make_site=parsing, streams_as_chats=False) as fleet:
        await fleet.client.post(path, content=orjson.dumps(body))
        assert {one.path for one in fleet.sites[0].seen if one.raw} == {path}


@pytest.mark.parametrize("store_field", [{}, {"store": None}, {"store": False}])
async def test_where_engines_keep_responses_only_what_need_not_be_kept_is_a_chat(
    store: Any, store_field: dict[str, Any]
) -> None:
    """A client may come back for it."""

    def keeping(name: str) -> StubSite:
        site = parsing(name)
        capabilities = orjson.loads(site.info())["capabilities"]
        site.info_fields["capabilities"] = capabilities | {"keeps_responses": True}
        return site

    async with router_fleet(store, "a", make_site=keeping) as fleet:
        await fleet.client.post("/v1/responses", content=orjson.dumps(RESPONSES | store_field))
        [path] = {one.path for one in fleet.sites[0].seen if one.raw}
        assert path == (CHAT_PATH if store_field == {"store": False} else "/v1/responses")


SUPPORT = Path(__file__).parents[2] / "support/recorded"
AGENTS = {
    one["name"]: (f"/v1/{api}", one["body"])
    for api in ("messages", "responses")
    for one in orjson.loads((SUPPORT / f"agents_{api}.json").read_bytes())
}


def saying(inline_system: dict[str, str | None]) -> Callable[[str], StubSite]:
    """Sites that say so of their engines."""

    def make(name: str) -> StubSite:
        site = parsing(name)
        capabilities = orjson.loads(site.info())["capabilities"]
        site.info_fields["capabilities"] = capabilities | {"inline_system": inline_system[name]}
        return site

    return make


@pytest.mark.parametrize("name", AGENTS)
async def test_an_agents_stream_goes_on_elsewhere(store: Any, name: str) -> None:
    """As Claude Code and Codex ask, with fewer words."""
    path, body = AGENTS[name]
    limit = "max_tokens" if path == "/v1/messages" else "max_output_tokens"
    body = body | {"model": "m", limit: 60, "temperature": 0}
    if "budget_tokens" in body.get("thinking", {}):
        body |= {"thinking": {"type": "adaptive"}}  # a budget is below the limit, and 1,024 at least
    make = saying({"a": "merged", "b": "merged"})
    async with router_fleet(store, "a", "b", make_site=make) as fleet:
        _, whole = await fleet.stream(body, path)
        for events in (4, 20):
            script(fleet, stop_after(events))
            _, data = await fleet.stream(body, path)
            assert summary(data) == summary(whole), events
            for site in fleet.sites:
                await site.announce(store)
        assert (await fleet.settled(completed=3))["resumed"] == 2


@pytest.mark.parametrize(
    ("said", "is_chat"),
    [
        ({"a": "in_place", "b": "in_place"}, True),
        ({"a": "merged", "b": "merged"}, True),
        ({"a": "in_place", "b": "merged"}, False),
        ({"a": "in_place", "b": None}, False),
        ({"a": "upside_down", "b": "upside_down"}, False),
    ],
)
async def test_system_messages_amid_the_others_are_as_all_sites_have_them(
    store: Any, said: dict[str, str | None], is_chat: bool
) -> None:
    """Or it is theirs to say."""
    body = MESSAGES | {"system": "x", "messages": [*MESSAGES["messages"], {"role": "system", "content": "y"}]}
    async with router_fleet(store, "a", "b", make_site=saying(said)) as fleet:
        await fleet.client.post("/v1/messages", content=orjson.dumps(body))
        seen = [one for site in fleet.sites for one in site.seen if one.raw]
        assert {one.path for one in seen} == {CHAT_PATH if is_chat else "/v1/messages"}
        if is_chat:
            roles = [one["role"] for one in seen[0].fields["messages"]]
            assert roles == (["system", "user", "system"] if said["a"] == "in_place" else ["system", "user"])


async def test_refusals_are_in_the_clients_words(store: Any) -> None:
    """Before a site is asked, by a site, and where none has room."""
    async with router_fleet(store, "a", make_site=parsing, hold_seconds=0.1) as fleet:
        path, body = BODIES["messages"]
        fleet.sites[0].script.extend([Behaviour(status=400), Behaviour(status=400)])
        answer = await fleet.client.post(path, content=orjson.dumps(body))
        assert (answer.status_code, answer.json()["type"]) == (400, "error")
        assert answer.json()["error"]["message"] == "as scripted"
        answer = await fleet.client.post(path, content=orjson.dumps(body | {"model": "other"}))
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        await fleet.set_state("a", "dark")
        answer = await fleet.client.post(path, content=orjson.dumps(body))
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")
        assert answer.json()["error"]["code"] == "no_power"
        assert int(answer.headers["retry-after"]) > 0
        answer = await fleet.client.post("/v1/responses", content=orjson.dumps(RESPONSES))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_power")
        await fleet.settled(client_error=2, shed=2)


@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_where_nobody_can_go_on_it_ends_with_the_stated_error_of_its_api(store: Any, name: str) -> None:
    """And with nothing behind it."""
    path, body = BODIES[name]
    async with router_fleet(store, "a", make_site=parsing, resume_wait_seconds=0.2) as fleet:
        script(fleet, stop_after(8))
        _, data = await fleet.stream(body, path)
        last = loss_in(data)
        assert (last.get("error") or last)["code"] == "stream_lost"
        await fleet.settled(broken=1)


async def test_anthropics_client_sees_one_message(store: Any) -> None:
    """As its users have it, while the site goes dark."""
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        script(fleet, stop_after(20))
        async with anthropic.AsyncAnthropic(base_url=fleet.url, api_key="x", max_retries=0) as client:
            fields: dict[str, Any] = {key: MESSAGES[key] for key in ("model", "max_tokens", "messages")}
            greedy = {"temperature": 0, **THINKS}
            async with client.messages.stream(**fields, extra_body=greedy) as stream:
                message = await stream.get_final_message()
        assert message.stop_reason == "max_tokens"
        assert message.usage.output_tokens == 60
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert (await fleet.settled(completed=1))["resumed"] == 1


async def test_openais_client_sees_one_response(store: Any) -> None:
    """The same."""
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        script(fleet, stop_after(20))
        async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="x", max_retries=0) as client:
            stream = await client.responses.create(
                model="m", input="why", max_output_tokens=60, temperature=0, stream=True, extra_body=REASONS
            )
            events = [event async for event in stream]
        response = events[-1].response  # type: ignore[union-attr]
        assert response.usage is not None
        assert response.usage.output_tokens == 60
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert [event.sequence_number for event in events] == list(range(len(events)))  # type: ignore[union-attr]
        assert (await fleet.settled(completed=1))["resumed"] == 1


@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_a_chat_that_a_site_refuses_is_asked_for_as_it_came(store: Any, name: str) -> None:
    """What is wrong with a request is told in its own words; or nothing is, as chats go."""
    path, body = BODIES[name]
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        whole = b'{"as": "it came"}'
        script(fleet, Behaviour(status=400), Behaviour(body=whole, status=422))
        answer = await fleet.client.post(f"{path}?beta=true", content=orjson.dumps(body))
        assert (answer.status_code, answer.content) == (422, whole)
        seen = [one for site in fleet.sites for one in site.seen if one.raw]
        assert {(one.path, one.raw) for one in seen} >= {(path, orjson.dumps(body))}
        assert sorted(one.path for one in seen) == sorted([CHAT_PATH, path])
        await fleet.settled(client_error=1)
        assert counted(fleet) == {(path.removeprefix("/v1/"), "refused"): 1}


@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "GPT_OSS"])
async def test_a_model_that_speaks_harmony_makes_its_responses_itself(store: Any, model: str) -> None:
    """As far as its name says so; its messages are chats there too."""

    def harmonious(name: str) -> StubSite:
        return StubSite(name, parses_ids=True, model=model)

    async with router_fleet(store, "a", make_site=harmonious) as fleet:
        for path, body in (BODIES["responses"], BODIES["messages"]):
            await fleet.client.post(path, content=orjson.dumps(body | {"model": model}))
        assert [one.path for one in fleet.sites[0].seen if one.raw] == ["/v1/responses", CHAT_PATH]


async def test_where_a_site_cannot_go_on_with_it_nothing_is_made_a_chat(store: Any) -> None:
    """All of them must: this one calls tools, and not every site tells what ids mean."""
    path, body = BODIES["messages with tools"]

    def mixed(name: str) -> StubSite:
        return StubSite(name, parses_ids=name == "a")

    async with router_fleet(store, "a", "b", make_site=mixed) as fleet:
        for _ in range(4):
            await fleet.client.post(path, content=orjson.dumps(body))
        assert {one.path for site in fleet.sites for one in site.seen if one.raw} == {path}
        assert counted(fleet) == {("messages", "sites"): 4}


async def test_where_engines_have_no_token_ids_nothing_is_made_a_chat(store: Any) -> None:
    """SGLang, say."""
    path, body = BODIES["messages"]
    async with router_fleet(store, "a", token_ids=False) as fleet:
        await fleet.client.post(path, content=orjson.dumps(body))
        assert {one.path for one in fleet.sites[0].seen if one.raw} == {path}


@pytest.mark.parametrize("lacking", [CHAT_PATH, "/v1/messages"])
async def test_where_a_site_lacks_one_of_the_paths_nothing_is_made_a_chat(store: Any, lacking: str) -> None:
    """It could not be asked as it came, or not as a chat."""
    path, body = BODIES["messages"]

    def partly(name: str) -> StubSite:
        site = parsing(name)
        capabilities = orjson.loads(site.info())["capabilities"]
        if name == "b":
            capabilities["paths"] = [one for one in capabilities["paths"] if one != lacking]
        site.info_fields["capabilities"] = capabilities
        return site

    async with router_fleet(store, "a", "b", make_site=partly) as fleet:
        for _ in range(4):
            await fleet.client.post(path, content=orjson.dumps(body))
        assert {one.path for site in fleet.sites for one in site.seen if one.raw} == {path}


@pytest.mark.parametrize("then", ["end", "cut"])
@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_what_cannot_be_made_its_apis_is_broken_and_goes_nowhere(
    store: Any, name: str, then: str
) -> None:
    """The client is told so, and no site makes what nobody would see."""
    path, body = BODIES[name]
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        choice = {"index": 0, "delta": {"content": 5}, "finish_reason": None}
        chunk = {"id": "x", "model": "m", "created": 1, "choices": [choice]}
        nonsense = b"data: %b\n\n" % orjson.dumps(chunk)
        script(fleet, Behaviour(first_event=nonsense, events=1 if then == "cut" else None))
        _, data = await fleet.stream(body, path)
        assert loss_in(data)["type"] == "error"
        assert (await fleet.settled(broken=1))["resumed"] == 0
        assert len([one for site in fleet.sites for one in site.seen if one.raw]) == 1


async def test_an_answer_in_one_piece_to_a_stream_is_asked_for_as_it_came(store: Any) -> None:
    """It would be a chat's."""
    path, body = BODIES["messages"]
    async with router_fleet(store, "a", make_site=parsing) as fleet:
        script(fleet, Behaviour(status=404, body=b"{}"), Behaviour(status=429, body=b"{}"))
        answer = await fleet.client.post(path, content=orjson.dumps(body))
        assert answer.status_code == 429
        script(fleet, Behaviour(status=429, body=b'{"error": {"message": "no", "code": 429, "type": "x"}}'))
        answer = await fleet.client.post(path, content=orjson.dumps(body))
        assert (answer.status_code, answer.json()["type"]) == (429, "error")
        assert [one.path for one in fleet.sites[0].seen if one.raw] == [CHAT_PATH, path, CHAT_PATH]


async def under_way(fleet: RouterFleet, name: str) -> asyncio.Task[tuple[int, bytes]]:
    """A stream whose first words are out, and whose site says no more."""
    path, body = BODIES[name]
    script(fleet, stop_after(8, "hang"))
    asking = asyncio.create_task(fleet.stream(body, path))
    active = fleet.router.forwarder.active
    await until(lambda: any(one.is_committed for one in active), what="it has begun")
    return asking


@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_a_client_that_goes_away_frees_all(store: Any, name: str) -> None:
    """As of a chat."""
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        asking = await under_way(fleet, name)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await fleet.settled(client_cancelled=1))["resumed"] == 0


@pytest.mark.parametrize("name", ["messages", "responses"])
async def test_a_router_that_stops_says_so_in_the_clients_words(store: Any, name: str) -> None:
    """Nothing follows the error."""
    async with router_fleet(store, "a", "b", make_site=parsing) as fleet:
        asking = await under_way(fleet, name)
        await fleet.router.forwarder.terminate()
        _, data = await asking
        last = loss_in(data)
        assert "shutting down" in (last.get("error") or last)["message"]
        await fleet.settled(broken=1)
