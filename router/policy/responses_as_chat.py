"""Streams of the Responses API that are asked for as chats: the request. Pure.

What vLLM 0.32 itself makes of it (`vllm/entrypoints/openai/responses`), wherever a chat can say it exactly:
the same prompt, the same sampling, the same use of the parsers. The lists here are of what is translated: any
other field, value or type goes to the engine as it came, which judges it in its own words.
`tests/support/record_as_chat_responses.py` compares the two with vLLM's own classes.

One difference of the prompt is left: a template that writes an earlier call's `function` as JSON gets
`arguments` before `name`, as it does of every chat, and not the name first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from router.policy.as_chat import AsChat
from router.policy.json_rules import (
    Rule,
    is_null,
    is_object,
    is_text,
    is_text_or_null,
    null_or_one_of,
    one_of,
)
from router.policy.responses_fields import FIELDS, SAME_FIELDS, is_schema_format
from router.policy.responses_outlet import ResponsesOutlet
from router.policy.responses_tools import flat_name, functions_of


class _NotExactError(Exception):
    """A chat cannot say it, or not surely."""


def responses_as_chat(fields: Mapping[str, Any]) -> AsChat | None:
    """The chat that a stream of the Responses API is; None: it goes to the engine as it came."""
    try:
        return _as_chat(fields)
    except _NotExactError:
        return None


def _as_chat(fields: Mapping[str, Any]) -> AsChat:
    _check(all(name in FIELDS and FIELDS[name](value) for name, value in fields.items()))
    _check("model" in fields and "input" in fields and fields.get("stream") is True)
    chat: dict[str, Any] = {
        "model": fields["model"],
        "messages": _messages(fields.get("instructions"), fields["input"]),
        "stream": True,
        "stream_options": {"include_usage": True},
        # As vLLM tokenizes these prompts: what the template begins with may come a second time.
        "add_special_tokens": True,
    }
    chat |= {name: fields[name] for name in SAME_FIELDS if name in fields}
    if (limit := fields.get("max_output_tokens")) is not None:
        chat["max_completion_tokens"] = limit
    if stop := fields.get("stop"):
        chat["stop"] = stop
    if effort := (fields.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    chat |= _tools(fields.get("tools"), fields.get("tool_choice", "auto"))
    form = (fields.get("text") or {}).get("format")
    if is_schema_format(form):
        # A chat refuses one together with a named tool; and its `response_format` may be shown to the model.
        _check(type(chat.get("tool_choice")) is not dict)
        is_any = form["type"] == "json_object"
        chat["structured_outputs"] = {"json_object": True} if is_any else {"json": form["schema"]}
    return AsChat(chat, ResponsesOutlet(fields))


def _check(is_exact: bool) -> None:
    if not is_exact:
        raise _NotExactError


# ---- tools ----

_IN_FUNCTION = ("name", "description", "parameters", "strict")


def _tools(tools: list[dict[str, Any]] | None, choice: str | dict[str, Any]) -> dict[str, Any]:
    """Tools and the choice among them, as a chat names both."""
    if not tools:
        _check(choice in ("auto", "none"))
        return {}
    functions = functions_of(tools)
    _check(bool(functions))
    chat_choice: Any = choice
    if isinstance(choice, dict):
        name = choice["name"]
        _check(any(function["name"] == name for function in functions))
        chat_choice = {"type": "function", "function": {"name": name}}
    return {"tools": [_chat_tool(function) for function in functions], "tool_choice": chat_choice}


def _chat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {name: tool[name] for name in _IN_FUNCTION if name in tool}
    return {"type": "function", "function": function}


# ---- messages ----

_STATUS = null_or_one_of("in_progress", "completed", "incomplete")
_MESSAGE = is_object(
    {
        "type": one_of("message"),
        "role": one_of("user", "assistant", "system", "developer"),
        "content": lambda value: type(value) is str or (type(value) is list and bool(value)),
        "id": is_text,
        "status": one_of("in_progress", "completed", "incomplete"),
        "phase": null_or_one_of("commentary", "final_answer"),
    }
)
_INPUT_TEXT = is_object({"type": one_of("input_text"), "text": is_text})
_INPUT_IMAGE = is_object(
    {
        "type": one_of("input_image"),
        "image_url": is_text,
        "detail": one_of("low", "high", "auto", "original"),
    }
)
_OUTPUT_TEXT = is_object(
    {
        "type": one_of("output_text"),
        "text": is_text,
        "annotations": lambda value: value == [],
        "logprobs": lambda value: value is None or value == [],
    }
)


def _are_texts(value: Any) -> bool:
    return type(value) is list and bool(value) and all(_is_part(part, _INPUT_TEXT) for part in value)


_CALL = is_object(
    {
        "type": is_text,
        "call_id": is_text,
        "name": is_text,
        "arguments": is_text,
        "id": is_text_or_null,
        "status": _STATUS,
        "async": is_null,
        "caller": is_null,
        "namespace": is_text_or_null,
    }
)
_CALL_OUTPUT = is_object(
    {
        "type": is_text,
        "call_id": is_text,
        "output": lambda value: type(value) is str or _are_texts(value),
        "id": is_text_or_null,
        "status": _STATUS,
    }
)
_SUMMARY_TEXT = is_object({"type": one_of("summary_text"), "text": is_text})
_REASONING_TEXT = is_object({"type": one_of("reasoning_text"), "text": is_text})
_REASONING = is_object(
    {
        "type": is_text,
        "id": is_text,
        "summary": lambda value: type(value) is list and all(_is_part(one, _SUMMARY_TEXT) for one in value),
        "content": lambda value: (
            value is None or (type(value) is list and all(_is_part(one, _REASONING_TEXT) for one in value))
        ),
        "encrypted_content": lambda value: value is None or value == "",
        "status": _STATUS,
    }
)
_BILLING = "x-anthropic-billing-header"
"""vLLM takes such a line out of a chat's system text, and not out of an `input_text`."""


