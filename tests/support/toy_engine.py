"""A toy engine, sans-IO: the answer to a request body as the bytes of vLLM's stream.

Its tokens are pieces of UTF-8, some only half a character, and each follows from all the ids before it, so
that a lost, doubled or foreign token shows. Text lags the ids as in vLLM: half characters and what may be the
beginning of a stop string are held back (unless stop strings are kept).
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from support.toy_parser import Meaning, delta_between, meaning_of
from support.toy_parser import derender as _derender

PIECES: tuple[bytes, ...] = (
    b"a", b" bee", b"END", b"N", b"D", b"\n", b'"', b"\\", b" {", b"]", "ü".encode(), b"<x>",
    "é".encode()[:1], "é".encode()[1:],
    "😀".encode()[:2], "😀".encode()[2:],
)  # fmt: skip
HALVES = {12: 13, 14: 15}
SECONDS = frozenset(HALVES.values())
MAX_MODEL_LEN = 200
HIDDEN = frozenset({11})
"""A special token: `/detokenize` writes it, a stream does not (here one with stop strings does, so that what
it holds back can be told)."""
SPECIAL = 100
"""Prompt ids are this plus a byte of text."""


def next_id(ids: list[int]) -> int:
    """What follows these ids."""
    if ids and ids[-1] in HALVES:
        return HALVES[ids[-1]]
    digest = hashlib.blake2b(bytes(str(ids), "ascii"), digest_size=2).digest()
    token = int.from_bytes(digest, "big") % len(PIECES)
    return token if token not in SECONDS else 0


def prompt_ids(text: str) -> list[int]:
    """A prompt's ids: one a byte."""
    return [SPECIAL + byte for byte in text.encode()]


def decode(ids: list[int]) -> str:
    """As a tokenizer decodes: half characters become U+FFFD."""
    raw = b"".join(PIECES[token] if token < SPECIAL else bytes([token - SPECIAL]) for token in ids)
    return raw.decode("utf-8", "replace")


def detokenize(body: bytes) -> bytes:
    """`/detokenize`."""
    return orjson.dumps({"prompt": decode(orjson.loads(body)["tokens"])})


def derender(body: bytes) -> bytes:
    """`/v1/chat/completions/derender`."""
    return _derender(body, decode)


def render(body: bytes) -> bytes:
    """`/v1/chat/completions/render`: the grammar is named after what asks for it; nothing is made by it."""
    fields = orjson.loads(body)
    form = {"structural_tag": orjson.dumps(fields.get("tools")).decode(), "json": None, "_backend": None}
    return orjson.dumps({"token_ids": [1], "sampling_params": {"structured_outputs": form}})


class _Detokenizer:
    """Incremental, holds back what ends in half a character.

    As tokenizers' DecodeStream does, which vLLM uses: after a prompt that itself ends in half a character the
    first text is the prompt's, all of it.
    """

    def __init__(self, prompt: list[int], *, hides: bool) -> None:
        self._hidden = HIDDEN if hides else frozenset()
        self._pending = list(prompt) if decode(prompt).endswith("\ufffd") else []

    def feed(self, token: int) -> str:
        if token in self._hidden:
            return ""
        self._pending.append(token)
        text = decode(self._pending)
        if text.endswith("\ufffd"):
            return ""
        self._pending = []
        return text


def answer(path: str, body: bytes, *, tokens_an_event: int = 1) -> list[bytes]:
    """The events of the stream that answers a request; one whose server runs behind puts more into each."""
    fields = orjson.loads(body)
    is_chat = path == "/v1/chat/completions"
    if is_chat:
        prompt = prompt_ids(" ".join(content_text(message["content"]) for message in fields["messages"]))
    elif isinstance(fields["prompt"], str):
        prompt = prompt_ids(fields["prompt"])
    else:
        prompt = fields["prompt"]
    limit = fields.get("max_tokens", MAX_MODEL_LEN - len(prompt) if is_chat else 16)
    limit = fields.get("max_completion_tokens", limit) if is_chat else limit
    return list(_events(fields, is_chat, list(prompt), limit, tokens_an_event))


def _events(
    fields: dict[str, Any], is_chat: bool, prompt: list[int], limit: int, tokens_an_event: int
) -> Any:
    stops = _stops_of(fields)
    keeps_stop = fields.get("include_stop_str_in_output") is True
    hold = 0 if keeps_stop else max((len(stop) for stop in stops), default=1) - 1
    with_ids = fields.get("return_token_ids") is True
    head = _head_of(fields, is_chat)

    is_parsed = is_chat and any(
        fields.get(name) for name in ("tools", "chat_template_kwargs", "reasoning_effort")
    )
    parser = _Parser(fields)

    def event(text: str, ids: list[int] | None, finish: str | None = None, *, role: bool = False) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if is_chat:
            said = parser.delta(safe, finish) if is_parsed else {"content": text}
            choice["delta"] = {"role": "assistant", "content": ""} if role else said
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = stopped_by
        if with_ids:
            choice["token_ids"] = ids
        value: dict[str, Any] = {**head, "choices": [choice]}
        if with_ids and role:
            value["prompt_token_ids"] = prompt
        if with_ids and not is_chat and ids and len(written) == len(ids):
            choice["prompt_token_ids"] = prompt
        return b"data: " + orjson.dumps(value) + b"\n\n"

    written: list[int] = []
    safe = ""
    yield from [event("", None, role=True)] * is_chat
    detokenizer = _Detokenizer(prompt, hides=not stops and not is_parsed)
    text = sent = ""
    finish = stopped_by = None
    fresh: list[int] = []
    while finish is None:
        token = next_id(prompt + written)
        written.append(token)
        fresh.append(token)
        text += detokenizer.feed(token)
        if found := _found(stops, text):
            (at, stopped_by), finish = min(found), "stop"
            text = text[: at + len(stopped_by) if keeps_stop else at]
        elif len(written) >= limit:
            finish = "length"
        if finish is None and len(fresh) < tokens_an_event:
            continue
        safe = text if finish else text[: max(len(sent), len(text) - hold)]
        new, sent = safe[len(sent) :], safe
        yield event(new, fresh, finish)
        fresh = []
    if (fields.get("stream_options") or {}).get("include_usage"):
        usage = {
            "prompt_tokens": len(prompt),
            "total_tokens": len(prompt) + len(written),
            "completion_tokens": len(written),
        }
        yield b"data: " + orjson.dumps({**head, "choices": [], "usage": usage}) + b"\n\n"
    yield b"data: [DONE]\n\n"


class _Parser:
    """Says of a text that grows what is new."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._told = Meaning("", "", ())
        self._call_ids: list[str] = []

    def delta(self, text: str, finish: str | None) -> dict[str, Any]:
        before = self._told
        self._told = meaning_of(text, self._fields, is_whole=finish is not None)
        return delta_between(before, self._told, self._call_ids)


def _head_of(fields: dict[str, Any], is_chat: bool) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1" if is_chat else "cmpl-1",
        "object": "chat.completion.chunk" if is_chat else "text_completion",
        "created": 7,
        "model": fields["model"],
    }


def _stops_of(fields: dict[str, Any]) -> list[str]:
    stops = fields.get("stop") or []
    return [stops] if isinstance(stops, str) else stops


def _found(stops: list[str], text: str) -> list[tuple[int, str]]:
    return [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]


def content_text(content: Any) -> str:
    """A message's text; of parts the texts."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")
