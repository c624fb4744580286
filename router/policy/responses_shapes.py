"""What the Responses API's answers are made of, in vLLM's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from router.policy.responses_fields import is_schema_format
from router.policy.responses_tools import functions_of

Kind = Literal["message", "reasoning", "call"]
"""Of an item."""

_LEAST_TEMPERATURE = 0.01
"""vLLM raises what is lower, but 0 itself."""


def item_shape(
    kind: Kind, item_id: str, text: str | None, *, call_id: str, name: str, namespace: str | None
) -> dict[str, Any]:
    """An item; `text` is None until it is whole. What comes behind it is a call's."""
    status = "in_progress" if text is None else "completed"
    if kind == "call":
        return {
            "arguments": text or "",
            "call_id": call_id,
            "name": name,
            "type": "function_call",
            "id": item_id,
            "async": None,
            "caller": None,
            "namespace": namespace,
            "status": status,
        }
    parts = None if text is None else [part_shape(kind, text)]
    if kind == "reasoning":
        return {
            "id": item_id,
            "summary": [],
            "type": "reasoning",
            "content": parts,
            "encrypted_content": None,
            "status": status,
        }
    return {
        "id": item_id,
        "content": parts or [],
        "role": "assistant",
        "status": status,
        "type": "message",
        "phase": None,
    }


def part_shape(kind: Kind, text: str | None) -> dict[str, Any]:
    """The one part of a message or of reasoning; `text` is None until it is whole."""
    if kind == "reasoning":
        return {"text": text or "", "type": "reasoning_text"}
    logprobs: list[Any] | None = [] if text is None else None
    return {"annotations": [], "text": text or "", "type": "output_text", "logprobs": logprobs}


def usage_shape(prompt: int, output: int, *, cached: int, cache_write: int, reasoning: int) -> dict[str, Any]:
    """Numbers of tokens."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": cache_write,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": reasoning,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + output,
    }


def response_shape(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The `response` of an answer that has not begun; `fields` is a request that a chat can say.

    Where the model's own defaults decide, only the engine knows them: there it is as OpenAI's.
    """
    tools = fields.get("tools") or []
    temperature = _float(fields.get("temperature"), 1.0)
    if 0 < temperature < _LEAST_TEMPERATURE:
        temperature = _LEAST_TEMPERATURE
    parallel = fields.get("parallel_tool_calls")
    names = ("context", "effort", "generate_summary", "mode", "summary")
    return {
        "id": "",
        "created_at": 0,
        "incomplete_details": None,
        "instructions": fields.get("instructions"),
        "metadata": fields.get("metadata"),
        "model": "",
        "object": "response",
        "output": [],
        "parallel_tool_calls": True if parallel is None else parallel,
        "temperature": temperature,
        "tool_choice": fields.get("tool_choice", "auto") if tools else "none",
        "tools": [_tool(tool) for tool in tools],
        "top_p": 1.0 if temperature == 0 else _float(fields.get("top_p"), 1.0),
        "background": False,
        "max_output_tokens": fields.get("max_output_tokens"),
        "max_tool_calls": fields.get("max_tool_calls"),
        "previous_response_id": None,
        "prompt": None,
        "reasoning": _with_all(fields.get("reasoning"), names),
        "service_tier": fields.get("service_tier", "auto"),
        "status": "in_progress",
        "text": None if _is_call_grammar(fields) else _text(fields.get("text")),
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": None,
        "user": fields.get("user"),
        "presence_penalty": _float(fields.get("presence_penalty"), 0.0),
        "frequency_penalty": _float(fields.get("frequency_penalty"), 0.0),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _float(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _is_call_grammar(fields: Mapping[str, Any]) -> bool:
    """Whether the engine makes calls by a grammar, of which `text` is then a part: vLLM no longer shows it.

    So it is with parsers that have such a grammar, as most have.
    """
    tools, choice = fields.get("tools"), fields.get("tool_choice", "auto")
    if not tools or choice == "none":
        return False
    if choice != "auto" or any(one.get("strict") for one in functions_of(tools)):
        return True
    form = (fields.get("text") or {}).get("format")
    return fields.get("parallel_tool_calls") is False and not is_schema_format(form)


def _text(text: dict[str, Any] | None) -> dict[str, Any] | None:
    if text is None:
        return None
    form = text.get("format")
    if form is not None and form["type"] == "json_schema":
        form = _with_all(form, ("name", "schema", "type", "description", "strict"))
    return {"format": form, "verbosity": text.get("verbosity")}


def _with_all(value: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    return None if value is None else {name: value.get(name) for name in names}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] == "namespace":
        return tool | {"tools": [_tool(one) for one in tool["tools"]]}
    if tool["type"] == "web_search":
        names = ("type", "external_web_access", "filters", "search_context_size", "user_location")
        return {name: tool.get(name) for name in names}
    return {
        "name": tool["name"],
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict"),
        "type": "function",
        "allowed_callers": None,
        "async": None,
        "defer_loading": None,
        "description": tool.get("description"),
        "output_schema": None,
    }
