"""Messages and Responses of an emulated engine: the official clients, the words, and vLLM's shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import orjson
import pytest
from support.fake_hardware import MODEL, fake_hardware
from support.recorded_site import recorded

from site_agent.emulation import tokens

MESSAGES: Any = [{"role": "user", "content": "baba nifi mope gana"}]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A fresh engine."""
    async with fake_hardware() as hardware:
        yield await hardware.start_engine()


def names(data: bytes) -> list[str]:
    """The events of a stream, repeated ones once."""
    found = [
        line.removeprefix(b"event: ").decode() for line in data.split(b"\n") if line.startswith(b"event: ")
    ]
    return [name for place, name in enumerate(found) if place == 0 or found[place - 1] != name]


async def test_messages(url: str) -> None:
    """Whole and streamed the same words as a chat; counted; stopped by a word."""
    expected = tokens.expected_text_for_messages(MESSAGES, 8)
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        whole: Any = await client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=8)
        assert (whole.content[0].text, whole.stop_reason) == (expected, "max_tokens")
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (4, 8)
        async with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=8) as stream:
            assert "".join([piece async for piece in stream.text_stream]) == expected
            assert (await stream.get_final_message()).usage.output_tokens == 8
        counted = await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
        assert counted.input_tokens == 4
        word = expected.split()[3]
        stopped: Any = await client.messages.create(
            model=MODEL, messages=MESSAGES, max_tokens=8, stop_sequences=[word]
        )
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(
                model=MODEL,
                messages=MESSAGES,
                max_tokens=8,
                tools=[{"name": "t", "input_schema": {"type": "object"}}],
                tool_choice={"type": "any"},
            )


async def test_responses(url: str) -> None:
    """Whole and streamed the same words; nothing is stored."""
    expected = tokens.expected_text_for_messages(MESSAGES, 8)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        asked: Any = {"model": MODEL, "input": MESSAGES[0]["content"], "max_output_tokens": 8}
        whole = await client.responses.create(**asked)
        assert (whole.output_text, whole.status) == (expected, "incomplete")
        assert whole.usage is not None
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (4, 8)
        parts: Any = [{"role": "user", "content": [{"type": "input_text", "text": MESSAGES[0]["content"]}]}]
        assert (await client.responses.create(**asked | {"input": parts})).output_text == expected
        async with client.responses.stream(**asked) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        assert "".join(deltas) == expected
        for call in (
            client.responses.retrieve(whole.id),
            client.responses.cancel(whole.id),
            client.responses.create(**asked, previous_response_id=whole.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(**asked, background=True)


@pytest.mark.parametrize(
    ("path", "recording", "body"),
    [
        ("/v1/messages", "messages", {"messages": MESSAGES, "max_tokens": 6}),
        ("/v1/responses", "responses", {"input": "hi", "max_output_tokens": 6}),
    ],
)
async def test_the_shapes_are_those_that_were_recorded(
    url: str, path: str, recording: str, body: dict[str, Any]
) -> None:
    """Events in the same order; every field of an answer is one that vLLM has."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        whole = (await client.post(path, json={"model": MODEL, **body})).json()
        stream = (await client.post(path, json={"model": MODEL, **body, "stream": True})).content
    assert list(whole.keys() - orjson.loads(recorded(f"{recording}.json")).keys()) == []
    assert names(stream) == names(recorded(f"{recording}.sse"))
