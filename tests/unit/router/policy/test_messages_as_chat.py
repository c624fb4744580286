"""Messages requests as chats, as vLLM makes them: tests/support/record_as_chat_messages.py recorded how."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.as_chat import AsChat
from router.policy.body import Api
from router.policy.json_rules import MAX_DEPTH, MAX_VALUES
from router.policy.messages_as_chat import messages_as_chat
from router.policy.resumable import Fidelity, resumability

SUPPORT = Path(__file__).parents[3] / "support"
RECORDED = json.loads((SUPPORT / "recorded/as_chat_messages.json").read_text())
REQUESTS = {one["name"]: one for one in RECORDED["requests"]}
BODY: dict[str, Any] = REQUESTS["plain"]["body"]
HELLO = BODY["messages"]
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_chat_that_vllm_makes_of_it(name: str):
    """Fields that are None are left out, but for a tool choice: a chat's default is another."""
    body = REQUESTS[name]["body"]
    made = messages_as_chat(body, REQUESTS[name]["inline_system"])
    assert made is not None
    fields = {key: value for key, value in made.fields.items() if key != "service_tier" and value is not None}
    assert fields == REQUESTS[name]["chat"]
    assert orjson.loads(orjson.dumps(made.fields)) == made.fields
    assert "tool_choice" in made.fields


def test_the_service_tier_reaches_routing():
    """Engines ignore it in both APIs."""
    made = messages_as_chat(BODY | {"service_tier": "standard_only"})
    assert made is not None
    assert made.fields["service_tier"] == "standard_only"


@pytest.mark.parametrize("name", REQUESTS)
def test_the_body_stays_as_it_is(name: str):
    """Its fields may be read again."""
    body = copy.deepcopy(REQUESTS[name]["body"])
    messages_as_chat(body, REQUESTS[name]["inline_system"])
    assert body == REQUESTS[name]["body"]


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_translated_can_go_on_elsewhere(name: str):
    """But for images among tools; else nothing were gained."""
    made = messages_as_chat(REQUESTS[name]["body"], REQUESTS[name]["inline_system"])
    assert made is not None
    assert resumability(Api.CHAT, made.fields).fidelity is not Fidelity.REFUSED or "image" in str(made.fields)


AGENTS = [one["body"] for one in json.loads((SUPPORT / "recorded/agents_messages.json").read_text())]


@pytest.mark.parametrize("body", AGENTS)
def test_an_agents_system_messages_go_to_the_engine_where_it_is_not_known_what_becomes_of_them(
    body: dict[str, Any],
):
    """Sites that do not say, and words of a later version."""
    has_any = any(message["role"] == "system" for message in body["messages"])
    for inline_system in (None, "", "on_top"):
        assert (messages_as_chat(body, inline_system) is None) is has_any


