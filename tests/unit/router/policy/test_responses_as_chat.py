"""What a stream of the Responses API is as a chat, against what vLLM itself makes of both."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.body import Api
from router.policy.responses_as_chat import responses_as_chat
from router.policy.resumable import Fidelity, resumability

RECORDED = json.loads((Path(__file__).parents[3] / "support/recorded/as_chat_responses.json").read_text())
REQUESTS = {one["name"]: one for one in RECORDED["requests"]}
STREAMS = {one["name"]: one for one in RECORDED["streams"]}
HELLO = {"model": "tiny", "input": "Hello", "stream": True}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
NAMED = {"type": "function", "name": "f"}
USER = {"role": "user", "content": "Hello"}
ANSWER = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "o"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}


def deep(levels: int) -> dict[str, Any]:
    """An object in an object in …"""
    return orjson.loads(b'{"a":' * levels + b"1" + b"}" * levels)


@pytest.mark.parametrize("one", [*REQUESTS.values(), *STREAMS.values()], ids=lambda one: one["name"])
def test_the_chat_is_the_one_that_vllm_takes_for_the_same(one: dict[str, Any]):
    """vLLM's own classes compared prompt, sampling and tools when it was recorded."""
    given_fields = copy.deepcopy(one["input"])
    made = responses_as_chat(given_fields)
    assert made is not None
    assert made.fields == one["chat"]
    assert given_fields == one["input"]


@pytest.mark.parametrize("one", REQUESTS.values(), ids=lambda one: one["name"])
def test_what_is_translated_can_go_on_elsewhere(one: dict[str, Any]):
    """Else nothing were gained."""
    assert resumability(Api.CHAT, one["chat"]).fidelity is not Fidelity.REFUSED


def _with_item(item: Any, *more: Any) -> dict[str, Any]:
    return {"input": [USER, item, *more]}


def _with_part(part: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part]}]}


def _with_tool(**more: Any) -> dict[str, Any]:
    return {"tools": [TOOL | more]}


