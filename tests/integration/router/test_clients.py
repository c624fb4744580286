"""Clients as their users have them, against the router; the site answers what a real vLLM answered."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import orjson
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from support.recorded_site import EVENTS, Asked, RecordedSite, Reply, recorded
from support.router_fleet import RouterFleet, router_fleet

MESSAGES: Any = [{"role": "user", "content": "what is the weather"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """Two sites with recordings; of each API's streams, too."""
    options: dict[str, Any] = {"hold_seconds": 0.2, "streams_as_chats": False}
    async with router_fleet(store, "a", "b", make_site=RecordedSite, **options) as running:
        yield running


@pytest.fixture
async def client(fleet: RouterFleet) -> AsyncIterator[AsyncOpenAI]:
    """As a user makes it."""
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="anything", max_retries=0) as made:
        yield made


@pytest.fixture
async def claude(fleet: RouterFleet) -> AsyncIterator[AsyncAnthropic]:
    """Anthropic's client, pointed at the router."""
    async with AsyncAnthropic(base_url=fleet.url, api_key="anything", max_retries=0) as made:
        yield made


def asked(fleet: RouterFleet) -> list[Asked]:
    return [one for site in fleet.sites if isinstance(site, RecordedSite) for one in site.asked]


def override(fleet: RouterFleet, reply: Reply) -> None:
    for site in fleet.sites:
        assert isinstance(site, RecordedSite)
        site.override = lambda _asked: reply


# the openai client


async def test_openai_synchronous(fleet: RouterFleet):
    """The blocking client, whole and streamed, from a thread of its own."""

    def use() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{fleet.url}/v1", api_key="anything", max_retries=0) as client:
            whole = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=9)
            stream = client.responses.create(model="tiny", input="hi", stream=True)
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            return whole.choices[0].message.content, text

    content, text = await asyncio.to_thread(use)
    assert content
    assert text == "mil propergedSpecialg exception"
    await fleet.settled(completed=2)


async def test_openai_tools(fleet: RouterFleet, client: AsyncOpenAI):
    """A call with its arguments, and the result sent back."""
    answer = await client.chat.completions.create(model="tiny", messages=MESSAGES, tools=[TOOL])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, orjson.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "windy"}
    await client.chat.completions.create(
        model="tiny", messages=[*MESSAGES, message.model_dump(exclude_none=True), result], tools=[TOOL]
    )
    assert result in [one.fields["messages"][-1] for one in asked(fleet)]
    await fleet.settled(completed=2)


async def test_openai_streamed_tools(fleet: RouterFleet, client: AsyncOpenAI):
    """The arguments come in pieces and are put together."""
    async with client.chat.completions.stream(model="tiny", messages=MESSAGES, tools=[TOOL]) as stream:
        final = await stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert calls is not None
    assert orjson.loads(calls[0].function.arguments) == {"city": "Oslo"}
    await fleet.settled(completed=1)


