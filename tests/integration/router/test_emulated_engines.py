"""Resume on the project's own emulated engines: every word is checked, wherever the power goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from support import conversations
from support.fake_hardware import fake_hardware
from support.router_fleet import RouterFleet, router_fleet
from support.stub_site import StubSite
from support.wait import until

from site_agent.emulation import tokens

MESSAGES = [{"role": "user", "content": "tell me of the wind at sea"}]
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


SHARED_WORDS, OWN_WORDS, ANSWER_WORDS, TURNS = 2000, 400, 12, 5


class _Hardware:
    """Two sites of one emulated engine each, described to the router as sites."""

    def __init__(self) -> None:
        self.hosts: dict[str, Any] = {}
        self.sites: dict[str, StubSite] = {}
        self.model = ""


@contextlib.asynccontextmanager
async def two_sites(
    store: Any, *, token_ids: bool = True, **options: Any
) -> AsyncIterator[tuple[RouterFleet, _Hardware]]:
    hardware = _Hardware()
    async with contextlib.AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(router_fleet(store, announce=False, **options))
        for name in ("north", "coast"):
            host = await stack.enter_async_context(fake_hardware())
            url = await host.start_engine()
            models = (await fleet.client.get(f"{url}/v1/models")).json()
            hardware.model = models["data"][0]["id"]
            site = StubSite(name, model=hardware.model, token_ids=token_ids)
            site.port = int(url.rpartition(":")[2])
            hardware.hosts[name], hardware.sites[name] = host, site
            await store.publish_site_info(name, site.info())
            fleet.sites.append(site)
        for _ in range(2):
            await fleet.announce()
        await until(
            lambda: all(
                view.token_ids == token_ids for view in fleet.router.view.snapshot.models[hardware.model]
            ),
            what="capabilities known",
        )
        yield fleet, hardware


def read(data: bytes) -> tuple[str, list[str], list[dict[str, int]]]:
    assert data.endswith(b"data: [DONE]\n\n")
    assert b'token_ids":[' not in data
    text, finishes, usages = "", [], []
    for event in data.split(b"\n\n")[:-2]:
        value = orjson.loads(event.removeprefix(b"data: "))
        assert "error" not in value, value
        if value.get("usage"):
            usages.append(value["usage"])
        for choice in value["choices"]:
            source = choice.get("delta", choice)
            text += source.get("content", source.get("text")) or ""
            finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
    return text, finishes, usages


@pytest.mark.parametrize("token_ids", [True, False], ids=["by ids", "by text"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_every_word_is_right_when_an_engine_is_stopped(store: Any, path: str, token_ids: bool):
    """By ids and by text, on both paths: the sequence of the unbroken run, and a usage that adds up."""
    count = 60
    async with two_sites(store, token_ids=token_ids) as (fleet, hardware):
        if path == "/v1/completions":
            prompt = "tell me of the wind"
            body = {"prompt": prompt, "max_tokens": count}
            expected, prompt_tokens = tokens.expected_text_for_prompt(prompt, count), 5
        else:
            body = {"messages": MESSAGES, "max_tokens": count}
            expected, prompt_tokens = tokens.expected_text_for_messages(MESSAGES, count), 7
        asking = asyncio.create_task(fleet.stream({"model": hardware.model, **body, **STREAM}, path))
        await until(
            lambda: any(x.is_committed and x.scanner.events > 5 for x in fleet.router.forwarder.active),
            what="some words are out",
        )
        [exchange] = fleet.router.forwarder.active
        await hardware.hosts[exchange.site_id].stop_engine()
        status, data = await asking
        text, finishes, usages = read(data)
        assert (status, text, finishes) == (200, expected, ["length"])
        assert usages == [
            {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": count,
                "total_tokens": prompt_tokens + count,
            }
        ]
        totals = await fleet.settled(completed=1)
        assert totals["resumed"] == 1


async def test_every_word_is_right_in_every_api(store: Any):
    """Chat, Messages and Responses say the same words, whole and streamed, with the official clients."""
    asked: Any = MESSAGES
    expected = tokens.expected_text_for_messages(MESSAGES, 9)
    async with two_sites(store, token_ids=True) as (fleet, hardware):
        model = hardware.model
        async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="x", max_retries=0) as client:
            chat = await client.chat.completions.create(model=model, messages=asked, max_tokens=9)
            whole = await client.responses.create(model=model, input=asked, max_output_tokens=9)
            async with client.responses.stream(model=model, input=asked, max_output_tokens=9) as stream:
                streamed = (await stream.get_final_response()).output_text
        async with AsyncAnthropic(base_url=fleet.url, api_key="x", max_retries=0) as claude:
            message: Any = await claude.messages.create(model=model, messages=asked, max_tokens=9)
            async with claude.messages.stream(model=model, messages=asked, max_tokens=9) as events:
                text = "".join([piece async for piece in events.text_stream])
        said = [chat.choices[0].message.content, whole.output_text, streamed, message.content[0].text, text]
        assert said == [expected] * 5
        await fleet.settled(completed=5)


async def message_whose_engine_stops(fleet: RouterFleet, hardware: _Hardware) -> bytes:
    """What its client gets."""
    body = {"model": hardware.model, "messages": MESSAGES, "max_tokens": 400, "stream": True}
    asking = asyncio.create_task(fleet.stream(body, "/v1/messages"))
    await until(
        lambda: any(x.is_committed and x.scanner.events > 5 for x in fleet.router.forwarder.active),
        what="some words are out",
    )
    [exchange] = fleet.router.forwarder.active
    await hardware.hosts[exchange.site_id].stop_engine()
    return (await asking)[1]


async def test_a_message_whose_engine_stops_goes_on_elsewhere(store: Any):
    """It was asked for as a chat."""
    async with two_sites(store, token_ids=True) as (fleet, hardware):
        data = await message_whose_engine_stops(fleet, hardware)
        assert data.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert b'"output_tokens":400}' in data
        assert (await fleet.settled(completed=1))["resumed"] == 1


async def test_a_message_as_it_came_whose_engine_stops_ends_with_a_stated_error(store: Any):
    """vLLM ends it without a stop reason and then cleanly; the client must not take that for the whole."""
    async with two_sites(store, token_ids=True, streams_as_chats=False) as (fleet, hardware):
        data = await message_whose_engine_stops(fleet, hardware)
        assert data.rpartition(b"event: ")[2].startswith(b"error\ndata: ")
        assert b"message_stop" not in data
        assert b'"code":"stream_lost"' in data
        await fleet.settled(broken=1)


@contextlib.asynccontextmanager
async def reporting(fleet: RouterFleet) -> AsyncIterator[None]:
    """Sites report every second: what they do not say for three counts as stale."""

    async def report() -> None:
        while True:
            await asyncio.sleep(1.0)
            await fleet.announce()

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()


async def hit_rate(fleet: RouterFleet, hardware: _Hardware, *, clients: int, seed: int) -> float:
    """Of a replay over the fleet as it is, by the engines' own counters."""

    async def counters() -> tuple[float, float]:
        pages = [(await fleet.client.get(f"{site.url}/metrics")).text for site in fleet.sites]
        return conversations.cache_counters(pages)

    async def ask(messages: list[dict[str, str]]) -> str:
        answer = await fleet.post(conversations.body_of(hardware.model, messages, ANSWER_WORDS))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    before = await counters()
    await conversations.talk(
        ask,
        conversations=2 * clients,
        turns=TURNS,
        clients=clients,
        shared_words=SHARED_WORDS,
        own_words=OWN_WORDS,
        seed=seed,
    )
    after = await counters()
    return (after[1] - before[1]) / (after[0] - before[0])


@pytest.mark.parametrize("affinity", [True, False], ids=["with affinity", "without"])
async def test_two_sites_have_the_hit_rate_of_one(store: Any, affinity: bool):
    """A replay in turns over a shared prefix of 2,000 tokens, and even load; without it history is lost."""
    async with two_sites(store, affinity=affinity) as (fleet, hardware), reporting(fleet):
        await fleet.set_state("coast", "draining")
        alone = await hit_rate(fleet, hardware, clients=8, seed=1)
        await fleet.set_state("coast", "serving")
        entries = fleet.router.view.registry.entries
        before = {name: entry.requests for name, entry in entries.items()}
        both = await hit_rate(fleet, hardware, clients=8, seed=2)
        sent = [entry.requests - before[name] for name, entry in entries.items()]
        assert alone > 0.8
        if affinity:
            assert both >= 0.95 * alone
            assert max(sent) <= 1.25 * sum(sent) / len(sent)
        else:
            assert both < 0.95 * alone
