"""What is asked and where it is cut, and what a client was told: the pure part of the campaign."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from benchmarks.resume.cutting_site import CutRule

MODEL = "tiny"
KINDS = ("first chunk", "any byte", "inside a character", "after the last token")


@dataclass(slots=True)
class Told:
    """What a client was told in one stream."""

    text: str = ""
    ids: set[str] = field(default_factory=set)
    roles: int = 0
    finish: list[str] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    foreign: set[str] = field(default_factory=set)
    """Fields that nobody asked for."""
    error: str = ""

    @property
    def is_whole(self) -> bool:
        """One stream as OpenAI's API describes it."""
        shape = (len(self.ids), len(self.finish), len(self.usage), self.done)
        return shape == (1, 1, 1, 1) and self.roles <= 1 and not self.foreign and not self.error

    def differs_from(self, whole: Told) -> str:
        """What is not as in the unbroken stream; "" if nothing."""
        if not self.is_whole:
            return f"not one whole stream: {asdict(self) | {'text': '…'}}"
        if self.text != whole.text:
            at = next(
                (n for n, (a, b) in enumerate(zip(self.text, whole.text, strict=False)) if a != b),
                min(len(self.text), len(whole.text)),
            )
            return f"text at {at} of {len(whole.text)}: {self.text[at:][:40]!r} for {whole.text[at:][:40]!r}"
        for name in ("roles", "finish", "usage"):
            if getattr(self, name) != getattr(whole, name):
                return f"{name}: {getattr(self, name)} for {getattr(whole, name)}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request."""

    path: str
    body: dict[str, Any]

    @classmethod
    def draw(cls, rng: random.Random) -> Case:
        words = " ".join(
            rng.choices(("wind", "heron", "class", "import", "the", "value", "of", "None"), k=12)
        )
        body: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": rng.randrange(40, 160),
            "temperature": 0,
            "repetition_penalty": 1.3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if rng.random() < 0.5:
            return cls(path="/v1/completions", body=body | {"prompt": words})
        return cls(
            path="/v1/chat/completions", body=body | {"messages": [{"role": "user", "content": words}]}
        )


def cut_rule(kind: str, rng: random.Random, total_bytes: int) -> CutRule:
    """Where a stream of `total_bytes` is cut."""
    share = rng.random()

    def first_chunk(body: bytes) -> int | None:
        end = body.find(b"\n\n")
        return None if end < 0 else 1 + int(share * (end + 1))

    def any_byte(body: bytes) -> int | None:
        at = 1 + int(share * (total_bytes - 1))
        return at if len(body) >= at else None

    def inside_a_character(body: bytes) -> int | None:
        at = int(share * total_bytes / 2)
        while at + 1 < len(body):
            if body[at] >= 0xC2 and body[at + 1] >= 0x80:
                return at + 1
            at += 1
        return None

    def after_the_last_token(body: bytes) -> int | None:
        finish = max(body.find(b'"finish_reason":"length"'), body.find(b'"finish_reason":"stop"'))
        end = body.find(b"\n\n", finish)
        return None if finish < 0 or end < 0 else end + 2

    return dict(zip(KINDS, (first_chunk, any_byte, inside_a_character, after_the_last_token), strict=True))[
        kind
    ]


async def ask(client: httpx.AsyncClient, case: Case, on_event: asyncio.Event | None = None) -> Told:
    """Send it and read all of it; `on_event` is set when the tenth event with text is there."""
    told = Told()
    texts = 0
    async with client.stream("POST", case.path, json=case.body) as response:
        if response.status_code != 200:
            told.error = f"status {response.status_code}: {(await response.aread())[:300]!r}"
            return told
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                told.done += 1
                continue
            take(told, json.loads(line[6:]))
            texts += 1
            if on_event is not None and texts == 10:
                on_event.set()
    return told


def take(told: Told, event: dict[str, Any]) -> None:
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
    told.foreign |= {name for name in ("prompt_token_ids", "token_ids") if event.get(name)}
    for choice in event["choices"]:
        told.foreign |= {name for name in ("prompt_token_ids", "token_ids") if choice.get(name)}
        delta = choice.get("delta", choice)
        told.roles += 1 if delta.get("role") else 0
        told.text += delta.get("content") or delta.get("text") or ""
        if choice.get("finish_reason"):
            told.finish.append(choice["finish_reason"])