async def test_openai_structured_output(fleet: RouterFleet, client: AsyncOpenAI):
    """`response_format` reaches the engine as it was given; the answer is JSON of that schema."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer = await client.chat.completions.create(model="tiny", messages=MESSAGES, response_format=wanted)
    assert orjson.loads(answer.choices[0].message.content or "") == {"city": "Oslo"}
    assert asked(fleet)[0].fields["response_format"] == wanted


async def test_openai_vision(fleet: RouterFleet, client: AsyncOpenAI):
    """Image parts arrive as they were sent, also in a stream that may be resumed."""
    content: Any = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    messages: Any = [{"role": "user", "content": content}]
    override(fleet, Reply(body=recorded("chat_schema.json")))
    await client.chat.completions.create(model="tiny", messages=messages)
    override(fleet, Reply(content_type="text/event-stream; charset=utf-8", body=recorded("chat_tool.sse")))
    stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
    assert [chunk async for chunk in stream]
    assert [one.fields["messages"] for one in asked(fleet)] == [messages, messages]
    await fleet.settled(completed=2)


async def test_openai_responses(fleet: RouterFleet, client: AsyncOpenAI):
    """Created, continued, read again, cancelled; tools and structured output."""
    first = await client.responses.create(model="tiny", input="hi", max_output_tokens=6)
    assert first.output_text == "mil propergedSpecialg exception"
    second = await client.responses.create(model="tiny", input="go on", previous_response_id=first.id)
    assert second.id != first.id
    again = await client.responses.retrieve(first.id)
    assert (again.id, again.output_text) == (first.id, first.output_text)
    background = await client.responses.create(model="tiny", input="hi", background=True)
    assert background.status == "queued"
    assert (await client.responses.cancel(background.id)).status == "cancelled"
    tool: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": None}
    called: Any = await client.responses.create(model="tiny", input="weather", tools=[tool])
    assert orjson.loads(called.output[0].arguments) == {"city": "Oslo"}
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    structured = await client.responses.create(model="tiny", input="weather", text=text)
    assert orjson.loads(structured.output_text) == {"city": "Oslo"}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_nobody")


async def test_openai_streamed_response(fleet: RouterFleet, client: AsyncOpenAI):
    """Its events in order, ended by `response.completed`."""
    stream = await client.responses.create(model="tiny", input="hi", stream=True)
    types = [event.type async for event in stream]
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    await fleet.settled(completed=1)


async def test_openai_response_that_breaks_off(fleet: RouterFleet, client: AsyncOpenAI):
    """docs/resume.md: refused. What came before is whole, and the last event is the API's own error."""
    events = recorded("responses.sse").split(b"\n\n")
    override(fleet, Reply(content_type=EVENTS, body=b"\n\n".join(events[:5]) + b"\n\n"))
    stream = await client.responses.create(model="tiny", input="hi", stream=True)
    got: list[Any] = [event async for event in stream]
    assert [event.type for event in got[:-1]] == [
        orjson.loads(event.partition(b"data: ")[2])["type"] for event in events[:5]
    ]
    assert (got[-1].type, got[-1].code) == ("error", "stream_lost")
    assert len(asked(fleet)) == 1
    await fleet.settled(broken=1)


async def test_openai_audio(fleet: RouterFleet, client: AsyncOpenAI):
    """An upload with its model in the form; speech comes back as bytes."""
    sound = ("sound.wav", b"RIFF" + bytes(range(256)) * 40, "audio/wav")
    heard = await client.audio.transcriptions.create(model="tiny", file=sound)
    assert heard.text == "hello"
    assert (await client.audio.translations.create(model="tiny", file=sound)).text == "hello"
    assert all(sound[1] in one.raw for one in asked(fleet))
    override(fleet, Reply(content_type="audio/mpeg", body=b"\xff\xfb\x90" * 100))
    speech = await client.audio.speech.create(model="tiny", voice="alloy", input="hi")
    assert speech.content == b"\xff\xfb\x90" * 100
    await fleet.settled(completed=3)


# the anthropic client


async def test_anthropic_messages(fleet: RouterFleet, claude: AsyncAnthropic):
    """Whole, streamed, and counted."""
    whole = await claude.messages.create(model="tiny", max_tokens=6, messages=MESSAGES)
    assert whole.content[0].type == "text"
    assert whole.content[0].text == "mil propergedSpecialg exception"
    assert whole.stop_reason == "max_tokens"
    async with claude.messages.stream(model="tiny", max_tokens=6, messages=MESSAGES) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == "mil propergedSpecialg exception"
    assert final.usage.output_tokens == 6
    counted = await claude.messages.count_tokens(model="tiny", messages=MESSAGES)
    assert counted.input_tokens == 15
    assert asked(fleet)[0].headers["anthropic-version"]
    assert "x-api-key" not in asked(fleet)[0].headers
    await fleet.settled(completed=3)


