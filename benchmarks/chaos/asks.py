"""What clients ask, and what an unbroken answer says. Pure.

Rule: an emulated token is a hash of all tokens before it, so the text of an answer is known here without
asking anybody.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from site_agent.emulation.tokens import (
    expected_text_for_messages,
    expected_text_for_prompt,
    prompt_of,
    tokenize,
    tokenize_chat,
)

Api = Literal["chat", "completion", "messages", "responses"]
PATHS: Mapping[Api, str] = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}
LONGEST_TOKENS = 500
"""Of an answer; about fifteen seconds."""
TOOLS = [{"type": "function", "function": {"name": "wind", "parameters": {"type": "object"}}}]
KINDS: Mapping[str, float] = {
    "chat": 14,
    "chat stream": 14,
    "long chat stream": 18,
    "completion": 5,
    "completion stream": 12,
    "messages": 3,
    "messages stream": 10,
    "responses": 3,
    "responses stream": 10,
    "flex chat": 4,
    "stream with tools": 4,
    "stream left by its client": 8,
    "answer left by its client": 3,
    "stream read slowly": 5,
    "no JSON": 2,
    "no such model": 1,
}
"""How often each comes, beside the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, and what must come of it."""

    kind: str
    api: Api
    body: bytes
    text: str
    """What an unbroken answer says."""
    prompt_tokens: int
    output_tokens: int
    is_stream: bool = False
    wants_usage: bool = True
    leaves_after_events: int | None = None
    pause_seconds: float = 0.0
    """Of a slow reader, before each read."""
    refusal: int | None = None
    """The status that a wrong request gets."""


def make_ask(
    rng: random.Random, model: str, *, calm: bool = False, longest_tokens: int = LONGEST_TOKENS
) -> Ask:
    """The next request. `calm`: only those that end with a right answer when all is well."""
    kinds = {
        name: weight
        for name, weight in KINDS.items()
        if not (calm and ("left" in name or name.startswith(("no ", "flex"))))
    }
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    words = prompt_of(rng.randint(5, 300), rng.getrandbits(32))
    api: Api = next((name for name in PATHS if kind.startswith(name)), "chat")
    is_stream = "stream" in kind
    is_long = kind.startswith(("long", "stream left"))
    tokens = rng.randint(longest_tokens // 3, longest_tokens) if is_long else rng.randint(1, 120)
    fields: dict[str, Any] = {"model": model, "temperature": 0}
    turns = [{"role": "user", "content": words}]
    if api == "completion":
        fields |= {"prompt": words, "max_tokens": tokens}
        text, prompt_tokens = expected_text_for_prompt(words, tokens), len(tokenize(words))
    else:
        if rng.random() < 0.3:
            turns = [
                *turns,
                {"role": "assistant", "content": prompt_of(9, 1)},
                {"role": "user", "content": "so"},
            ]
        limit = "max_output_tokens" if api == "responses" else "max_tokens"
        fields |= {"input" if api == "responses" else "messages": turns, limit: tokens}
        text, prompt_tokens = expected_text_for_messages(turns, tokens), len(tokenize_chat(turns))
    if api == "responses":
        fields["store"] = False
    wants_usage = api in ("messages", "responses") or not is_stream or rng.random() < 0.7
    if is_stream:
        fields["stream"] = True
        if api in ("chat", "completion") and wants_usage:
            fields["stream_options"] = {"include_usage": True}
    if kind == "flex chat":
        fields["service_tier"] = "flex"
    elif kind == "stream with tools":
        fields |= {"tools": TOOLS, "tool_choice": "auto"}
    elif kind == "no such model":
        fields["model"] = "another"
    body = json.dumps(fields).encode()
    return Ask(
        kind=kind,
        api=api,
        body=body[:-3] if kind == "no JSON" else body,
        text=text,
        prompt_tokens=prompt_tokens,
        output_tokens=tokens,
        is_stream=is_stream,
        wants_usage=wants_usage,
        leaves_after_events=rng.randint(0, 60) if "left by" in kind else None,
        pause_seconds=rng.uniform(0.02, 0.2) if kind == "stream read slowly" else 0.0,
        refusal={"no JSON": 400, "no such model": 404}.get(kind),
    )
