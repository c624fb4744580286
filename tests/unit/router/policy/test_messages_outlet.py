"""Chats' streams as messages, as vLLM makes them: tests/support/record_as_chat_messages.py recorded how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import error_body
from router.policy.body import Api
from router.policy.messages_outlet import MessagesOutlet
from router.policy.stream_end import SHUTDOWN, loss_events

RECORDED = json.loads((Path(__file__).parents[3] / "support/recorded/as_chat_messages.json").read_text())
STREAMS = {one["name"]: one for one in RECORDED["streams"]}
HELLO: Any = [{"role": "user", "content": "Hello"}]
DONE = b"data: [DONE]\n\n"
DEEP = b"[" * 500 + b"]" * 500


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _chunk(delta: Any, finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({"id": "chatcmpl-1", "model": "m", "choices": [choice]} | more)


USAGE = _event(
    {"id": "chatcmpl-1", "model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
)
ROLE = _chunk({"role": "assistant", "content": ""}, usage={"prompt_tokens": 7, "completion_tokens": 0})


def _unsigned(events: bytes) -> str:
    return re.sub(r'"signature":"[0-9a-f]{32}"', '"signature":""', events.decode())


def _said(*pieces: bytes) -> list[dict[str, Any]]:
    """The events that come of a chat's, parsed."""
    outlet = MessagesOutlet()
    events = b"".join(outlet.feed(piece) for piece in pieces).split(b"\n\n")
    return [orjson.loads(event.split(b"data: ", 1)[1]) for event in events if b"data: " in event]


def _text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"].get("text", "") for event in events if "delta" in event)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_the_bytes_that_vllm_would_send(name: str):
    """Event by event, and all in one piece."""
    events = [_event(chunk) for chunk in STREAMS[name]["chunks"]] + [DONE]
    outlet = MessagesOutlet()
    assert _unsigned(b"".join(outlet.feed(event) for event in events)) == STREAMS[name]["events"]
    assert _unsigned(MessagesOutlet().feed(b"".join(events))) == STREAMS[name]["events"]


@pytest.mark.parametrize("name", STREAMS)
def test_comments_pass_where_they_stand(name: str):
    """They keep a client's connection while its answer moves to another site."""
    outlet = MessagesOutlet()
    comment = b": keep-alive\n\n"
    out = [outlet.feed(comment)]
    for chunk in STREAMS[name]["chunks"]:
        out.append(outlet.feed(_event(chunk) + comment))
        assert out[-1].endswith(comment)
    out.append(outlet.feed(DONE))
    assert _unsigned(b"".join(out).replace(comment, b"")) == STREAMS[name]["events"]


def test_larger_pieces_of_another_engine_go_on_with_the_open_block():
    """A resumed stream: no second role, several things in one event, token ids beside them."""
    events = _said(
        ROLE,
        _chunk({"reasoning": "Hm"}),
        _chunk({"reasoning": "m. So", "content": "Let me look."}),
        _chunk(
            {
                "content": None,
                "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}],
            }
        ),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x": 1}'}}]}, token_ids=[1, 2, 3]),
        _chunk({}, "tool_calls"),
        USAGE + DONE,
    )
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [start["type"] for start in starts] == ["thinking", "text", "tool_use"]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_content_of_the_first_chunk_is_told():
    """vLLM's first has the role alone."""
    events = _said(_chunk({"role": "assistant", "content": "Hel"}), _chunk({"content": "lo"}, "stop"), USAGE)
    assert events[0]["type"] == "message_start"
    assert _text_of(events) == "Hello"


def test_an_older_engines_reasoning_is_thinking():
    """It may write both names."""
    events = _said(
        ROLE, _chunk({"reasoning_content": "a"}), _chunk({"reasoning": "b", "reasoning_content": "b"})
    )
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [delta["thinking"] for delta in deltas] == ["a", "b"]


def test_a_stream_without_its_usage_ends_all_the_same():
    """The last counts that were told are the answer's."""
    last = _chunk({}, "length", usage={"prompt_tokens": 7, "completion_tokens": 3})
    events = _said(ROLE, _chunk({"content": "x"}), last, DONE)
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["usage"] == {"input_tokens": 7, "output_tokens": 3}


@pytest.mark.parametrize("before", [b"", ROLE + _chunk({"content": "x"})])
@pytest.mark.parametrize(("code", "why"), [("power_lost", "why"), ("stream_lost", SHUTDOWN)])
def test_a_lost_stream_ends_as_it_does_without_translation(before: bytes, code: Any, why: str):
    """The same bytes, and nothing behind them."""
    outlet = MessagesOutlet()
    outlet.feed(before)
    assert outlet.feed(loss_events(Api.CHAT, code, why)) == loss_events(Api.MESSAGES, code, why)
    assert outlet.feed(DONE + b": comment\n\n" + USAGE) == b""


