"""Tools of the Responses API, and what of them a chat has. Pure.

vLLM shows a model the functions alone: one of a namespace as `<namespace>__<name>`; a web search is nothing
to it, nor to its grammars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.policy.json_rules import (
    Rule,
    is_flag,
    is_object,
    is_plain,
    is_text,
    is_text_or_null,
    null_or_one_of,
    one_of,
)

_FUNCTION = is_object(
    {
        "type": one_of("function"),
        "name": is_text,
        "description": is_text_or_null,
        "parameters": lambda value: value is None or (type(value) is dict and is_plain(value)),
        "strict": is_flag,
    }
)


def _is_function(tool: Any) -> bool:
    return type(tool) is dict and "type" in tool and "name" in tool and _FUNCTION(tool)


_NAMESPACE = is_object(
    {
        "type": is_text,
        "name": lambda value: type(value) is str and value != "",
        "description": is_text,
        "tools": lambda value: type(value) is list and all(map(_is_function, value)),
    }
)
_WEB_SEARCH = is_object(
    {
        "type": is_text,
        "external_web_access": is_flag,
        "search_context_size": null_or_one_of("low", "medium", "high"),
    }
)
_TOOLS: Mapping[str, Rule] = {
    "function": _is_function,
    "namespace": lambda tool: len(tool) == 4 and _NAMESPACE(tool),
    "web_search": _WEB_SEARCH,
}


def is_tool(tool: Any) -> bool:
    """Whether it is known here what vLLM does with it."""
    kind = tool.get("type") if type(tool) is dict else None
    rule = _TOOLS.get(kind) if type(kind) is str else None
    return rule is not None and rule(tool)


def functions_of(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Those that a model is shown, under the names that it knows."""
    made: list[dict[str, Any]] = []
    for tool in tools or ():
        if tool["type"] == "function":
            made.append(tool)
        elif tool["type"] == "namespace":
            made += [one | {"name": flat_name(tool["name"], one["name"])} for one in tool["tools"]]
    return made


def namespaces_of(tools: Sequence[dict[str, Any]] | None) -> dict[str, tuple[str, str]]:
    """The name that a model knows → namespace and name, as the client knows them."""
    return {
        flat_name(tool["name"], one["name"]): (tool["name"], one["name"])
        for tool in tools or ()
        if tool["type"] == "namespace"
        for one in tool["tools"]
    }


def flat_name(namespace: str | None, name: str) -> str:
    """As a model knows it."""
    return f"{namespace}__{name}" if namespace else name
