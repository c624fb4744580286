"""The prompt of a request of Anthropic's Messages API as a chat's messages, as vLLM makes them. Pure."""

from __future__ import annotations

import json
from typing import Any

IGNORED = frozenset({"cache_control"})
"""vLLM ignores it wherever it stands."""
_BILLING_HEADER = "x-anthropic-billing-header"
"""Begins a block of Claude Code's that differs in each request: vLLM drops it."""
_TEXT = IGNORED | {"type", "text", "citations"}
_IMAGE = IGNORED | {"type", "source"}
_TOOL_USE = IGNORED | {"type", "id", "name", "input"}
_TOOL_RESULT = IGNORED | {"type", "tool_use_id", "content", "is_error"}
_THINKING = IGNORED | {"type", "thinking", "signature"}
_REDACTED = IGNORED | {"type", "data"}
_REFERENCE = IGNORED | {"type", "tool_name"}
_DOCUMENT = IGNORED | {"type", "source", "title", "context", "citations"}


class OnlyNativeError(Exception):
    """Only an engine can say what the body means."""


def require(condition: bool) -> None:
    if not condition:
        raise OnlyNativeError


def object_of(value: Any, known: frozenset[str]) -> dict[str, Any]:
    """`value`, if it is an object of known fields."""
    if type(value) is not dict or not value.keys() <= known:
        raise OnlyNativeError
    return value


def objects_of(value: Any) -> list[dict[str, Any]]:
    if type(value) is not list or not all(type(item) is dict for item in value):
        raise OnlyNativeError
    return value


def text_of(value: Any) -> str:
    if type(value) is not str:
        raise OnlyNativeError
    return value


def _system_text(system: Any) -> str:
    """Without what vLLM leaves out; "" where it is empty."""
    if system is None:
        return ""
    if type(system) is list:
        texts = [_text_of(block) for block in objects_of(system)]
        return "".join(text for text in texts if not text.startswith(_BILLING_HEADER))
    return text_of(system)


def prompt_of(system: Any, messages: Any, inline_system: str | None) -> list[dict[str, Any]]:
    """The system prompt first; of those amid the others what these engines make."""
    first = _system_text(system)
    made: list[dict[str, Any]] = []
    for message in objects_of(messages):
        object_of(message, frozenset({"role", "content"}))
        role, content = message.get("role"), message.get("content")
        if role == "system":
            require(content is not None)
            require(inline_system in ("merged", "in_place"))
            text = _system_text([{"type": "text", "text": content}] if type(content) is str else content)
            if inline_system == "merged":
                first += text
            elif text:
                made.append({"role": "system", "content": text})
            continue
        require(role in ("user", "assistant"))
        if type(content) is str:
            made.append({"role": role, "content": content})
        elif role == "user":
            made += _user_messages(objects_of(content))
        else:
            made.append(_assistant_message(objects_of(content)))
    require(bool(made))
    return [{"role": "system", "content": first}, *made] if first else made


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
            data = object_of(block, _REDACTED).get("data")
            require(data is None or type(data) is str)
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
    object_of(block, _TEXT)
    require(block.get("type") == "text" and block.get("citations") is None)
    return text_of(block.get("text"))


def _thought(block: dict[str, Any]) -> str:
    signature = object_of(block, _THINKING).get("signature")
    require(signature is None or type(signature) is str)
    return text_of(block.get("thinking"))


def _image(block: dict[str, Any]) -> dict[str, Any]:
    source = object_of(block, _IMAGE).get("source")
    if type(source) is not dict:
        raise OnlyNativeError
    if source.get("type") == "url":
        url = text_of(object_of(source, frozenset({"type", "url"})).get("url"))
        require(url != "")
    else:
        object_of(source, frozenset({"type", "media_type", "data"}))
        require(source.get("type") == "base64")
        url = f"data:{text_of(source.get('media_type'))};base64,{text_of(source.get('data'))}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(block: dict[str, Any]) -> dict[str, Any]:
    call_id, arguments = text_of(object_of(block, _TOOL_USE).get("id")), block.get("input")
    require(call_id != "" and (arguments is None or type(arguments) is dict))
    function = {"name": text_of(block.get("name")), "arguments": json.dumps(arguments or {})}
    return {"id": call_id, "type": "function", "function": function}


def _result_messages(block: dict[str, Any]) -> list[dict[str, Any]]:
    """What a tool gave; its images follow in the user's name, then the tools that it names.

    A document that a tool gave is nothing to vLLM.
    """
    call_id, content = text_of(object_of(block, _TOOL_RESULT).get("tool_use_id")), block.get("content")
    is_error = block.get("is_error")
    require(is_error is None or type(is_error) is bool)
    texts: list[str] = []
    images: list[dict[str, Any]] = []
    named: list[dict[str, Any]] = []
    if type(content) is str:
        texts.append(content)
    elif content is not None:
        for item in objects_of(content):
            kind = item.get("type")
            if kind == "image":
                images.append(_image(item))
            elif kind == "tool_reference":
                name = text_of(object_of(item, _REFERENCE).get("tool_name"))
                named += [{"type": "tool_reference", "name": name}] if name else []
            elif kind == "document":
                object_of(item, _DOCUMENT)
            else:
                texts.append(_text_of(item))
    made: list[dict[str, Any]] = [{"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts)}]
    if images:
        made.append({"role": "user", "content": images})
    return [*made, {"role": "tool", "tool_call_id": call_id, "content": named}] if named else made
