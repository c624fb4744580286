"""Whether an answer is right. Pure.

Rule: what an unbroken stream would say is known, so a lost, doubled or foreign token shows, in whole answers,
in broken ones, and in those that their client left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.chaos.asks import Api, Ask

End = Literal["whole", "cut", "refused", "silent", "left"]
"""Of a connection: the answer's end came; it ended before; nobody listened; nothing came for too long; the
client went."""
BUSY = frozenset({429, 503})
"""Come back later, says `Retry-After`."""
FAILED = frozenset({502, 504})
LOSS_CODES = frozenset({"power_lost", "stream_lost"})
Ledger = Literal["completed", "shed", "client_cancelled", "broken", "client_error", "failed", "unknown", "-"]
"""What the router should have counted; unknown: its client cannot tell; "-": it never got there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a client got."""

    end: End
    status: int | None = None
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one request ended."""

    heading: str
    ledger: Ledger
    wrong: str = ""
    """What may not be; "" where all is well."""
    is_unanswered: bool = False
    """Neither an answer nor a stated error, which only a fault of the router itself excuses."""


def judge(ask: Ask, got: Got) -> Verdict:
    """Hold an answer against what was asked.

    Cases: nobody listened; nothing came; a refusal; an answer in one piece; a stream; any may be cut.
    """
    if got.end == "refused":
        return Verdict(heading="connection refused", ledger="-", is_unanswered=True)
    if got.end == "silent":
        return Verdict(heading="silent", ledger="unknown", wrong="nothing came for too long")
    if got.status is None:
        if got.end == "left":
            return Verdict(heading="left", ledger="unknown")
        return Verdict(heading="no answer", ledger="unknown", is_unanswered=True)
    if got.status != 200:
        return _judge_refusal(ask, got)
    if ask.refusal is not None:
        return Verdict(heading="WRONG", ledger="unknown", wrong=f"200 where {ask.refusal} was due")
    if ask.is_stream:
        return _judge_stream(ask, got)
    if got.end != "whole":
        is_left = got.end == "left"
        heading = "left" if is_left else "answer cut"
        return Verdict(heading=heading, ledger="unknown", is_unanswered=not is_left)
    return _judge_whole(ask, got)


def _judge_refusal(ask: Ask, got: Got) -> Verdict:
    status = got.status
    assert status is not None
    if got.end == "cut":
        return Verdict(heading=f"{status} cut", ledger="unknown", is_unanswered=True)
    if got.end == "left":
        return Verdict(heading="left", ledger="unknown")
    try:
        document = json.loads(got.body)
        error = document["error"]
        is_formed = isinstance(error["message"], str) and isinstance(error["type"], str)
        code = error.get("code")
    except (ValueError, KeyError, TypeError):
        return Verdict(
            heading="WRONG", ledger="unknown", wrong=f"{status} without a stated error: {got.body[:200]!r}"
        )
    if ask.api == "messages" and document.get("type") != "error":
        is_formed = False
    if not is_formed:
        return Verdict(
            heading="WRONG", ledger="unknown", wrong=f"{status} not in its API's form: {got.body[:200]!r}"
        )
    if status == ask.refusal:
        return Verdict(heading="refused rightly", ledger="client_error")
    if status in BUSY:
        if not got.headers.get("retry-after", "").isdecimal():
            return Verdict(heading="WRONG", ledger="shed", wrong=f"{status} {code} without Retry-After")
        return Verdict(heading=f"{status} {code}", ledger="shed")
    if status in FAILED:
        return Verdict(heading=f"{status} {code}", ledger="failed")
    return Verdict(heading="WRONG", ledger="unknown", wrong=f"status {status}: {got.body[:300]!r}")