NATIVE: list[dict[str, Any]] = [
    {"stream": False},
    {"stream": None},
    {"stream": 1},
    {"model": None},
    {"model": 3},
    # What a chat has no word for, or is no better at.
    {"background": True},
    {"background": None},
    {"store": True},
    {"store": 0},
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
    {"prompt": {"id": "p"}},
    {"truncation": "auto"},
    {"truncation": None},
    {"top_logprobs": 1},
    {"top_logprobs": False},
    {"include": ["message.output_text.logprobs"]},
    {"include": "reasoning.encrypted_content"},
    {"text": {"format": {"type": "json_object", "strict": True}}},
    {"text": {"format": {"type": "json_schema", "name": "n"}}},
    {"text": {"format": {"type": "json_schema", "schema": {}}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": None}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": "{}"}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": deep(300)}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"maximum": 2.0**64}}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": 1}}},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "other": 1}}},
    {"text": {"format": {"type": "grammar", "grammar": "a"}}},
    {"text": {"format": {"type": ["text"]}}},
    {"text": {"format": {}}},
    {"text": {"format": {"type": "text", "other": 1}}},
    {"text": {"verbosity": "much"}},
    {"text": []},
    {"reasoning": {"effort": "huge"}},
    {"reasoning": {"context": "auto"}},
    {"reasoning": "high"},
    # What vLLM would refuse, in its own words.
    {"temperature": -1},
    {"temperature": 2.1},
    {"temperature": "1"},
    {"temperature": True},
    {"temperature": float("nan")},
    {"top_p": 0},
    {"top_p": 1.5},
    {"top_k": -2},
    {"top_k": 1.0},
    {"min_p": 2},
    {"presence_penalty": 3},
    {"repetition_penalty": 0},
    {"seed": 2**63},
    {"stop": ["a", ""]},
    {"stop": [1]},
    {"stop": {}},
    {"max_output_tokens": 0},
    {"max_output_tokens": 2**70},
    {"max_output_tokens": "9"},
    {"service_tier": None},
    {"service_tier": "fast"},
    {"metadata": {"a": 1}},
    {"user": 1},
    {"instructions": ["Be kind."]},
    # Tools.
    {"tools": None},
    {"tools": {}},
    {"tools": ["f"]},
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"type": "custom", "name": "f"}]},
    {"tools": [{"type": "mcp", "server_label": "x"}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [TOOL]}]},
    {"tools": [TOOL, {"type": "namespace", "name": "", "description": "d", "tools": [TOOL]}]},
    {"tools": [TOOL, {"type": "namespace", "name": "n", "description": "d", "tools": [TOOL], "x": 1}]},
    {"tools": [TOOL, {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "custom"}]}]},
    {"tools": [TOOL, {"type": "web_search", "filters": {"allowed_domains": ["example.org"]}}]},
    {"tools": [TOOL, {"type": "web_search_preview"}]},
    {"tools": [TOOL, {"type": ["function"]}]},
    {"tools": [TOOL | {"type": "namespace", "description": "d", "tools": []}]},
    {"tools": [{"type": "function"}]},
    {"tools": [{"name": "f"}]},
    _with_tool(strict=0),
    _with_tool(strict="true"),
    _with_tool(parameters={"maximum": 2.0**64}),
    _with_tool(defer_loading=True),
    _with_tool(parameters="{}"),
    _with_tool(parameters=deep(300)),
    {"tool_choice": "required"},
    {"tools": [], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": "any"},
    {"tools": [TOOL], "tool_choice": None},
    {"tools": [TOOL], "tool_choice": ["required"]},
    {"tool_choice": NAMED},
    {"tools": [], "tool_choice": NAMED},
    {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}},
    {"tools": [TOOL | {"name": ""}], "tool_choice": {"type": "function", "name": ""}},
    {"tools": [TOOL], "tool_choice": {"type": "function"}},
    {"tools": [TOOL], "tool_choice": {"name": "f"}},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [TOOL], "tool_choice": NAMED | {"other": 1}},
    {"tools": [TOOL], "tool_choice": {"type": "custom", "name": "f"}},
    {"tools": [TOOL], "tool_choice": {"type": "web_search_preview"}},
    {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}},
    # Of a named tool and another grammar at once a chat is refused.
    {"tools": [TOOL], "tool_choice": NAMED, "text": {"format": {"type": "json_object"}}},
    # Input.
    {"input": None},
    {"input": []},
    {"input": {}},
    {"input": ["Hello"]},
    {"input": [None]},
    {"input": [{"content": "Hello"}]},
    {"input": [{"role": "tool", "content": "Hello"}]},
    {"input": [{"role": "user", "content": []}]},
    {"input": [{"role": "user", "content": None}]},
    {"input": [USER | {"name": "n"}]},
    {"input": [USER | {"status": "incomplete"}]},
    {"input": [USER | {"type": "text"}]},
    {"input": [USER | {"type": []}]},
    {
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "x-anthropic-billing-header"}]}
        ]
    },
    _with_part("Hello"),
    _with_part({"type": "text", "text": "Hello"}),
    _with_part({"type": "input_text"}),
    _with_part({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}),
    _with_part({"type": "input_file", "file_id": "f"}),
    _with_part({"type": "input_audio", "input_audio": {}}),
    _with_part({"type": "input_image", "file_id": "f"}),
    _with_part({"type": "input_image", "image_url": {"url": "u"}}),
    _with_part({"type": "input_image", "image_url": "u", "detail": None}),
    _with_item(ANSWER | {"status": "in_progress"}),
    _with_item(ANSWER | {"content": []}),
    _with_item(ANSWER | {"content": "a", "id": "msg_1", "status": "completed"}),
    _with_item({"role": "assistant", "content": ANSWER["content"]}),
    _with_item(ANSWER | {"content": [{"type": "refusal", "refusal": "no"}]}),
    _with_item(ANSWER | {"content": [ANSWER["content"][0] | {"annotations": [{}]}]}),
    _with_item(THOUGHT | {"status": "incomplete"}),
    _with_item(THOUGHT | {"encrypted_content": "x"}),
    _with_item({"type": "reasoning"}),
    _with_item(THOUGHT | {"content": ["Hm."]}),
    _with_item(THOUGHT | {"id": None}),
    _with_item(CALL | {"namespace": 1}),
    _with_item(CALL | {"arguments": {}}),
    _with_item({"type": "function_call", "name": "f", "arguments": "{}"}),
    _with_item(OUTPUT | {"output": []}),
    _with_item(OUTPUT | {"output": ["o"]}),
    _with_item(OUTPUT | {"output": [{"type": "input_text", "text": "o", "x": 1}]}),
    _with_item(OUTPUT | {"output": [{"type": "input_image", "image_url": "data:,", "detail": "low"}]}),
    _with_item(OUTPUT | {"call_id": None}),
    _with_item({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": ""}),
    _with_item({"type": "item_reference", "id": "msg_1"}),
    # Unknown.
    {"request_id": "r"},
    {"session_id": "s"},
    {"cache_salt": "s"},
    {"logit_bias": {}},
    {"structured_outputs": {"json": {}}},
    {"chat_template_kwargs": []},
    {"chat_template_kwargs": {"chat_template": "a"}},
    {"chat_template_kwargs": {"a": 2.0**64}},
    {"chat_template_kwargs": deep(300)},
    {"chat_template_kwargs": {"a": [0] * 60_000}},
    {"client_metadata": {"a": 1}},
    {"client_metadata": "a"},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_obfuscation": "no"}},
    {"stream_options": True},
    {"include_reasoning": False},
    {"n": 1},
]


@pytest.mark.parametrize("more", NATIVE, ids=lambda more: str(more)[:60])
def test_what_a_chat_cannot_say_goes_to_the_engine_as_it_came(more: dict[str, Any]):
    """It judges it in its own words."""
    assert responses_as_chat(HELLO) is not None
    assert responses_as_chat(HELLO | more) is None


@pytest.mark.parametrize("name", HELLO)
def test_what_must_be_there_is_there(name: str):
    """Model, input and stream."""
    assert responses_as_chat({key: value for key, value in HELLO.items() if key != name}) is None


def test_schemas_may_be_nested_to_a_depth():
    """Engines' parsers go no deeper than they can."""
    made = responses_as_chat(HELLO | _with_tool(parameters=deep(99)))
    assert made is not None
    assert orjson.dumps(made.fields)
    chunk = {"id": "chatcmpl-1", "created": 5, "model": "tiny", "choices": []}
    begin = made.outlet.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    assert begin.startswith(b"event: response.created\n")
    assert responses_as_chat(HELLO | _with_tool(parameters=deep(100))) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(list(USER)), inner)
    ),
    max_leaves=8,
)
VALID = [one["input"] for one in [*REQUESTS.values(), *STREAMS.values()]]
KNOWN = sorted({name for body in VALID for name in body})


@given(st.sampled_from(VALID), st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=5), JSON))
def test_no_body_raises(body: dict[str, Any], more: dict[str, Any]):
    """A chat or nothing."""
    made = responses_as_chat(body | more)
    assert made is None or made.fields["stream"] is True


@given(st.sampled_from(VALID), st.data())
def test_no_changed_body_raises(body: dict[str, Any], data: st.DataObject):
    """Any value anywhere in it."""
    body = copy.deepcopy(body)
    where: Any = body
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(st.sampled_from(keys))
        inner = where[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        where = inner
    where[key] = data.draw(JSON)
    made = responses_as_chat(body)
    assert made is None or made.fields["stream"] is True
