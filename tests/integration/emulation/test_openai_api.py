"""One emulated engine over real HTTP: the official client, vLLM's shapes, continuations, faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio
from support.fake_hardware import MODEL, FakeHardware, fake_hardware
from support.wait import until

from site_agent.emulation import tokens

MESSAGES: Any = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": "baba nifi mope gana"},
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hardware() -> AsyncIterator[FakeHardware]:
    """One process for this module."""
    async with fake_hardware(engines=2) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def url(hardware: FakeHardware) -> AsyncIterator[str]:
    """A fresh engine."""
    yield await hardware.start_engine()
    await hardware.stop_engine()


@pytest_asyncio.fixture(loop_scope="module")
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, unmodified."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def raw(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def events_of(response: httpx.Response) -> list[Any]:
    """Events of a stream until its proper end; [DONE] as it is."""
    lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    return [line if line == "[DONE]" else orjson.loads(line) for line in lines]


async def test_chat(client: openai.AsyncOpenAI) -> None:
    """One answer, usage that adds up."""
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=7)
    choice = answer.choices[0]
    assert choice.message.content == tokens.expected_text_for_messages(MESSAGES, 7)
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 7)


async def test_streamed_chat_with_usage(client: openai.AsyncOpenAI) -> None:
    """The pieces are the whole; one role, one finish, one usage."""
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_completion_tokens=9,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == tokens.expected_text_for_messages(MESSAGES, 9)
    assert [
        chunk.choices[0].delta.role for chunk in chunks if chunk.choices and chunk.choices[0].delta.role
    ] == ["assistant"]
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "length"
    ]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15


async def test_completions(client: openai.AsyncOpenAI) -> None:
    """From a text and from ids, whole and streamed."""
    whole = await client.completions.create(model=MODEL, prompt="baba nifi", max_tokens=5)
    assert whole.choices[0].text == tokens.expected_text_for_prompt("baba nifi", 5)
    stream = await client.completions.create(
        model=MODEL, prompt=tokens.tokenize("baba nifi"), max_tokens=5, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_stop_string(client: openai.AsyncOpenAI) -> None:
    """Both ways of asking stop at the same place."""
    stop = tokens.expected_text_for_messages(MESSAGES, 9).split()[4]
    whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=9, stop=stop)
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.choices[0].message.content or "").split() == (
        tokens.expected_text_for_messages(MESSAGES, 4).split()
    )
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=9, stop=[stop], stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


async def test_models_version_and_health(raw: httpx.AsyncClient, client: openai.AsyncOpenAI) -> None:
    """They answer, and say that this is an emulation."""
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await raw.get("/v1/models")).json()["data"][0]["owned_by"] == "heron-emulation"
    assert "emulated" in (await raw.get("/version")).json()["version"]
    assert (await raw.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/chat/completions", {"model": "x", "messages": MESSAGES}, 404, "`x` does not exist"),
        ("POST", "/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("POST", "/v1/completions", {"prompt": "a", "max_tokens": 9000}, 400, "max_model_len"),
        ("POST", "/detokenize", {"tokens": [-1]}, 400, "out of vocabulary"),
        ("POST", "/detokenize", {"tokens": "x"}, 400, "list of token ids"),
        ("POST", "/sleep", {}, 404, "Not Found"),
        ("GET", "/v1/completions", None, 405, "Method Not Allowed"),
    ],
)
async def test_errors_have_vllms_shape(
    raw: httpx.AsyncClient, method: str, path: str, body: Any, status: int, message: str
) -> None:
    """The code is the status, as a number; control paths do not exist."""
    answer = await raw.request(method, path, json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == status
    assert message in error["message"]


async def test_body_must_be_declared_json(raw: httpx.AsyncClient) -> None:
    """As vLLM demands."""
    answer = await raw.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


async def test_request_id_becomes_the_answers_id(raw: httpx.AsyncClient) -> None:
    """For chat and completions."""
    headers = {"x-request-id": "r-1"}
    chat = await raw.post(
        "/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 1}, headers=headers
    )
    completion = await raw.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=headers)
    assert (chat.json()["id"], completion.json()["id"]) == ("chatcmpl-r-1", "cmpl-r-1")


async def test_tokenize_and_detokenize_are_inverse(raw: httpx.AsyncClient) -> None:
    """For texts and for conversations."""
    encoded = (await raw.post("/tokenize", json={"prompt": "baba zz nifi", "return_token_strs": True})).json()
    assert encoded["tokens"] == tokens.tokenize("baba zz nifi")
    assert (encoded["count"], encoded["max_model_len"]) == (3, 8192)
    chat = (await raw.post("/tokenize", json={"messages": MESSAGES})).json()
    assert chat["tokens"] == tokens.tokenize_chat(MESSAGES)
    answer = tokens.generate(chat["tokens"], 4)
    text = (await raw.post("/detokenize", json={"tokens": answer})).json()["prompt"]
    assert text == tokens.expected_text_for_messages(MESSAGES, 4)


async def test_continuation_is_exact_at_every_cut(raw: httpx.AsyncClient) -> None:
    """From ids over /v1/completions, and by text over the chat: the joined text is the unbroken one."""
    count = 8
    whole = {"messages": MESSAGES, "max_tokens": count, "stream": True, "return_token_ids": True}
    async with raw.stream("POST", "/v1/chat/completions", json=whole) as response:
        events = await events_of(response)
    prompt_ids = events[0]["prompt_token_ids"]
    choices = [event["choices"][0] for event in events[1:-1]]
    pieces = [choice["delta"]["content"] for choice in choices]
    ids = [token for choice in choices for token in choice["token_ids"]]
    assert "".join(pieces) == tokens.expected_text_for_messages(MESSAGES, count)
    for cut in range(count):
        from_ids = {"prompt": prompt_ids + ids[:cut], "max_tokens": count - cut}
        answer = (await raw.post("/v1/completions", json=from_ids)).json()
        assert "".join(pieces[:cut]) + answer["choices"][0]["text"] == "".join(pieces)
        by_text = {
            "messages": [*MESSAGES, {"role": "assistant", "content": "".join(pieces[:cut])}],
            "continue_final_message": True,
            "add_generation_prompt": False,
            "max_tokens": count - cut,
        }
        answer = (await raw.post("/v1/chat/completions", json=by_text)).json()
        assert "".join(pieces[:cut]) + answer["choices"][0]["message"]["content"] == "".join(pieces)


async def test_client_that_leaves_frees_its_place_streaming_or_not(
    raw: httpx.AsyncClient, hardware: FakeHardware
) -> None:
    """The sequence is aborted, and counted so."""
    for stream in (True, False):
        body = {"messages": MESSAGES, "max_tokens": 8000, "stream": stream}
        task = asyncio.create_task(raw.post("/v1/chat/completions", json=body))
        await hardware.until_running(1)
        task.cancel()
        await hardware.until_running(0)
    page = (await raw.get("/metrics")).text
    assert (
        f'vllm:request_success_total{{engine="0",finished_reason="abort",model_name="{MODEL}"}} 2.0' in page
    )


async def test_stop_cuts_streams_without_an_end_and_the_port_refuses(
    raw: httpx.AsyncClient, hardware: FakeHardware
) -> None:
    """Like a killed engine: neither finish_reason nor [DONE] nor a final chunk."""
    body = {"messages": MESSAGES, "max_tokens": 8000, "stream": True}
    received: list[str] = []

    async def read() -> None:
        async with raw.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                received.append(line)  # noqa: PERF401 -- the test watches it grow

    reading = asyncio.create_task(read())
    await until(lambda: len(received) > 4, what="the first tokens")
    await hardware.stop_engine()
    with pytest.raises(httpx.RemoteProtocolError):
        await reading
    assert "[DONE]" not in "".join(received)
    assert '"finish_reason":"' not in "".join(received)
    with pytest.raises(httpx.ConnectError):
        await raw.get("/health")
    assert await hardware.state() == "stopped"


async def test_crash_is_a_cut_with_a_reason(raw: httpx.AsyncClient, hardware: FakeHardware) -> None:
    """A non-streaming request sees its connection end; the engine can be started again."""
    request = asyncio.create_task(raw.post("/v1/chat/completions", json={"messages": MESSAGES}))
    await hardware.until_running(1)
    await hardware.fault("crash")
    with pytest.raises(httpx.RemoteProtocolError):
        await request
    engine = await hardware.engine()
    assert engine["state"] == "crashed"
    assert "killed" in engine["exit_reason"]
    assert await hardware.start_engine()


async def test_sigterm_ends_streams_with_abort_and_done(
    raw: httpx.AsyncClient, hardware: FakeHardware
) -> None:
    """A [DONE] that is no whole answer; whole ones come as 200 with what there is."""
    streaming = {"messages": MESSAGES, "max_tokens": 8000, "stream": True}
    whole = asyncio.create_task(raw.post("/v1/chat/completions", json={"messages": MESSAGES}))
    async with raw.stream("POST", "/v1/chat/completions", json=streaming) as response:
        await hardware.until_running(2)
        lines = response.aiter_lines()
        seen = [await anext(lines) for _ in range(3)]
        await hardware.fault("abort")
        seen += [line async for line in lines]
    last = [line.removeprefix("data: ") for line in seen if line][-2:]
    assert orjson.loads(last[0])["choices"][0]["finish_reason"] == "abort"
    assert last[1] == "[DONE]"
    answer = await whole
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["finish_reason"] == "abort"
    assert await hardware.state() == "crashed"


async def test_error_fault_comes_in_band(raw: httpx.AsyncClient, hardware: FakeHardware) -> None:
    """An error event inside a 200, then [DONE]; a 500 for a whole answer; the engine goes on."""
    whole = asyncio.create_task(raw.post("/v1/chat/completions", json={"messages": MESSAGES}))
    body = {"messages": MESSAGES, "max_tokens": 8000, "stream": True}
    async with raw.stream("POST", "/v1/chat/completions", json=body) as response:
        await hardware.until_running(2)
        await hardware.fault("error")
        events = await events_of(response)
    assert events[-1] == "[DONE]"
    assert events[-2]["error"]["code"] == 500
    assert (await whole).status_code == 500
    assert (await raw.get("/health")).status_code == 200


async def test_stalled_engine_is_healthy_and_silent_until_it_goes_on(
    raw: httpx.AsyncClient, hardware: FakeHardware
) -> None:
    """Headers come, tokens do not; afterwards the answer is whole."""
    await hardware.fault("stall")
    body = {"messages": MESSAGES, "max_tokens": 5, "stream": True}
    async with raw.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        assert (await raw.get("/health")).status_code == 200
        assert (await hardware.engine())["waiting"] == 1
        await hardware.fault("unstall")
        events = await events_of(response)
    text = "".join(event["choices"][0]["delta"]["content"] for event in events[:-1])
    assert text == tokens.expected_text_for_messages(MESSAGES, 5)


async def test_full_queue_is_503_or_an_error_event_inside_a_200() -> None:
    """vLLM's two ways to say that it is overloaded."""
    async with fake_hardware(max_concurrency=1, max_waiting=0) as small:
        url = await small.start_engine()
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as raw:
            running = asyncio.create_task(raw.post("/v1/chat/completions", json={"messages": MESSAGES}))
            await small.until_running(1)
            body = {"messages": MESSAGES, "max_tokens": 5}
            whole = await raw.post("/v1/chat/completions", json=body)
            assert whole.status_code == 503
            assert "cannot accept new requests" in whole.json()["error"]["message"]
            async with raw.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
                events = await events_of(response)
            assert response.status_code == 200
            assert events[0]["error"]["code"] == 503
            assert events[1] == "[DONE]"
            running.cancel()
            await small.until_running(0)