@pytest.mark.parametrize(
    "fault",
    [
        b"data: {\n\n",
        b"data: 1\n\n",
        DONE,
        _event({"choices": None}),
        _event({"choices": [1]}),
        _event({"choices": [{"index": 0}]}),
        _event({"error": "lost"}),
        b'data: {"error":{"code":%b}}\n\n' % DEEP,
        _chunk({}, "stop") + _event({"choices": [], "usage": {"prompt_tokens": -1}}),
        _chunk({"content": 1}),
        _chunk({"reasoning": [1]}),
        _chunk({"tool_calls": {"index": 0}}),
        _chunk({"tool_calls": [{"index": "0"}]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}),
        _chunk({"tool_calls": [{"index": 0, "id": 3, "function": {"name": "x"}}]}),
        _chunk({}, 3),
        _event({"choices": [], "usage": {"prompt_tokens": "7"}}),
        USAGE + _chunk({"content": "after the end"}),
    ],
)
def test_what_is_no_chunk_ends_the_message_with_an_error(fault: bytes):
    """No answer may look whole that is not."""
    events = _said(ROLE, _chunk({"content": "x"}), fault, DONE)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["code"] == "stream_lost"
    assert "message_stop" not in [event["type"] for event in events]


def test_an_error_with_a_code_that_is_none_is_told_without():
    """Whatever the code is: it may be nested deeper than can be written."""
    events = _said(ROLE, b'data: {"error":{"message":"lost","code":%b}}\n\n' % DEEP)
    assert events[-1]["error"] == {"type": "api_error", "message": "lost", "code": None}


def test_thinking_is_signed_the_same_each_time():
    """By its message and its place in it: nothing here is random."""
    events = [_event(chunk) for chunk in STREAMS["reasoning"]["chunks"]]
    first, again = (MessagesOutlet().feed(b"".join(events)) for _ in range(2))
    assert first == again
    assert b'"signature_delta"' in first


def test_an_engines_error_is_told_in_its_words():
    """It ends the message, as the router's own does."""
    error = {"message": "CUDA error", "type": "InternalServerError", "param": None, "code": 500}
    events = _said(ROLE, _event({"error": error}), DONE)
    assert events[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "CUDA error", "code": 500},
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=12,
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=3) | JSON,
        "reasoning": st.none() | st.text(max_size=3) | JSON,
        "tool_calls": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 2)},
                optional={
                    "id": st.sampled_from(["a", "b", None, 1]),
                    "function": st.fixed_dictionaries(
                        {}, optional={"name": st.sampled_from(["f", None, 1]), "arguments": st.text() | JSON}
                    ),
                },
            ),
            max_size=3,
        ),
    },
)
CHUNKS = (
    st.builds(_chunk, DELTAS, st.sampled_from(["stop", "length", None, 1]), usage=JSON, stop_reason=JSON)
    | st.builds(_event, JSON)
    | st.sampled_from([USAGE, DONE, ROLE, b": x\n\n", b"event: x\n\n", b"\n\n", b"data:\n\n"])
)


@given(st.lists(CHUNKS, max_size=8), st.booleans())
def test_no_stream_raises(chunks: list[bytes], begins: bool):
    """Whatever an engine sends; the blocks that were begun are ended, unless the message failed."""
    outlet = MessagesOutlet()
    out = b"".join([outlet.feed(piece) for piece in ([ROLE, *chunks] if begins else chunks)])
    if b"event: message_stop" in out:
        assert out.count(b"event: content_block_start") == out.count(b"event: content_block_stop")
        assert out.count(b"event: message_delta") == 1
        assert b"event: error" not in out
    assert out.count(b"event: error") <= 1


def test_errors_in_one_piece_are_the_apis_own():
    """The router's have Anthropic's types; an engine's are what vLLM makes of them for this API."""
    outlet = MessagesOutlet()
    ours = orjson.loads(outlet.whole(503, error_body("No site", type="server_error", code="no_site")))
    assert ours == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "No site", "code": "no_site"},
    }
    error = {"message": "Too long", "type": "BadRequestError", "param": "messages", "code": 400}
    assert outlet.whole(400, orjson.dumps({"error": error})) == (
        b'{"type":"error","error":{"type":"BadRequestError","message":"Too long"}}'
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"error":{"code":1}}', b'{"error":3}', b'{"error":{"code":%b}}' % DEEP],
)
def test_no_answer_in_one_piece_raises(body: bytes):
    """What is no error stays as it is."""
    MessagesOutlet().whole(502, body)


@pytest.mark.parametrize("name", STREAMS)
def test_anthropics_client_reads_the_stream(name: str):
    """The message that its library puts together is the one that was told."""
    chunks = STREAMS[name]["chunks"]
    stream = MessagesOutlet().feed(b"".join([_event(chunk) for chunk in chunks]) + DONE)
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    )
    client = anthropic.Anthropic(
        api_key="x", base_url="http://heron", http_client=httpx2.Client(transport=transport)
    )
    with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as events:
        message = events.get_final_message()
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(block.text for block in message.content if block.type == "text")
    assert text == "".join(delta.get("content") or "" for delta in deltas)
    thinking = "".join(block.thinking for block in message.content if block.type == "thinking")
    assert thinking == "".join(delta.get("reasoning") or "" for delta in deltas)
    assert message.usage.output_tokens == chunks[-1]["usage"]["completion_tokens"]
