"""The Responses API's fields that a chat can say, but for the input. Pure.

What is not in these lists goes to the engine as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from router.policy.json_rules import (
    Rule,
    is_false,
    is_flag,
    is_null,
    is_object,
    is_plain,
    is_text,
    is_text_or_null,
    is_texts_by_name,
    null_or_one_of,
    number,
    one_of,
    whole,
)
from router.policy.responses_tools import is_tool


def _is_stop(value: Any) -> bool:
    if type(value) is list:
        return all(type(text) is str and text for text in value)
    return is_text_or_null(value)


def _is_include(value: Any) -> bool:
    """vLLM takes it and does nothing: it encrypts no reasoning."""
    return value is None or (
        type(value) is list
        and all(type(name) is str and name == "reasoning.encrypted_content" for name in value)
    )


def _is_template_arguments(value: Any) -> bool:
    """A template of the client's own is for the engine to judge."""
    return value is None or (type(value) is dict and "chat_template" not in value and is_plain(value))


_NAMED = is_object({"type": one_of("function"), "name": lambda value: is_text(value) and bool(value)})
_FORMATS: Mapping[str, Rule] = {
    "text": is_object({"type": is_text}),
    "json_object": is_object({"type": is_text}),
    "json_schema": is_object(
        {
            "type": is_text,
            "name": is_text,
            "schema": lambda value: type(value) is dict and is_plain(value),
            "description": is_text_or_null,
            "strict": is_flag,
        }
    ),
}


def _is_tool_choice(value: Any) -> bool:
    if type(value) is dict:
        return len(value) == 2 and _NAMED(value)
    return type(value) is str and value in ("auto", "none", "required")


def _is_format(value: Any) -> bool:
    if type(value) is not dict:
        return value is None
    kind = value.get("type")
    rule = _FORMATS.get(kind) if type(kind) is str else None
    if rule is None or not rule(value):
        return False
    return kind != "json_schema" or ("name" in value and "schema" in value)


_SUMMARY = null_or_one_of("auto", "concise", "detailed")
FIELDS: Mapping[str, Rule] = {
    "model": is_text,
    "input": lambda value: type(value) is str or (type(value) is list and bool(value)),
    "stream": lambda value: value is True,
    "instructions": is_text_or_null,
    "tools": lambda value: type(value) is list and all(map(is_tool, value)),
    "tool_choice": _is_tool_choice,
    "parallel_tool_calls": is_flag,
    "reasoning": is_object(
        {
            "effort": null_or_one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
            "summary": _SUMMARY,
            "generate_summary": _SUMMARY,
        }
    ),
    "text": is_object({"format": _is_format, "verbosity": null_or_one_of("low", "medium", "high")}),
    "chat_template_kwargs": _is_template_arguments,
    "max_output_tokens": whole(1),
    "temperature": number(0, 2),
    "top_p": lambda value: value is None or (number(0, 1)(value) and value > 0),
    "top_k": whole(-1),
    "min_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": lambda value: value is None or (number(0, 1e6)(value) and value > 0),
    "seed": whole(-(2**63)),
    "stop": _is_stop,
    # Without effect on the answer; some come back in it.
    "metadata": is_texts_by_name,
    "user": is_text_or_null,
    "safety_identifier": is_text_or_null,
    "prompt_cache_key": is_text_or_null,
    "service_tier": one_of("auto", "default", "flex", "scale", "priority"),
    "max_tool_calls": whole(-(2**63)),
    "include": _is_include,
    # vLLM does not know these two, and so does nothing.
    "client_metadata": is_texts_by_name,
    "stream_options": is_object({"include_obfuscation": is_flag}),
    # Only where nothing is asked for.
    "store": is_false,
    "background": lambda value: value is False,
    "truncation": one_of("disabled"),
    "top_logprobs": lambda value: value is None or (type(value) is int and value == 0),
    "logit_bias": is_null,
    "previous_response_id": is_null,
    "prompt": is_null,
    "conversation": is_null,
}
SAME_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "user",
    "prompt_cache_key",
    "service_tier",
)
"""Named alike in a chat. The last three are for routers and logs."""


def is_schema_format(form: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether a grammar makes the answer's text."""
    return form is not None and form["type"] != "text"
