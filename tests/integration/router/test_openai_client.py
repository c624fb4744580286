"""The official `openai` client, unmodified, against the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI
from support import toy_engine
from support.router_fleet import CHAT, RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, stop_after

MESSAGES: Any = [{"role": "user", "content": "hi"}]


def text_of(path: str, body: dict[str, Any]) -> str:
    events = toy_engine.answer(path, orjson.dumps(body))
    choices = [orjson.loads(event.removeprefix(b"data: "))["choices"][0] for event in events[:-1]]
    return "".join(choice.get("delta", choice).get("content", choice.get("text", "")) for choice in choices)


CHAT_TEXT = text_of("/v1/chat/completions", CHAT)


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """Two sites."""
    async with router_fleet(store, "a", "b", hold_seconds=0.2) as running:
        yield running


@pytest.fixture
async def client(fleet: RouterFleet) -> AsyncIterator[AsyncOpenAI]:
    """As a user makes it."""
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="anything", max_retries=0) as made:
        yield made


async def test_chat(fleet: RouterFleet, client: AsyncOpenAI):
    """In one piece."""
    answer = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=30, temperature=0)
    assert answer.choices[0].message.content == CHAT_TEXT
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 30
    await fleet.settled(completed=1)


@pytest.mark.parametrize("breaks", [False, True])
async def test_streaming_chat_with_usage(fleet: RouterFleet, client: AsyncOpenAI, breaks: bool):
    """Whether its site dies on the way or not."""
    if breaks:
        fleet.site("a").script = fleet.site("b").script
        fleet.site("b").script.append(stop_after(9, "cut_in_event"))
    stream = await client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        max_tokens=30,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, finish, usage = "", None, None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert (text, finish) == (CHAT_TEXT, "length")
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 30, 32)
    totals = await fleet.settled(completed=1)
    assert totals["resumed"] == breaks


async def test_completions(fleet: RouterFleet, client: AsyncOpenAI):
    """In one piece and streamed."""
    body = {"model": "m", "prompt": "hello", "max_tokens": 20}
    expected = text_of("/v1/completions", body)
    whole = await client.completions.create(model="m", prompt="hello", max_tokens=20)
    assert whole.choices[0].text == expected
    stream = await client.completions.create(model="m", prompt="hello", max_tokens=20, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == expected
    await fleet.settled(completed=2)


async def test_embeddings(fleet: RouterFleet, client: AsyncOpenAI):
    """Forwarded the same way."""
    answer = await client.embeddings.create(model="m", input="hi", encoding_format="float")
    assert answer.data[0].embedding == [0.5]
    await fleet.settled(completed=1)


async def test_models(client: AsyncOpenAI):
    """The union over the sites, and one by name."""
    assert [model.id async for model in client.models.list()] == ["m"]
    assert (await client.models.retrieve("m")).owned_by == "heron"


async def test_errors_arrive_as_the_client_s_own_exceptions(fleet: RouterFleet, client: AsyncOpenAI):
    """With status, code and parameter."""
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="other", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    assert "'other'" in str(missing.value)
    assert "m" in str(missing.value)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens="many")  # type: ignore[arg-type, call-overload]
    assert bad.value.param == "max_tokens"
    for site in fleet.sites:
        site.default = Behaviour(status=500)
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="m", messages=MESSAGES)


async def test_no_power_is_a_503_with_retry_after(fleet: RouterFleet, client: AsyncOpenAI):
    """And a code that a program can read."""
    for site in fleet.sites:
        site.state = "dark"
    await fleet.announce()
    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert refused.value.status_code == 503
    assert refused.value.code == "no_power"
    assert int(refused.value.response.headers["retry-after"]) > 0


async def test_a_broken_stream_raises(fleet: RouterFleet, client: AsyncOpenAI):
    """A stated error in mid-stream is an exception, not an end."""
    for site in fleet.sites:
        site.default = stop_after(5)
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, logprobs=True)
    with pytest.raises(openai.APIError) as broken:
        async for _ in stream:
            pass
    assert broken.value.code == "stream_lost"
    await fleet.settled(broken=1)


async def test_a_body_that_is_too_large(store: Any):
    """413 in OpenAI's shape."""
    async with router_fleet(store, "a", max_body_bytes=2048) as fleet:
        async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="x", max_retries=0) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "x" * 5000}]
                )
        assert refused.value.status_code == 413
        assert refused.value.code == "request_too_large"


async def test_paths_and_methods_that_there_are_not(fleet: RouterFleet):
    """vLLM's control paths least of all."""
    for path in ("/sleep", "/v1/nothing", "/pause", "/abort_requests", "/v1/load_lora_adapter"):
        response = await fleet.client.post(path, json=chat())
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
    response = await fleet.client.get("/v1/chat/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST, OPTIONS")
    assert response.json()["error"]["code"] == "method_not_allowed"
    response = await fleet.client.post("/v1/models")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert not any(site.seen for site in fleet.sites)
