"""A chat's stream as one of the Responses API, against what vLLM itself makes of the same deltas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import error_body, error_event
from gateway.sse import EventSplitter, data_of
from router.policy.body import Api
from router.policy.responses_as_chat import responses_as_chat
from router.policy.responses_outlet import ResponsesOutlet
from router.policy.stream_end import loss_events

RECORDINGS = Path(__file__).parents[3] / "support" / "recorded"
RECORDED = json.loads((RECORDINGS / "as_chat_responses.json").read_text())
STREAMS = {one["name"]: one for one in RECORDED["streams"]}
HELLO = {"model": "tiny", "input": "Hello", "stream": True}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
USER = {"role": "user", "content": "Hello"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "o"}
DONE = b"data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({"choices": [choice], **more})


def _event(more: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "tiny"}
    return b"data: " + orjson.dumps({**head, **more}) + b"\n\n"


def _piece(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    called = {} if name is None else {"id": f"call_{index}", "type": "function"}
    return {"index": index, **called, "function": {**named, "arguments": arguments}}


def _outlet(**more: Any) -> ResponsesOutlet:
    return ResponsesOutlet(HELLO | more)


def _error(error: Any) -> bytes:
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def _value(event: bytes) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(data_of(event) or b"")
    return value


def _read(stream: bytes) -> list[dict[str, Any]]:
    """Its events, of which each has its type as its name and the next number."""
    values = []
    for event in EventSplitter().feed(stream):
        if event.startswith(b":"):
            continue
        value = orjson.loads(data_of(event) or b"")
        assert event.startswith(b"event: %b\n" % value["type"].encode())
        values.append(value)
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    return values


def _without_ids(value: Any, names: dict[str, str]) -> Any:
    """The same with ids by the order in which they come; `names` is what they are."""
    if isinstance(value, list):
        return [_without_ids(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: _without_ids(one, names) for name, one in sorted(value.items())}
    for name in ("id", "item_id", "call_id"):
        known = value.get(name)
        is_made = isinstance(known, str) and known.startswith(
            ("resp_", "msg_", "rs_", "fc_", "call_0a1b", "chatcmpl-tool-")
        )
        if is_made:
            made[name] = names.setdefault(known, f"id {len(names)}")
    return made


def _normal(stream: bytes) -> list[Any]:
    return _without_ids(_read(stream), {})


def _pieces(name: str) -> list[bytes]:
    return [chunk.encode() for chunk in STREAMS[name]["chunks"]]


@pytest.mark.parametrize("name", STREAMS)
def test_the_events_are_vllms_own(name: str):
    """But for ids; the chat's chunks and the events are of the same deltas."""
    outlet = ResponsesOutlet(STREAMS[name]["input"])
    stream = b"".join(outlet.feed(piece) for piece in _pieces(name))
    assert _normal(stream) == _normal("".join(STREAMS[name]["events"]).encode())
    assert b"[DONE]" not in stream


@pytest.mark.parametrize("name", STREAMS)
def test_it_does_not_matter_in_what_pieces_events_come(name: str):
    """All at once, or with comments between, which stay."""
    pieces = _pieces(name)
    one_by_one = ResponsesOutlet(STREAMS[name]["input"])
    expected = b"".join(one_by_one.feed(piece) for piece in pieces)
    assert ResponsesOutlet(STREAMS[name]["input"]).feed(b"".join(pieces)) == expected
    outlet = ResponsesOutlet(STREAMS[name]["input"])
    stream = b"".join(outlet.feed(b": wait\n\n") + outlet.feed(piece) for piece in pieces)
    assert stream.count(b": wait\n\n") == len(pieces)
    assert stream.replace(b": wait\n\n", b"") == expected