def _is_part(part: Any, rule: Rule) -> bool:
    return type(part) is dict and len(part) >= 2 and "type" in part and "text" in part and rule(part)


def _messages(instructions: str | None, given: str | list[Any]) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in given:
        _check(type(item) is dict)
        kind = item.get("type", "message")
        add = _ADD.get(kind) if type(kind) is str else None
        if add is None:
            raise _NotExactError
        add(messages, item)
    # vLLM would have the model go on with it.
    is_cut = item.get("status") in ("in_progress", "incomplete")
    _check(not (is_cut and kind in ("message", "reasoning")))
    return messages


def _add_message(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    _check("role" in item and "content" in item and _MESSAGE(item))
    role, content = item["role"], item["content"]
    if role != "assistant":
        if type(content) is list:
            content = [_chat_part(part, role) for part in content]
        messages.append({"role": role, "content": content})
        return
    if type(content) is list:
        # Without its type vLLM takes it for another thing. It reads the first part alone.
        _check("type" in item and all(_is_part(part, _OUTPUT_TEXT) for part in content))
        content = content[0]["text"]
    else:
        _check("id" not in item and "status" not in item)  # with both vLLM takes the text for a list
    _add_to_assistant(messages, "content", content)


def _chat_part(part: Any, role: str) -> dict[str, Any]:
    if _is_part(part, _INPUT_TEXT):
        _check(role != "system" or not part["text"].startswith(_BILLING))
        return {"type": "text", "text": part["text"]}
    _check(type(part) is dict and "type" in part and "image_url" in part and _INPUT_IMAGE(part))
    # The template sees `detail` beside the image, since vLLM does not know it there.
    detail = part.get("detail", "auto")
    return {"type": "image_url", "image_url": {"url": part["image_url"]}, "detail": detail}


def _add_reasoning(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    _check("summary" in item and _REASONING(item))
    texts = item.get("content") or item["summary"]
    _add_to_assistant(messages, "reasoning", texts[0]["text"] if texts else "")


def _add_to_assistant(messages: list[dict[str, Any]], name: str, text: str) -> None:
    """Into the assistant's message that is the last, where it has none of this, else as a new one."""
    if messages and messages[-1]["role"] == "assistant" and name not in messages[-1]:
        messages[-1][name] = text
    else:
        messages.append({"role": "assistant", name: text})


def _add_call(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    _check("call_id" in item and "name" in item and "arguments" in item and _CALL(item))
    function = {"name": flat_name(item.get("namespace"), item["name"]), "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "tool_calls": [call]})


def _add_call_output(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    _check("call_id" in item and "output" in item and _CALL_OUTPUT(item))
    output = item["output"]
    if type(output) is list:
        output = [{"type": "text", "text": part["text"]} for part in output]
    messages.append({"role": "tool", "content": output, "tool_call_id": item["call_id"]})


_ADD: Mapping[str, Callable[[list[dict[str, Any]], dict[str, Any]], None]] = {
    "message": _add_message,
    "reasoning": _add_reasoning,
    "function_call": _add_call,
    "function_call_output": _add_call_output,
}
