"""What is asked, and where its stream is cut: the pure part of the campaign."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.resume.cutting_site import CutRule
from benchmarks.resume.fleet import MODEL

KINDS = ("first chunk", "any byte", "inside a character", "after the last token")
FAITHFUL_KINDS = ("seeded sampling", "frequency_penalty", "presence_penalty")
STOP_KINDS = ("before the stop string", "inside the stop string", "after the stop string")
MIN_STOP, MAX_STOP = 3, 12
"""Characters of a stop string."""
STOP_DRAWS = 200
PAST_EVENT_BYTES = 40
"""Up to so many bytes of the next event pass before the cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request."""

    path: str
    body: dict[str, Any]

    @classmethod
    def draw(cls, rng: random.Random) -> Case:
        """Greedy, with a penalty that makes the text diverse."""
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

    @property
    def limit_tokens(self) -> int:
        return int(self.body["max_tokens"])

    def changed(self, **fields: Any) -> Case:
        """The same with other fields; one that is None is left out."""
        body = {name: value for name, value in (self.body | fields).items() if value is not None}
        return Case(path=self.path, body=body)


def faithful(case: Case, kind: str, rng: random.Random) -> Case:
    """The same question in a way that no continuation can be exact for; half want to be told the ids."""
    changes: dict[str, dict[str, Any]] = {
        "seeded sampling": {"temperature": 1.0, "seed": rng.randrange(1 << 31)},
        "frequency_penalty": {"frequency_penalty": 0.8},
        "presence_penalty": {"presence_penalty": 0.8},
    }
    ids = {"return_token_ids": True} if rng.random() < 0.5 else {}
    return case.changed(ignore_eos=True, **changes[kind], **ids)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a site's answer with a choice in it, and where the answer stands after it."""

    end: int
    """Byte behind it, of the body as it came."""
    tokens: int
    """Ids so far."""
    text: str
    """Of all events so far."""
    is_last: bool
    """It has the finish."""


def events_in(body: bytes) -> Iterator[Event]:
    """The whole events of an answer that came in chunks, each event within one of them."""
    tokens, text, position = 0, "", 0
    while (start := body.find(b"data: {", position)) >= 0 and (end := body.find(b"\n\n", start)) >= 0:
        position = end + 2
        try:
            event = json.loads(body[start + 6 : end])
        except json.JSONDecodeError:
            continue  # a chunk ended in it
        for choice in event.get("choices", ()):
            delta = choice.get("delta", choice)
            tokens += len(choice.get("token_ids") or ())
            text += delta.get("content") or delta.get("text") or ""
            is_last = choice.get("finish_reason") is not None
            yield Event(end=position, tokens=tokens, text=text, is_last=is_last)


def text_in(body: bytes) -> str:
    """What a client has of an answer so far."""
    text = ""
    for event in events_in(body):
        text = event.text
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A stop string that comes in an answer, and where."""

    text: str
    before: tuple[int, ...]
    """Counts of tokens after which a stream may be cut before it."""
    inside: tuple[int, ...]
    """Counts of tokens that hold a part of it."""


def draw_stop(body: bytes, rng: random.Random) -> Stop | None:
    """A piece of an answer's text, over several tokens where it comes first; None where there is none."""
    events = [event for event in events_in(body) if event.tokens]
    whole = events[-1].text if events else ""
    if len(whole) < 4 * MAX_STOP:
        return None
    for _ in range(STOP_DRAWS):
        at = rng.randrange(len(whole) // 4, len(whole) - MAX_STOP)
        stop = whole[at : at + rng.randint(MIN_STOP, MAX_STOP)]
        if whole.find(stop) != at or "\ufffd" in stop or not stop.strip():
            continue
        before = tuple(event.tokens for event in events if 0 < len(event.text) <= at)
        inside = tuple(event.tokens for event in events if at < len(event.text) < at + len(stop))
        if before and inside:
            return Stop(text=stop, before=before, inside=inside)
    return None


def stop_rule(kind: str, stop: Stop, rng: random.Random) -> CutRule:
    """Where a stream that ends by `stop` is cut; half of those before it close by, where text is held."""
    if kind == "after the stop string":
        return cut_rule("after the last token", rng, 0)
    counts = stop.before if kind == "before the stop string" else stop.inside
    near = counts[-6:] if rng.random() < 0.5 else counts
    wanted, past = rng.choice(near), rng.randrange(PAST_EVENT_BYTES)

    def at_tokens(body: bytes) -> int | None:
        for event in events_in(body):
            if event.is_last or event.tokens > max(counts):
                return None
            if event.tokens >= wanted:
                return event.end + past if len(body) >= event.end + past else None
        return None

    return at_tokens
