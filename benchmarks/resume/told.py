"""What a client was told in one stream, and how two of them differ."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

EVENTS_BEFORE_SIGNAL = 10
MAX_IDS_TAKEN_BACK = 3
"""Bytes of a character but for the last. A client that asked for ids was told those of half a character, and
a sampler may choose others (docs/resume.md)."""
_USAGE_OF_NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@dataclass(slots=True)
class Told:
    """One stream, as its client got it."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Name and arguments of each tool call, by index."""
    call_ids: dict[int, list[str]] = field(default_factory=dict)
    """The ids that it was given: one, and no other call's."""
    ids: set[str] = field(default_factory=set)
    roles: int = 0
    finish: list[str] = field(default_factory=list)
    stop_reasons: list[Any] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    foreign: set[str] = field(default_factory=set)
    """Fields that nobody asked for."""
    prompt_token_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    """Both only where the client asked for them."""
    error: str = ""

    @property
    def is_whole(self) -> bool:
        """One stream as OpenAI's API describes it."""
        shape = (len(self.ids), len(self.finish), len(self.usage), self.done)
        given = [call_id for ids in self.call_ids.values() for call_id in ids]
        has_ids = self.call_ids.keys() == self.calls.keys() and len(given) == len(set(given)) == len(
            self.calls
        )
        is_one = shape == (1, 1, 1, 1) and self.roles <= 1
        return is_one and has_ids and not self.foreign and not self.error

    def differs_from(self, whole: Told) -> str:
        """What is not as in the unbroken stream; "" if nothing."""
        if not self.is_whole:
            return self._shape()
        for name in ("text", "reasoning"):
            if getattr(self, name) != getattr(whole, name):
                return f"{name} {_first_difference(getattr(self, name), getattr(whole, name))}"
        for name in ("calls", "roles", "finish", "stop_reasons", "usage"):
            if getattr(self, name) != getattr(whole, name):
                return f"{name}: {getattr(self, name)} for {getattr(whole, name)}"
        return ""

    def breaks_a_promise(
        self, whole: Told, *, limit_tokens: int, sent: str, knows_prompt: bool, may_lack_usage: bool
    ) -> str:
        """What must hold though the words may be others than the unbroken stream's; "" if all of it does.

        `sent` is the text that the first site had sent in whole events. The request has `ignore_eos` and
        `max_tokens` = `limit_tokens`, so every answer is that long. `knows_prompt`: the number of the
        prompt's tokens must be the unbroken stream's. `may_lack_usage`: nobody could know it.
        """
        if may_lack_usage and not self.usage:
            return replace(self, usage=[_USAGE_OF_NOTHING])._breaks(whole, sent)
        usage = self.usage[0] if self.usage else _USAGE_OF_NOTHING
        prompt, output = usage["prompt_tokens"], usage["completion_tokens"]
        if broken := self._breaks(whole, sent):
            return broken
        if usage["total_tokens"] != prompt + output or output != limit_tokens:
            return f"usage of {limit_tokens} tokens does not add up: {usage}"
        if knows_prompt and prompt != whole.usage[0]["prompt_tokens"]:
            return f"prompt_tokens: {prompt} for {whole.usage[0]['prompt_tokens']}"
        if whole.token_ids:
            ids = (len(self.prompt_token_ids), len(self.token_ids))
            if ids[0] != prompt or not output <= ids[1] <= output + MAX_IDS_TAKEN_BACK:
                return f"ids of {ids[0]} and {ids[1]} tokens, usage says {prompt} and {output}"
        return ""

    def _breaks(self, whole: Told, sent: str) -> str:
        if not self.is_whole:
            return self._shape()
        if self.roles != whole.roles or self.finish != ["length"]:
            return f"roles: {self.roles} for {whole.roles}, finish: {self.finish}"
        if not self.text.startswith(sent):
            return f"what was sent: text {_first_difference(self.text, sent)}"
        return ""

    def _shape(self) -> str:
        shown = asdict(self) | {"text": "…", "token_ids": "…", "prompt_token_ids": "…"}
        return f"not one whole stream: {shown}"


def _first_difference(text: str, expected: str) -> str:
    pairs = enumerate(zip(text, expected, strict=False))
    at = next((n for n, (a, b) in pairs if a != b), min(len(text), len(expected)))
    return f"at {at} of {len(expected)}: {text[at:][:40]!r} for {expected[at:][:40]!r}"


async def ask(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], on_event: asyncio.Event | None = None
) -> Told:
    """Send it and read all of it; `on_event` is set when the tenth event is there."""
    told = Told()
    events = 0
    asks_ids = body.get("return_token_ids") is True
    async with client.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            told.error = f"status {response.status_code}: {(await response.aread())[:300]!r}"
            return told
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                told.done += 1
                continue
            take(told, json.loads(line[6:]), asks_ids=asks_ids)
            events += 1
            if on_event is not None and events == EVENTS_BEFORE_SIGNAL:
                on_event.set()
    return told


def take(told: Told, event: dict[str, Any], *, asks_ids: bool = False) -> None:
    """One event."""
    if event.get("error"):
        told.error = str(event["error"])
        return
    told.ids.add(event["id"])
    if event.get("usage"):
        usage = event["usage"]
        told.usage.append(
            {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        )
    for holder in (event, *event["choices"]):
        for name in ("prompt_token_ids", "token_ids"):
            if not holder.get(name):
                continue
            if asks_ids:
                getattr(told, name).extend(holder[name])
            else:
                told.foreign.add(name)
    for choice in event["choices"]:
        delta = choice.get("delta", choice)
        told.roles += 1 if delta.get("role") else 0
        told.text += delta.get("content") or delta.get("text") or ""
        told.reasoning += delta.get("reasoning") or ""
        for piece in delta.get("tool_calls") or ():
            _take_call(told, piece)
        if choice.get("finish_reason"):
            told.finish.append(choice["finish_reason"])
            told.stop_reasons.append(choice.get("stop_reason"))


def _take_call(told: Told, piece: dict[str, Any]) -> None:
    function = piece.get("function") or {}
    name, arguments = told.calls.get(piece["index"], ("", ""))
    name, arguments = name + (function.get("name") or ""), arguments + (function.get("arguments") or "")
    told.calls[piece["index"]] = name, arguments
    if piece.get("id"):
        told.call_ids.setdefault(piece["index"], []).append(piece["id"])