def test_an_engines_stream_is_the_same():
    """A real one: its text, with the request that it answers."""
    recorded = _normal((RECORDINGS / "responses.sse").read_bytes())
    words = [event["delta"] for event in recorded if event["type"] == "response.output_text.delta"]
    outlet = _outlet(max_output_tokens=6, temperature=0)
    usage = {"prompt_tokens": 15, "total_tokens": 21, "completion_tokens": 6}
    chunks = [_chunk({"role": "assistant", "content": ""}), *(_chunk({"content": word}) for word in words)]
    chunks += [_chunk({"content": ""}, "length"), _event({"choices": [], "usage": usage}), DONE]
    told = _normal(b"".join(map(outlet.feed, chunks)))
    for event in recorded:
        if "response" in event:
            event["response"]["created_at"] = 5
    assert told == recorded


def test_ids_come_of_the_chats():
    """No clock, no chance: the same again."""
    stream = _outlet().feed(_chunk({"content": "a"}) + _chunk({}, "stop") + DONE)
    assert stream == _outlet().feed(_chunk({"content": "a"}) + _chunk({}, "stop") + DONE)
    response = _read(stream)[-1]["response"]
    assert (response["id"], response["output"][0]["id"]) == ("resp_1", "msg_1_0")
    assert (response["created_at"], response["model"]) == (5, "tiny")


def test_what_only_the_engine_knows_is_as_openais():
    """The model's own defaults, and the room that was left."""
    response = _read(_outlet().feed(_chunk({"content": "a"})))[0]["response"]
    known = (
        response["temperature"],
        response["top_p"],
        response["max_output_tokens"],
        response["top_logprobs"],
    )
    assert known == (1.0, 1.0, None, None)


def test_reasoning_has_two_names():
    """Older engines' too; of both the first one counts."""
    for delta in ({"reasoning_content": "Hm"}, {"reasoning": "Hm", "reasoning_content": "Hm"}):
        stream = _outlet().feed(_chunk({"role": "assistant", **delta}) + _chunk({}, "stop") + DONE)
        item = _read(stream)[-1]["response"]["output"][0]
        assert item["content"] == [{"text": "Hm", "type": "reasoning_text"}]


