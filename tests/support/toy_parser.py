"""The toy engine's parsers: what of its text is reasoning, answer, or a tool call. Pure.

Reasoning goes up to the first line break, where a request has `"chat_template_kwargs": {"thinks": true}` or a
`reasoning_effort`.
Each " {" begins a tool call, the next "]" ends it, and between calls there is text. As in vLLM, what may yet
become markup is held back, and `/v1/chat/completions/derender` says the same of ids.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import orjson

NAME = "write"
_made = itertools.count(1)


@dataclass(frozen=True)
class Meaning:
    """All that a text says."""

    reasoning: str
    content: str
    calls: tuple[str, ...]


def meaning_of(text: str, fields: dict[str, Any], *, is_whole: bool) -> Meaning:
    """`is_whole`: nothing is held back."""
    text = text.rstrip("\ufffd")
    if not is_whole:
        text = text.removesuffix(" ")
    reasoning = ""
    if (fields.get("chat_template_kwargs") or {}).get("thinks") or fields.get("reasoning_effort"):
        reasoning, _, text = text.partition("\n")
    if not fields.get("tools"):
        return Meaning(reasoning, text, ())
    content, *rest = text.split(" {")
    calls = []
    for piece in rest:
        arguments, end, after = piece.partition("]")
        calls.append("{" + arguments + end)
        content += after
    return Meaning(reasoning, content, tuple(calls))


def delta_between(before: Meaning, after: Meaning, call_ids: list[str]) -> dict[str, Any]:
    """What a stream says of `after` to a client with `before`; new calls' ids are added to `call_ids`."""
    delta: dict[str, Any] = {}
    if reasoning := after.reasoning[len(before.reasoning) :]:
        delta["reasoning"] = reasoning
    if content := after.content[len(before.content) :]:
        delta["content"] = content
    calls = []
    for index, arguments in enumerate(after.calls):
        old = before.calls[index] if index < len(before.calls) else None
        function = {"arguments": arguments[len(old or "") :]}
        if old is None:
            if index >= len(call_ids):
                call_ids.append(f"call-{next(_made)}")
            head = {"index": index, "id": call_ids[index], "type": "function"}
            calls.append(head | {"function": {"name": NAME} | function})
        elif function["arguments"]:
            calls.append({"index": index, "function": function})
    return delta | ({"tool_calls": calls} if calls else {})


def derender(body: bytes, decode: Any) -> bytes:
    """`/v1/chat/completions/derender`, streaming; `decode` is the tokenizer's."""
    asked = orjson.loads(body)
    state = asked["stream_state"] or {"output_token_ids": [], "last_tool_call_ids": []}
    [choice] = asked["generate_chunk"]["choices"]
    fields, before = asked["chat_request"], state["output_token_ids"]
    ids = before + choice["token_ids"]
    is_whole = choice["finish_reason"] is not None
    delta = delta_between(
        meaning_of(decode(before), fields, is_whole=False),
        meaning_of(decode(ids), fields, is_whole=is_whole),
        state["last_tool_call_ids"],
    )
    chunk = {"choices": [{"index": 0, "delta": {"role": "assistant"} | delta, "finish_reason": None}]}
    return orjson.dumps({"chunk": chunk, "stream_state": state | {"output_token_ids": ids}})