async def test_anthropic_tools(fleet: RouterFleet, claude: AsyncAnthropic):
    """A tool call, whole and streamed."""
    tool: Any = {"name": "get_weather", "input_schema": SCHEMA}
    whole = await claude.messages.create(model="tiny", max_tokens=60, messages=MESSAGES, tools=[tool])
    used: Any = whole.content[0]
    assert (whole.stop_reason, used.name, used.input) == ("tool_use", "get_weather", {"city": "Oslo"})
    async with claude.messages.stream(model="tiny", max_tokens=60, messages=MESSAGES, tools=[tool]) as stream:
        streamed: Any = (await stream.get_final_message()).content[0]
    assert streamed.input == {"city": "Oslo"}
    await fleet.settled(completed=2)


async def test_anthropic_errors(fleet: RouterFleet, claude: AsyncAnthropic):
    """The router's own, and those of an engine that speaks OpenAI's, arrive as that client's exceptions."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude.messages.create(model="other", max_tokens=6, messages=MESSAGES)
    error: Any = missing.value.body
    assert error["type"] == "error"
    assert error["error"]["type"] == "not_found_error"
    assert "Models: tiny." in error["error"]["message"]
    override(fleet, Reply(status=400, body=recorded("messages_400.json")))
    with pytest.raises(anthropic.BadRequestError) as bad:
        await claude.messages.create(model="tiny", max_tokens=6, messages=MESSAGES)
    error = bad.value.body
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert "max_tokens" in error["error"]["message"]
    for site in fleet.sites:
        site.state = "dark"
    await fleet.announce()
    with pytest.raises(anthropic.APIStatusError) as refused:
        await claude.messages.create(model="tiny", max_tokens=6, messages=MESSAGES)
    error = refused.value.body
    assert (refused.value.status_code, error["error"]["type"]) == (503, "overloaded_error")
    assert error["error"]["code"] == "no_power"


# curl


async def curl(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Exit status and output of curl."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    process = await asyncio.create_subprocess_exec(
        program,
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out


async def test_curl_asks_and_streams(fleet: RouterFleet):
    """With `-d` and `-N`; a large body goes by `Expect: 100-continue`."""
    url = f"{fleet.url}/v1/responses"
    body = orjson.dumps({"model": "tiny", "input": "x" * 2_000_000, "stream": True})
    status, out = await curl(
        "-N", "-H", "content-type: application/json", "--data-binary", "@-", url, stdin=body
    )
    assert status == 0
    assert out.count(b"event: ") == recorded("responses.sse").count(b"event: ")
    assert asked(fleet)[0].raw == body


async def test_curl_offers_http_2(fleet: RouterFleet):
    """With `--http2` it asks to change over plain HTTP: it is answered by HTTP/1.1, its body whole."""
    _, version = await curl("--version")
    if b"HTTP2" not in version:
        pytest.skip("this curl knows no HTTP/2")
    body = orjson.dumps({"model": "tiny", "input": "hi", "odd": "\u00e9"})
    url = f"{fleet.url}/v1/responses"
    status, out = await curl("-i", "--http2", "--data-binary", "@-", url, url, stdin=body)
    assert (status, out.count(b"HTTP/1.1 200")) == (0, 2)
    assert [one.raw for one in asked(fleet)] == [body, body]
    assert all("upgrade" not in one.headers for one in asked(fleet))
    await fleet.settled(completed=2)


async def test_curl_uploads_a_form(fleet: RouterFleet, tmp_path: Any):
    """`-F file=@…`, and the answer's status and headers with `-i`."""
    sound = tmp_path / "sound.wav"
    sound.write_bytes(bytes(range(256)) * 1000)
    status, out = await curl(
        "-i",
        *("-F", f"file=@{sound}", "-F", "model=tiny", "-F", "response_format=json"),
        f"{fleet.url}/v1/audio/transcriptions",
    )
    assert status == 0
    assert b"HTTP/1.1 200" in out
    assert b"x-heron-site: " in out
    assert sound.read_bytes() in asked(fleet)[0].raw
    await fleet.settled(completed=1)


async def test_curl_heads_the_models(fleet: RouterFleet):
    """`-I` gets the head alone, with the length that `GET` would have."""
    status, head = await curl("-I", f"{fleet.url}/v1/models")
    _, body = await curl(f"{fleet.url}/v1/models")
    assert status == 0
    assert f"content-length: {len(body)}".encode() in head.lower()