def _judge_whole(ask: Ask, got: Got) -> Verdict:
    try:
        document = json.loads(got.body)
        text, output, prompt = _read_whole(ask.api, document)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return Verdict(heading="WRONG", ledger="completed", wrong=f"{error!r} in {got.body[:300]!r}")
    wrong = ""
    if text != ask.text:
        wrong = f"text {difference(text, ask.text)}"
    elif (prompt, output) != (ask.prompt_tokens, ask.output_tokens):
        wrong = f"usage ({prompt}, {output}), not ({ask.prompt_tokens}, {ask.output_tokens})"
    return Verdict(heading="WRONG" if wrong else "right", ledger="completed", wrong=wrong)


def _read_whole(api: Api, document: Mapping[str, Any]) -> tuple[str, int, int]:
    """Text, output tokens, prompt tokens."""
    usage = document["usage"]
    if api == "messages":
        return document["content"][0]["text"], usage["output_tokens"], usage["input_tokens"]
    if api == "responses":
        text = document["output"][0]["content"][0]["text"]
        return text, usage["output_tokens"], usage["input_tokens"]
    choice = document["choices"][0]
    if usage["total_tokens"] != usage["prompt_tokens"] + usage["completion_tokens"]:
        raise ValueError("usage that does not add up")
    text = choice["message"]["content"] if api == "chat" else choice["text"]
    return text, usage["completion_tokens"], usage["prompt_tokens"]