def test_a_continued_call_goes_on_though_text_from_behind_it_came_first():
    """The router tells text before calls."""
    outlet = _outlet(tools=[TOOL])
    stream = outlet.feed(_chunk({"tool_calls": [_piece(0, '{"a"', "f")]}))
    rest = {"tool_calls": [_piece(0, ":1}"), _piece(1, "{}", "g")]}
    stream += outlet.feed(b": wait\n\n" + _chunk({"content": "\n"}) + _chunk(rest))
    stream += outlet.feed(_chunk({}, "tool_calls") + DONE)
    items = _read(stream)[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["function_call", "message", "function_call"]
    assert [item.get("arguments") for item in items] == ['{"a":1}', None, "{}"]
    in_one = _outlet(tools=[TOOL])
    stream = in_one.feed(_chunk({"tool_calls": [_piece(0, '{"a"', "f")]}))
    stream += in_one.feed(_chunk({"content": "\n", **rest})) + in_one.feed(_chunk({}, "tool_calls") + DONE)
    assert _read(stream)[-1]["response"]["output"] == items


@pytest.mark.parametrize(
    ("details", "expected"),
    [({}, (0, 0, 0)), ({"prompt_tokens_details": None}, (0, 0, 0)), (None, None)],
)
def test_usage_is_told_as_far_as_it_is_known(details: dict[str, Any] | None, expected: Any):
    """Details are 0 where the chat has none; without any it is null."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    told = b"" if details is None else _event({"choices": [], "usage": usage | details})
    stream = _outlet().feed(_chunk({"content": "a"}) + _chunk({}, "stop") + told + DONE)
    known = _read(stream)[-1]["response"]["usage"]
    if expected is None:
        assert known is None
        return
    of_input, of_output = known["input_tokens_details"], known["output_tokens_details"]
    assert expected == (
        of_input["cached_tokens"],
        of_input["cache_write_tokens"],
        of_output["reasoning_tokens"],
    )
    assert (known["input_tokens"], known["output_tokens"], known["total_tokens"]) == (3, 2, 5)


# ---- errors ----


@pytest.mark.parametrize("before", [b"", _chunk({"content": "a"})])
@pytest.mark.parametrize("is_with_comment", [True, False])
def test_a_lost_stream_ends_as_a_native_one(before: bytes, is_with_comment: bool):
    """With the same error; then, for clients that look for that alone, the response has failed."""
    outlet = _outlet()
    begun = _read(outlet.feed(before)) if before else []
    comment = b": wait\n\n" if is_with_comment else b""
    lost = outlet.feed(comment + loss_events(Api.CHAT, "power_lost", "why"))
    assert lost.startswith(comment + b"event: error\n")
    error, *failed = map(_value, EventSplitter().feed(lost[len(comment) :]))
    native = orjson.loads(data_of(loss_events(Api.RESPONSES, "power_lost", "why")) or b"")
    assert error == native | {"sequence_number": len(begun)}
    if before:
        [failed] = failed
        assert (failed["type"], failed["sequence_number"]) == ("response.failed", len(begun) + 1)
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["id"] == begun[0]["response"]["id"]
        assert failed["response"]["error"] == {"code": "server_error", "message": native["message"]}
    else:
        assert failed == []
    assert outlet.feed(_chunk({"content": "b"}) + _chunk({}, "stop") + DONE) == b""


def test_an_engines_error_is_told():
    """Its code is a number, which OpenAI's is not."""
    error = {"message": "Out of memory", "type": "InternalServerError", "param": None, "code": 500}
    outlet = _outlet()
    outlet.feed(_chunk({"content": "a"}))
    told, failed = map(_value, EventSplitter().feed(outlet.feed(_error(error))))
    assert failed["response"]["error"]["message"] == "Out of memory"
    assert (told["type"], told["code"], told["message"]) == ("error", "500", "Out of memory")
    assert outlet.feed(DONE) == b""


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {\n\n",
        b"data: 1\n\n",
        _event({}),
        _event({"choices": None}),
        _event({"choices": [{}, {}]}),
        _event({"choices": [1]}),
        _event({"choices": [{"index": 1}]}),
        _event({"choices": [{"delta": 1}]}),
        _event({"choices": [], "usage": 1}),
        _event({"choices": [], "usage": {"prompt_tokens": "3"}}),
        _event({"choices": [], "usage": {"prompt_tokens_details": 3}}),
        _event({"choices": [], "usage": {"prompt_tokens": -1}}),
        _event({"choices": [], "usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": 1}}),
        _chunk({"content": 1}),
        _chunk({"reasoning": []}),
        _chunk({"tool_calls": 1}),
        _chunk({"tool_calls": [1]}),
        _chunk({"tool_calls": [{"function": {}}]}),
        _chunk({"tool_calls": [{"index": 0, "function": 1}]}),
        _chunk({"tool_calls": [_piece(0, "{}")]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"name": 1}}]}),
        _chunk({}, "abort"),
        _chunk({}, "error"),
        DONE,
    ],
)
def test_what_is_not_understood_ends_the_stream_with_an_error(bad: bytes):
    """Never a silent end; what came before it is told."""
    begin = _chunk({"content": "a"})
    for pieces in ([begin, bad], [begin + bad]):
        outlet = _outlet(tools=[TOOL])
        stream = b"".join(outlet.feed(piece) for piece in pieces)
        assert b'"delta":"a"' in stream
        assert b"response.completed" not in stream
        *_, error, failed = map(_value, EventSplitter().feed(stream))
        assert (error["code"], failed["type"]) == ("stream_lost", "response.failed")
        assert outlet.feed(_chunk({}, "stop") + DONE) == b""


