"""Streams of Anthropic's Messages API as the chats that vLLM makes of them. Pure.

The same as `AnthropicServingMessages.to_chat_completion_request` of vLLM 0.32, where that depends on the body
alone; tests/support/record_as_chat_messages.py holds one to the other. None is returned, and the body goes to
an engine as it came, for
  1. what the engine's own state decides: disabled `thinking` (a probe of its renderer); system messages among
     the others (its chat template), where the sites do not say what becomes of them
  2. what vLLM refuses, or takes for a chat that it would refuse had it come over HTTP
  3. every field, value and type that is not known here
  4. what orjson may read otherwise than vLLM's parser (integers beyond 64 bits), and bodies of so many values
     that making a chat of them would hold up other streams
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.policy.as_chat import AsChat
from router.policy.json_rules import is_plain
from router.policy.messages_outlet import MessagesOutlet
from router.policy.messages_prompt import (
    IGNORED,
    OnlyNativeError,
    object_of,
    objects_of,
    prompt_of,
    require,
    text_of,
)

MAX_STOPS = 4
"""vLLM's default VLLM_MAX_STOP_STRINGS. Where an engine takes more, it gets them as they came."""
MAX_SALT = 128
LEAST_THINKING_TOKENS = 1024
_STREAM_OPTIONS = {"include_usage": True, "continuous_usage_stats": True}
"""vLLM's, for the prompt's length in the first event."""
_FORBIDDEN_IN_SALT = frozenset("@/\\\x00")
_TIERS = frozenset({"auto", "default", "standard_only", "scale", "priority", "flex"})
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_DISPLAYS = frozenset({"summarized", "omitted", "updates"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

_PROMPT = frozenset(
    {"model", "messages", "system", "stream", "metadata", "context_management", "service_tier"}
)
_ANSWER = frozenset(
    {"max_tokens", "stop_sequences", "temperature", "top_p", "top_k", "thinking", "output_config"}
)
_OWN = frozenset({"watermarking", "cache_salt", "vllm_xargs", "chat_template_kwargs"})
"""Fields that Anthropic has not."""
_UNREAD = frozenset({"safeguards"})
"""Claude Code's, in its auto mode: it would have the server judge calls. vLLM does not know the field."""
_KNOWN = IGNORED | _PROMPT | _ANSWER | _OWN | _UNREAD | {"tools", "tool_choice"}
_TOOL = IGNORED | {
    "type",
    "name",
    "description",
    "input_schema",
    "strict",
    "defer_loading",
    "eager_input_streaming",
}
_KEPT_THINKING = {"type": "clear_thinking_20251015", "keep": "all"}
"""An edit of the context that changes nothing; Claude Code asks for it."""


def messages_as_chat(fields: Mapping[str, Any], inline_system: str | None = None) -> AsChat | None:
    """A streamed request of the Messages API, parsed, as a chat; None: it is for an engine as it came.

    `inline_system` is what engines do with a system message amid the others: `in_place`, `merged`.
    """
    try:
        require(fields.get("stream") is True and fields.keys() <= _KNOWN and is_plain(fields))
        return AsChat(_chat(fields, inline_system), MessagesOutlet())
    except OnlyNativeError:
        return None


def _chat(fields: Mapping[str, Any], inline_system: str | None) -> dict[str, Any]:
    model, max_tokens, metadata = fields.get("model"), fields.get("max_tokens"), fields.get("metadata")
    require(type(model) is str and model != "" and (metadata is None or type(metadata) is dict))
    if type(max_tokens) is not int or max_tokens <= 0:
        raise OnlyNativeError
    require(_changes_nothing(fields.get("context_management")))
    chat: dict[str, Any] = {
        "model": model,
        "messages": prompt_of(fields.get("system"), fields.get("messages"), inline_system),
        "max_tokens": max_tokens,
        "max_completion_tokens": max_tokens,
        "stream": True,
        "stream_options": dict(_STREAM_OPTIONS),
    }
    _add_sampling(chat, fields)
    _add_extensions(chat, fields)
    _add_output_config(chat, fields.get("output_config"))
    _add_thinking(chat, fields.get("thinking"), max_tokens)
    _add_tools(chat, fields.get("tools"), fields.get("tool_choice"))
    return chat


def _changes_nothing(context_management: Any) -> bool:
    if context_management is None:
        return True
    edits = object_of(context_management, frozenset({"edits"})).get("edits")
    return type(edits) is list and all(edit == _KEPT_THINKING for edit in edits)


def _add_sampling(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Within the bounds that vLLM sets."""
    if (temperature := fields.get("temperature")) is not None:
        require(type(temperature) in (int, float) and 0 <= temperature <= 2)
        chat["temperature"] = temperature
    if (top_p := fields.get("top_p")) is not None:
        require(type(top_p) in (int, float) and 0 < top_p <= 1)
        chat["top_p"] = top_p
    if (top_k := fields.get("top_k")) is not None:
        require(type(top_k) is int and top_k >= -1)
        chat["top_k"] = top_k
    if (stop := fields.get("stop_sequences")) is not None:
        require(type(stop) is list and len(stop) <= MAX_STOPS)
        require(all(type(text) is str and text for text in stop))
        chat["stop"] = stop


def _add_extensions(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """vLLM's own fields; and `service_tier`, which engines ignore in both APIs and routing reads."""
    if (tier := fields.get("service_tier")) is not None:
        require(type(tier) is str and tier in _TIERS)
        chat["service_tier"] = tier
    if (watermarking := fields.get("watermarking")) is not None:
        require(type(watermarking) is bool)
        chat["watermarking"] = watermarking
    if (salt := fields.get("cache_salt")) is not None:
        require(0 < len(text_of(salt)) <= MAX_SALT and _FORBIDDEN_IN_SALT.isdisjoint(salt))
        chat["cache_salt"] = salt
    if (arguments := fields.get("chat_template_kwargs")) is not None:
        require(type(arguments) is dict)
        chat["chat_template_kwargs"] = arguments
    if (arguments := fields.get("vllm_xargs")) is not None:
        require(type(arguments) is dict and all(map(_is_extra_argument, arguments.values())))
        chat["vllm_xargs"] = arguments


def _is_extra_argument(value: Any) -> bool:
    items = value if type(value) is list else [value]
    return all(type(item) in (str, int, float) for item in items)


def _add_output_config(chat: dict[str, Any], config: Any) -> None:
    if config is None:
        return
    effort = object_of(config, frozenset({"effort", "format"})).get("effort")
    if effort is not None:
        require(type(effort) is str and effort in _EFFORTS)
        chat["reasoning_effort"] = effort
    form = config.get("format")
    if form is None:
        return
    schema = object_of(form, frozenset({"type", "schema"})).get("schema")
    require(form.get("type") == "json_schema" and type(schema) is dict and schema != {})
    named = {"name": "json_schema", "schema": schema}
    chat["response_format"] = {"type": "json_schema", "json_schema": named}


def _add_thinking(chat: dict[str, Any], thinking: Any, max_tokens: int) -> None:
    if thinking is None:
        return
    kind = object_of(thinking, frozenset({"type", "budget_tokens", "display"})).get("type")
    display = thinking.get("display")  # which vLLM ignores
    require(display is None or (type(display) is str and display in _DISPLAYS))
    if kind == "adaptive":
        require("budget_tokens" not in thinking)
        return
    budget = thinking.get("budget_tokens")
    require(kind == "enabled" and type(budget) is int and LEAST_THINKING_TOKENS <= int(budget) < max_tokens)
    chat["thinking_token_budget"] = budget


def _add_tools(chat: dict[str, Any], tools: Any, choice: Any) -> None:
    names: set[str] = set()
    if tools is not None:
        chat["tools"] = [_tool(tool) for tool in objects_of(tools)]
        names.update(tool["function"]["name"] for tool in chat["tools"])
        require(bool(names))
    if choice is None:
        chat["tool_choice"] = "auto" if names else None
        return
    kind = object_of(choice, frozenset({"type", "name", "disable_parallel_tool_use"})).get("type")
    is_single = choice.get("disable_parallel_tool_use")
    require(is_single is None or type(is_single) is bool)
    chat["parallel_tool_calls"] = not is_single
    if kind == "tool":
        name = text_of(choice.get("name"))
        require(name != "" and name in names)
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        return
    if type(kind) is not str or kind not in _CHOICES or "name" in choice:
        raise OnlyNativeError
    # A choice without tools is a fault in a chat that comes over HTTP, and none in a message.
    require(bool(names) or kind == "none")
    chat["tool_choice"] = _CHOICES[kind]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    schema = object_of(tool, _TOOL).get("input_schema")
    description, strict, is_deferred = tool.get("description"), tool.get("strict"), tool.get("defer_loading")
    require(tool.get("type") in (None, "custom"))
    require(description is None or type(description) is str)
    require(all(flag is None or type(flag) is bool for flag in (strict, is_deferred)))
    if type(schema) is not dict:
        raise OnlyNativeError
    function: dict[str, Any] = {"name": text_of(tool.get("name"))}
    if description is not None:
        function["description"] = description
    function["parameters"] = schema if "type" in schema else {**schema, "type": "object"}
    if strict is not None:
        function["strict"] = strict
    if is_deferred is not None:
        function["defer_loading"] = is_deferred
    return {"type": "function", "function": function}