def _asked(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    "change",
    [
        {"stream": False},
        {"stream": 1},
        {"stream": None},
        {"unknown": None},
        {"model": ""},
        {"model": None},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 1.0},
        {"max_tokens": None},
        {"metadata": "u"},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": ["Hello"]},
        {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "x", "name": "me"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"system": 1},
        {"system": [{"type": "image", "source": {}}]},
        {"system": ["Be brief."]},
        {"temperature": "0"},
        {"temperature": 2.5},
        {"temperature": True},
        {"top_p": 0},
        {"top_k": 1.0},
        {"top_k": -2},
        {"stop_sequences": "END"},
        {"stop_sequences": [""]},
        {"stop_sequences": ["1", "2", "3", "4", "5"]},
        {"tools": []},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [TOOL | {"type": "bash_20250124"}]},
        {"tools": [TOOL | {"defer_loading": "yes"}]},
        {"tools": [TOOL | {"input_examples": []}]},
        {"tools": [{"name": "weather"}]},
        {"tools": [TOOL | {"strict": "yes"}]},
        {"tool_choice": {"type": "auto"}},
        {"tool_choice": {"type": "any"}, "tools": None},
        {"tool_choice": {"type": "tool", "name": "other"}, "tools": [TOOL]},
        {"tool_choice": {"type": "tool"}, "tools": [TOOL]},
        {"tool_choice": {"type": ["auto"]}, "tools": [TOOL]},
        {"tool_choice": "auto", "tools": [TOOL]},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1023}, "max_tokens": 4096},
        {"thinking": {"type": "enabled", "budget_tokens": 4096}, "max_tokens": 4096},
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "adaptive", "display": "full"}},
        {"output_config": {"effort": "extreme"}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"output_config": {"task_budget": {"type": "tokens", "total": 9}}},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {"service_tier": "express"},
        {"cache_salt": ""},
        {"cache_salt": "a/b"},
        {"cache_salt": "x" * 129},
        {"vllm_xargs": {"a": True}},
        {"vllm_xargs": {"a": {}}},
        {"chat_template_kwargs": []},
        {"mm_payload": "none"},
        {"return_mm_kwargs": False},
        {"kv_transfer_params": {}},
        {"ec_transfer_params": None},
        _asked({"type": "text"}),
        _asked(TEXT | {"citations": []}),
        _asked({"type": "document", "source": {}}),
        _asked({"type": "image", "source": {"type": "file", "file_id": "f"}}),
        _asked({"type": "image", "source": {"type": "base64", "data": ""}}),
        _asked({"type": "image"}, role="assistant"),
        _asked({"type": "thinking", "thinking": "x"}),
        _asked({"type": "tool_use", "id": "t", "name": "n", "input": {}}),
        _asked({"type": "tool_use", "name": "n", "input": {}}, role="assistant"),
        _asked({"type": "tool_use", "id": "t", "name": "n", "input": []}, role="assistant"),
        _asked({"type": "tool_result", "tool_use_id": "t", "content": "x"}, role="assistant"),
        _asked({"type": "tool_result", "content": "x"}),
        _asked({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}),
        _asked({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "search_result"}]}),
        _asked({"type": "tool_addition", "tool": {"type": "tool_reference", "name": "n"}}),
        # What orjson makes of an integer beyond 64 bits, which vLLM would pass on to the last digit:
        _asked({"type": "tool_use", "id": "t", "name": "n", "input": {"x": 1e20}}, role="assistant"),
        {"chat_template_kwargs": {"x": 2**70}},
        {"chat_template_kwargs": {"x": [0] * MAX_VALUES}},
    ],
)
def test_what_is_not_known_to_be_the_same_goes_to_the_engine(change: dict[str, Any]):
    """Its own words are what the client must hear."""
    assert messages_as_chat(BODY | change) is None


def test_a_body_nested_too_deep_goes_to_the_engine():
    """Nobody here recurses into it."""
    nested: Any = 1
    for _ in range(MAX_DEPTH):
        nested = {"x": nested}
    assert messages_as_chat(BODY | {"chat_template_kwargs": nested}) is None
    assert messages_as_chat(BODY | {"chat_template_kwargs": nested["x"]["x"]}) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=12,
)
FRAGMENTS: list[Any] = []


def _collect(value: Any) -> None:
    if isinstance(value, (dict, list)):
        FRAGMENTS.append(value)
        for item in value.values() if isinstance(value, dict) else value:
            _collect(item)


_collect([one["body"] for one in RECORDED["requests"]])


@given(
    st.dictionaries(
        st.sampled_from([*BODY, "system", "tools", "tool_choice", "thinking", "output_config", "x"])
        | st.text(),
        JSON | st.sampled_from(FRAGMENTS) | st.lists(st.sampled_from(FRAGMENTS), max_size=3),
    )
)
def test_no_body_raises(fields: dict[str, Any]):
    """Whatever a client sends."""
    for body in (fields, BODY | fields):
        for inline_system in (None, "in_place", "merged"):
            assert isinstance(messages_as_chat(body, inline_system), AsChat | None)