class _Stream:
    """A stream's events, read one after the other."""

    def __init__(self) -> None:
        self.text = ""
        self.ids: set[str] = set()
        self.roles = 0
        self.finishes: list[str | None] = []
        self.usages: list[tuple[int, int]] = []
        self.terminals = 0
        self.errors: list[str] = []
        self.is_stopping = False
        """The error says that the router is."""
        self.late = 0
        """Events after the terminal one."""
        self.numbers: list[int] = []
        self.faults: list[str] = []

    def take(self, api: Api, data: bytes) -> None:
        """The data of one event."""
        if self.terminals:
            self.late += 1
        if data == b"[DONE]":
            self.terminals += 1
            return
        try:
            event = json.loads(data)
            if api in ("chat", "completion"):
                self._take_openai(event)
            elif api == "messages":
                self._take_messages(event)
            else:
                self._take_responses(event)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.faults.append(f"{error!r} in {data[:200]!r}")

    def _take_error(self, error: Mapping[str, Any]) -> None:
        self.errors.append(str(error.get("code")))
        self.is_stopping = "shutting down" in str(error.get("message"))

    def _take_openai(self, event: Mapping[str, Any]) -> None:
        if event.get("error"):
            self._take_error(event["error"])
            return
        self.ids.add(event["id"])
        if event.get("usage"):
            usage = event["usage"]
            self.usages.append((usage["prompt_tokens"], usage["completion_tokens"]))
            if usage["total_tokens"] != sum(self.usages[-1]):
                self.faults.append(f"usage that does not add up: {usage}")
        if event.get("prompt_token_ids") or any(one.get("token_ids") for one in event["choices"]):
            self.faults.append("token ids that nobody asked for")
        for choice in event["choices"]:
            delta = choice.get("delta", choice)
            self.roles += bool(delta.get("role"))
            self.text += delta.get("content") or delta.get("text") or ""
            if choice.get("finish_reason"):
                self.finishes.append(choice["finish_reason"])

    def _take_messages(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "error":
            self._take_error(event["error"])
        elif kind == "message_start":
            self.roles += 1
            self.ids.add(event["message"]["id"])
        elif kind == "content_block_delta":
            self.text += event["delta"]["text"]
        elif kind == "message_delta":
            self.finishes.append("length" if event["delta"]["stop_reason"] == "max_tokens" else "?")
            self.usages.append((event["usage"].get("input_tokens", -1), event["usage"]["output_tokens"]))
        elif kind == "message_stop":
            self.terminals += 1

    def _take_responses(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "error":
            self._take_error(event)
            return
        self.numbers.append(event["sequence_number"])
        if kind == "response.created":
            self.roles += 1
            self.ids.add(event["response"]["id"])
        elif kind == "response.output_text.delta":
            self.text += event["delta"]
        elif kind == "response.output_text.done" and event["text"] != self.text:
            self.faults.append("output_text.done says another text")
        elif kind in ("response.completed", "response.incomplete"):
            response = event["response"]
            self.ids.add(response["id"])
            self.terminals += 1
            usage = response["usage"]
            self.usages.append((usage["input_tokens"], usage["output_tokens"]))
            self.finishes.append("length" if response["status"] == "incomplete" else response["status"])
            if response["output"][0]["content"][0]["text"] != self.text:
                self.faults.append("the response's text is not what was streamed")


def events_of(body: bytes) -> list[bytes]:
    """The data of each whole event; comments are none."""
    return [
        line[5:].strip()
        for block in body.split(b"\n\n")[:-1]
        for line in block.split(b"\n")
        if line.startswith(b"data:")
    ]


def _judge_stream(ask: Ask, got: Got) -> Verdict:
    """Cases: whatever came must begin as it should; a stated error; left; cut; whole."""
    stream = _Stream()
    for data in events_of(got.body):
        stream.take(ask.api, data)
    if stream.faults:
        return Verdict(heading="WRONG", ledger="unknown", wrong=stream.faults[0])
    if not ask.text.startswith(stream.text):
        return Verdict(heading="WRONG", ledger="unknown", wrong=f"text {difference(stream.text, ask.text)}")
    if stream.numbers != list(range(len(stream.numbers))):
        return Verdict(heading="WRONG", ledger="unknown", wrong=f"sequence numbers {stream.numbers[-5:]}")
    if stream.late:
        return Verdict(
            heading="WRONG", ledger="unknown", wrong=f"{stream.late} events after the terminal one"
        )
    if got.end == "left":
        return Verdict(heading="left", ledger="unknown")
    if stream.errors:
        return _judge_error(ask, got, stream)
    if got.end == "cut":
        is_told = stream.terminals == 1
        return Verdict(
            heading="right, then cut" if is_told else "stream cut",
            ledger="unknown",
            is_unanswered=not is_told,
        )
    wrong = _whole_stream_fault(ask, stream)
    return Verdict(heading="WRONG" if wrong else "right", ledger="completed", wrong=wrong)


def _judge_error(ask: Ask, got: Got, stream: _Stream) -> Verdict:
    code = stream.errors[0]
    expected_terminals = 1 if ask.api in ("chat", "completion") else 0
    if len(stream.errors) > 1 or code not in LOSS_CODES:
        return Verdict(heading="WRONG", ledger="broken", wrong=f"error events {stream.errors}")
    if stream.terminals != expected_terminals or got.end != "whole":
        return Verdict(
            heading="WRONG",
            ledger="broken",
            wrong=f"{stream.terminals} terminal events after {code}, {got.end}",
        )
    why = ", as its router stops" if stream.is_stopping else ""
    return Verdict(heading=f"broken: {code}{why}", ledger="broken")


def _whole_stream_fault(ask: Ask, stream: _Stream) -> str:
    if stream.text != ask.text:
        return f"text {difference(stream.text, ask.text)}"
    if stream.terminals != 1 or stream.finishes != ["length"]:
        return f"{stream.terminals} terminal events, finishes {stream.finishes}"
    if len(stream.ids) != 1 or stream.roles != (0 if ask.api == "completion" else 1):
        return f"ids {sorted(stream.ids)}, {stream.roles} beginnings"
    usage = [(ask.prompt_tokens, ask.output_tokens)] if ask.wants_usage else []
    return "" if stream.usages == usage else f"usage {stream.usages}, not {usage}"


def difference(text: str, expected: str) -> str:
    """Where they part."""
    pairs = enumerate(zip(text, expected, strict=False))
    at = next((place for place, (a, b) in pairs if a != b), min(len(text), len(expected)))
    there = f"{text[at:][:40]!r} for {expected[at:][:40]!r}"
    return f"of {len(text)} characters, not {len(expected)}; at {at} {there}"
