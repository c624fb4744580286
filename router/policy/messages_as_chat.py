"""Streams of Anthropic's Messages API as the chats that vLLM makes of them. Pure.

The same as `AnthropicServingMessages.to_chat_completion_request` of vLLM 0.32, where that depends on the body
alone; tests/support/record_as_chat_messages.py holds one to the other. None is returned, and the body goes to
an engine as it came, for
  1. what the engine's own state decides: system messages among the others (its chat template), disabled
     `thinking` (a probe of its renderer), deferred tools and changes of them
  2. what vLLM refuses, or takes for a chat that it would refuse had it come over HTTP
  3. every field, value and type that is not known here
  4. what orjson may read otherwise than vLLM's parser (integers beyond 64 bits), and bodies of so many values
     that making a chat of them would hold up other streams
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router.policy.as_chat import AsChat
from router.policy.json_rules import is_plain
from router.policy.messages_outlet import MessagesOutlet

MAX_STOPS = 4
"""vLLM's default VLLM_MAX_STOP_STRINGS. Where an engine takes more, it gets them as they came."""
MAX_SALT = 128
LEAST_THINKING_TOKENS = 1024
_STREAM_OPTIONS = {"include_usage": True, "continuous_usage_stats": True}
"""vLLM's, for the prompt's length in the first event."""
_BILLING_HEADER = "x-anthropic-billing-header"
"""Begins a block of Claude Code's that differs in each request: vLLM drops it."""
_FORBIDDEN_IN_SALT = frozenset("@/\\\x00")
_TIERS = frozenset({"auto", "default", "standard_only", "scale", "priority", "flex"})
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_DISPLAYS = frozenset({"summarized", "omitted", "updates"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

_IGNORED = frozenset({"cache_control"})
"""vLLM ignores it wherever it stands."""
_PROMPT = frozenset(
    {"model", "messages", "system", "stream", "metadata", "context_management", "service_tier"}
)
_ANSWER = frozenset(
    {"max_tokens", "stop_sequences", "temperature", "top_p", "top_k", "thinking", "output_config"}
)
_OWN = frozenset({"watermarking", "cache_salt", "vllm_xargs", "chat_template_kwargs"})
"""Fields that Anthropic has not."""
_KNOWN = _IGNORED | _PROMPT | _ANSWER | _OWN | {"tools", "tool_choice"}
_TEXT = _IGNORED | {"type", "text", "citations"}
_IMAGE = _IGNORED | {"type", "source"}
_TOOL_USE = _IGNORED | {"type", "id", "name", "input"}
_TOOL_RESULT = _IGNORED | {"type", "tool_use_id", "content", "is_error"}
_THINKING = _IGNORED | {"type", "thinking", "signature"}
_REDACTED = _IGNORED | {"type", "data"}
_TOOL = _IGNORED | {"type", "name", "description", "input_schema", "strict", "eager_input_streaming"}
_KEPT_THINKING = {"type": "clear_thinking_20251015", "keep": "all"}
"""An edit of the context that changes nothing; Claude Code asks for it."""


class _OnlyNativeError(Exception):
    """Only an engine can say what the body means."""


def messages_as_chat(fields: Mapping[str, Any]) -> AsChat | None:
    """A streamed request of the Messages API, parsed, as a chat; None: it is for an engine as it came."""
    try:
        _require(fields.get("stream") is True and fields.keys() <= _KNOWN and is_plain(fields))
        return AsChat(_chat(fields), MessagesOutlet())
    except _OnlyNativeError:
        return None


def _require(condition: bool) -> None:
    if not condition:
        raise _OnlyNativeError


def _chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    model, max_tokens, metadata = fields.get("model"), fields.get("max_tokens"), fields.get("metadata")
    _require(type(model) is str and model != "" and (metadata is None or type(metadata) is dict))
    if type(max_tokens) is not int or max_tokens <= 0:
        raise _OnlyNativeError
    _require(_changes_nothing(fields.get("context_management")))
    chat: dict[str, Any] = {
        "model": model,
        "messages": _system(fields.get("system")) + _messages(fields.get("messages")),
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


def _object(value: Any, known: frozenset[str]) -> dict[str, Any]:
    """`value`, if it is an object of known fields."""
    if type(value) is not dict or not value.keys() <= known:
        raise _OnlyNativeError
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    if type(value) is not list or not all(type(item) is dict for item in value):
        raise _OnlyNativeError
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise _OnlyNativeError
    return value


def _changes_nothing(context_management: Any) -> bool:
    if context_management is None:
        return True
    edits = _object(context_management, frozenset({"edits"})).get("edits")
    return type(edits) is list and all(edit == _KEPT_THINKING for edit in edits)


def _system(system: Any) -> list[dict[str, Any]]:
    """The system prompt as a message; [] where it is empty."""
    if system is None:
        text = ""
    elif type(system) is list:
        texts = [_text_of(block) for block in _objects(system)]
        text = "".join(text for text in texts if not text.startswith(_BILLING_HEADER))
    else:
        text = _string(system)
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for message in _objects(messages):
        _object(message, frozenset({"role", "content"}))
        role, content = message.get("role"), message.get("content")
        _require(role in ("user", "assistant"))
        if type(content) is str:
            made.append({"role": role, "content": content})
        elif role == "user":
            made += _user_messages(_objects(content))
        else:
            made.append(_assistant_message(_objects(content)))
    _require(bool(made))
    return made


def _user_messages(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of tools, each a message, then the rest, if there is any."""
    made: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_result":
            made += _result_messages(block)
        elif kind == "image":
            parts.append(_image(block))
        elif text := _text_of(block):
            parts.append({"type": "text", "text": text})
    return [*made, {"role": "user", "content": _content(parts)}] if parts else made


def _assistant_message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(_call(block))
        elif kind == "thinking":
            thoughts.append(_thought(block))
        elif kind == "redacted_thinking":
            data = _object(block, _REDACTED).get("data")
            _require(data is None or type(data) is str)
        elif text := _text_of(block):
            parts.append({"type": "text", "text": text})
    made: dict[str, Any] = {"role": "assistant"}
    if thoughts:
        made["reasoning"] = "".join(thoughts)
    if calls:
        made["tool_calls"] = calls
    if parts:
        made["content"] = _content(parts)
    return made


def _content(parts: list[dict[str, Any]]) -> Any:
    """A single text is said as such."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _text_of(block: dict[str, Any]) -> str:
    _object(block, _TEXT)
    _require(block.get("type") == "text" and block.get("citations") is None)
    return _string(block.get("text"))


def _thought(block: dict[str, Any]) -> str:
    signature = _object(block, _THINKING).get("signature")
    _require(signature is None or type(signature) is str)
    return _string(block.get("thinking"))


def _image(block: dict[str, Any]) -> dict[str, Any]:
    source = _object(block, _IMAGE).get("source")
    if type(source) is not dict:
        raise _OnlyNativeError
    if source.get("type") == "url":
        url = _string(_object(source, frozenset({"type", "url"})).get("url"))
        _require(url != "")
    else:
        _object(source, frozenset({"type", "media_type", "data"}))
        _require(source.get("type") == "base64")
        url = f"data:{_string(source.get('media_type'))};base64,{_string(source.get('data'))}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(block: dict[str, Any]) -> dict[str, Any]:
    call_id, arguments = _string(_object(block, _TOOL_USE).get("id")), block.get("input")
    _require(call_id != "" and (arguments is None or type(arguments) is dict))
    function = {"name": _string(block.get("name")), "arguments": json.dumps(arguments or {})}
    return {"id": call_id, "type": "function", "function": function}


def _result_messages(block: dict[str, Any]) -> list[dict[str, Any]]:
    """What a tool gave; its images follow in the user's name."""
    call_id, content = _string(_object(block, _TOOL_RESULT).get("tool_use_id")), block.get("content")
    is_error = block.get("is_error")
    _require(is_error is None or type(is_error) is bool)
    texts: list[str] = []
    images: list[dict[str, Any]] = []
    if type(content) is str:
        texts.append(content)
    elif content is not None:
        for item in _objects(content):
            if item.get("type") == "image":
                images.append(_image(item))
            else:
                texts.append(_text_of(item))
    made: list[dict[str, Any]] = [{"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)}]
    return [*made, {"role": "user", "content": images}] if images else made


def _add_sampling(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Within the bounds that vLLM sets."""
    if (temperature := fields.get("temperature")) is not None:
        _require(type(temperature) in (int, float) and 0 <= temperature <= 2)
        chat["temperature"] = temperature
    if (top_p := fields.get("top_p")) is not None:
        _require(type(top_p) in (int, float) and 0 < top_p <= 1)
        chat["top_p"] = top_p
    if (top_k := fields.get("top_k")) is not None:
        _require(type(top_k) is int and top_k >= -1)
        chat["top_k"] = top_k
    if (stop := fields.get("stop_sequences")) is not None:
        _require(type(stop) is list and len(stop) <= MAX_STOPS)
        _require(all(type(text) is str and text for text in stop))
        chat["stop"] = stop


def _add_extensions(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """vLLM's own fields; and `service_tier`, which engines ignore in both APIs and routing reads."""
    if (tier := fields.get("service_tier")) is not None:
        _require(type(tier) is str and tier in _TIERS)
        chat["service_tier"] = tier
    if (watermarking := fields.get("watermarking")) is not None:
        _require(type(watermarking) is bool)
        chat["watermarking"] = watermarking
    if (salt := fields.get("cache_salt")) is not None:
        _require(0 < len(_string(salt)) <= MAX_SALT and _FORBIDDEN_IN_SALT.isdisjoint(salt))
        chat["cache_salt"] = salt
    if (arguments := fields.get("chat_template_kwargs")) is not None:
        _require(type(arguments) is dict)
        chat["chat_template_kwargs"] = arguments
    if (arguments := fields.get("vllm_xargs")) is not None:
        _require(type(arguments) is dict and all(map(_is_extra_argument, arguments.values())))
        chat["vllm_xargs"] = arguments


def _is_extra_argument(value: Any) -> bool:
    items = value if type(value) is list else [value]
    return all(type(item) in (str, int, float) for item in items)


def _add_output_config(chat: dict[str, Any], config: Any) -> None:
    if config is None:
        return
    effort = _object(config, frozenset({"effort", "format"})).get("effort")
    if effort is not None:
        _require(type(effort) is str and effort in _EFFORTS)
        chat["reasoning_effort"] = effort
    form = config.get("format")
    if form is None:
        return
    schema = _object(form, frozenset({"type", "schema"})).get("schema")
    _require(form.get("type") == "json_schema" and type(schema) is dict and schema != {})
    named = {"name": "json_schema", "schema": schema}
    chat["response_format"] = {"type": "json_schema", "json_schema": named}


def _add_thinking(chat: dict[str, Any], thinking: Any, max_tokens: int) -> None:
    if thinking is None:
        return
    kind = _object(thinking, frozenset({"type", "budget_tokens", "display"})).get("type")
    display = thinking.get("display")  # which vLLM ignores
    _require(display is None or (type(display) is str and display in _DISPLAYS))
    if kind == "adaptive":
        _require("budget_tokens" not in thinking)
        return
    budget = thinking.get("budget_tokens")
    _require(kind == "enabled" and type(budget) is int and LEAST_THINKING_TOKENS <= int(budget) < max_tokens)
    chat["thinking_token_budget"] = budget


def _add_tools(chat: dict[str, Any], tools: Any, choice: Any) -> None:
    names: set[str] = set()
    if tools is not None:
        chat["tools"] = [_tool(tool) for tool in _objects(tools)]
        names.update(tool["function"]["name"] for tool in chat["tools"])
        _require(bool(names))
    if choice is None:
        chat["tool_choice"] = "auto" if names else None
        return
    kind = _object(choice, frozenset({"type", "name", "disable_parallel_tool_use"})).get("type")
    is_single = choice.get("disable_parallel_tool_use")
    _require(is_single is None or type(is_single) is bool)
    chat["parallel_tool_calls"] = not is_single
    if kind == "tool":
        name = _string(choice.get("name"))
        _require(name != "" and name in names)
        chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        return
    if type(kind) is not str or kind not in _CHOICES or "name" in choice:
        raise _OnlyNativeError
    # A choice without tools is a fault in a chat that comes over HTTP, and none in a message.
    _require(bool(names) or kind == "none")
    chat["tool_choice"] = _CHOICES[kind]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    schema = _object(tool, _TOOL).get("input_schema")
    description, strict = tool.get("description"), tool.get("strict")
    _require(tool.get("type") in (None, "custom"))
    _require(description is None or type(description) is str)
    _require(strict is None or type(strict) is bool)
    if type(schema) is not dict:
        raise _OnlyNativeError
    function: dict[str, Any] = {"name": _string(tool.get("name"))}
    if description is not None:
        function["description"] = description
    function["parameters"] = schema if "type" in schema else {**schema, "type": "object"}
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}