@pytest.mark.parametrize(
    "more", [{"id": None}, {"id": 1}, {"created": "now"}, {"created": True}, {"model": None}]
)
def test_the_first_chunk_tells_whose_it_is(more: dict[str, Any]):
    """Nothing could be said without."""
    stream = _outlet().feed(_event({"choices": [], **more}))
    assert orjson.loads(data_of(stream) or b"")["code"] == "stream_lost"


def test_errors_in_one_piece_have_one_form_in_both_apis():
    """But the limit's name."""
    body = error_body("max_completion_tokens=9 cannot be greater than 5.", type="BadRequestError")
    assert b'"max_output_tokens=9 cannot' in _outlet().whole(400, body)
    busy = error_body("No site.", type="server_error", code="no_capacity")
    assert _outlet().whole(503, busy) == busy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.one_of(
    st.builds(
        _chunk,
        st.dictionaries(
            st.sampled_from(["content", "reasoning", "tool_calls", "role"]),
            JSON | st.lists(st.builds(_piece, st.integers(0, 2), st.text(max_size=3), st.none() | st.text())),
        ),
        st.none() | st.sampled_from(["stop", "length", "abort"]) | st.text(max_size=3),
    ),
    st.dictionaries(st.sampled_from(["choices", "usage", "error", "id"]), JSON).map(
        lambda more: b"data: " + json.dumps(more).encode() + b"\n\n"
    ),
    st.sampled_from([DONE, b": wait\n\n", error_event("m", type="t"), b"data: {}\n\n", b"event: x\n\n"]),
    st.binary(max_size=20),
)


@given(st.lists(PIECES, max_size=8))
def test_no_chunks_raise(pieces: list[bytes]):
    """Whatever comes: events, and an end at most once."""
    outlet = _outlet(tools=[TOOL])
    stream = b"".join(outlet.feed(piece) for piece in pieces)
    assert stream.count(b"event: error\n") + stream.count(b"event: response.completed\n") <= 1


# ---- clients ----


def _client(stream: bytes) -> openai.OpenAI:
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    )
    http = httpx2.Client(transport=transport)
    return openai.OpenAI(api_key="x", base_url="http://heron/v1", http_client=http, max_retries=0)


@pytest.mark.parametrize("name", STREAMS)
def test_openais_client_reads_the_stream(name: str):
    """Each event is of its library's types, strictly; and it puts the same answer together."""
    stream = ResponsesOutlet(STREAMS[name]["input"]).feed(b"".join(_pieces(name)))
    values = _read(stream)
    with _client(stream).responses.create(model="tiny", input="Hello", stream=True) as events:
        for event, value in zip(events, values, strict=True):
            assert event.type == value["type"]
            type(event).model_validate(value, strict=True)
    with _client(stream).responses.stream(model="tiny", input="Hello") as events:
        final = events.get_final_response()
    assert [item.type for item in final.output] == [item["type"] for item in values[-1]["response"]["output"]]
    text = [
        item["content"][0]["text"] for item in values[-1]["response"]["output"] if item["type"] == "message"
    ]
    assert final.output_text == "".join(text)


@pytest.mark.parametrize("name", STREAMS)
def test_an_answer_can_be_the_next_requests_input(name: str):
    """As it came, and as OpenAI's library gives it back."""
    stream = ResponsesOutlet(STREAMS[name]["input"]).feed(b"".join(_pieces(name)))
    items = _read(stream)[-1]["response"]["output"]
    with _client(stream).responses.stream(model="tiny", input="Hello") as events:
        read = [item.model_dump(mode="json", by_alias=True) for item in events.get_final_response().output]
    outputs = [OUTPUT | {"call_id": item["call_id"]} for item in items if item["type"] == "function_call"]
    made = responses_as_chat(HELLO | {"input": [USER, *items, *outputs, USER]})
    assert made is not None
    for item in read:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or []:
            part.pop("parsed", None)
    again = responses_as_chat(HELLO | {"input": [USER, *read, *outputs, USER]})
    assert again is not None
    assert again.fields == made.fields
