"""Reads one streamed answer, sans-IO: bytes and `now` in; tokens, gaps, usage and the end of it out.

The common event, one token of text, is found by byte search; JSON is parsed only for the others. A stream
is complete only when a real `finish_reason` and `[DONE]` were seen and no error between (FACTS.md: a
stopping vLLM sends `finish_reason: "abort"` and a clean `[DONE]`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.sse import EventSplitter, data_of

MAX_COLLECTED_BYTES = 4 << 20
"""Text kept of one answer to be verified; about 600,000 words."""

_CHAT_TEXT = b'"content":"'
_COMPLETION_TEXT = b'"text":"'
_NOT_FINISHED = b'"finish_reason":null'
_DONE = b"[DONE]"
NOT_FINISHED_REASONS = frozenset({"abort", "error"})
"""What an engine says when it gave up: no answer was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedError:
    """An error in OpenAI's shape."""

    code: str
    """`code`, else `type`, as text; empty when the error has neither."""
    message: str
    is_first: bool
    """Nothing but comments came before it."""


class AnswerReader:
    """The state of one streamed answer. `feed` it, then look."""

    __slots__ = (
        "_collected_bytes",
        "_is_collecting",
        "_on_gap",
        "_splitter",
        "_text",
        "error",
        "events",
        "fault",
        "finish_reason",
        "first_token_at",
        "is_done",
        "last_token_at",
        "token_events",
        "usage",
    )

    def __init__(
        self,
        *,
        on_gap: Callable[[float], None] | None = None,
        is_collecting: bool = False,
    ) -> None:
        """`on_gap` is called with each gap between two successive tokens, in seconds; `is_collecting` keeps
        the text so that it can be verified."""
        self._splitter = EventSplitter()
        self._on_gap = on_gap
        self._is_collecting = is_collecting
        self._text: list[bytes] = []
        self._collected_bytes = 0
        self.events = 0
        """Events with data, `[DONE]` not counted."""
        self.token_events = 0
        """Events that brought text; an engine may put several tokens into one."""
        self.first_token_at: float | None = None
        self.last_token_at = 0.0
        self.finish_reason: str | None = None
        self.is_done = False
        self.error: StatedError | None = None
        self.usage: tuple[int, int] | None = None
        """Prompt and output tokens, as the server counted them."""
        self.fault: str | None = None
        """What was malformed in the stream, the first of it."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer arrived."""
        return (
            self.is_done
            and self.error is None
            and self.finish_reason is not None
            and self.finish_reason not in NOT_FINISHED_REASONS
        )

    @property
    def text(self) -> str:
        """What was collected."""
        return b"".join(self._text).decode("utf-8", "replace")

    def feed(self, data: bytes, now: float) -> None:
        """Take one piece of the body that arrived at `now` (monotonic).

        Raises:
            ValueError: an event beyond the splitter's limit.
        """
        for event in self._splitter.feed(data):
            start = event.find(_CHAT_TEXT)
            if start >= 0:
                start += 11
            else:
                start = event.find(_COMPLETION_TEXT)
                if start >= 0:
                    start += 8
            if start >= 0 and _NOT_FINISHED in event and event.startswith(b"data:"):
                text = event[start : event.find(b'"', start)]
                if b"\\" not in text:
                    self.events += 1
                    if text:
                        self._take_text(text, now)
                    continue
            self._take_event(event, now)

    def take_whole(self, body: bytes, now: float) -> None:
        """Take an answer that was not streamed; its body ended properly at `now`."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self.fault = f"an answer that is not a JSON object: {body[:80]!r}"
        elif value.get("error"):
            self.error = stated_error(value, is_first=True)
        else:
            self._take_object(value, now)
            self.is_done = True

    def _take_text(self, text: bytes, now: float) -> None:
        if self.is_done:
            self.fault = self.fault or "text after [DONE]"
            return
        self.token_events += 1
        if self.first_token_at is None:
            self.first_token_at = now
        elif self._on_gap is not None:
            self._on_gap(now - self.last_token_at)
        self.last_token_at = now
        if self._is_collecting:
            self._collected_bytes += len(text)
            if self._collected_bytes <= MAX_COLLECTED_BYTES:
                self._text.append(text)

    def _take_event(self, event: bytes, now: float) -> None:
        """Everything that the byte search does not settle."""
        payload = data_of(event)
        if payload is None:
            return
        if self.is_done:
            self.fault = self.fault or "an event after [DONE]"
            return
        if payload.strip() == _DONE:
            self.is_done = True
            return
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self.fault = self.fault or f"an event that is not JSON: {payload[:80]!r}"
            self.events += 1
            return
        if not isinstance(value, dict):
            self.fault = self.fault or f"an event that is not an object: {payload[:80]!r}"
        elif value.get("error"):
            self.error = self.error or stated_error(value, is_first=self.events == 0)
        else:
            self._take_object(value, now)
        self.events += 1

    def _take_object(self, value: dict[str, Any], now: float) -> None:
        self.usage = usage_of(value) or self.usage
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            source = choice.get("delta") or choice.get("message") or choice
            if not isinstance(source, dict):
                continue
            for name in ("reasoning_content", "reasoning", "content", "text"):
                text = source.get(name)
                if isinstance(text, str) and text:
                    self._take_text(text.encode("utf-8", "surrogatepass"), now)
            reason = choice.get("finish_reason")
            if isinstance(reason, str):
                self.finish_reason = reason


def usage_of(value: dict[str, Any]) -> tuple[int, int] | None:
    """(prompt, output) tokens of an answer's `usage`, None where it has none."""
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt, output) if isinstance(prompt, int) and isinstance(output, int) else None


def stated_error(value: object, *, is_first: bool) -> StatedError:
    """The error of a body or event that has one, whatever its exact shape."""
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return StatedError(code="", message=str(error)[:200], is_first=is_first)
    code = error.get("code")
    if code is None:
        code = error.get("type")
    return StatedError(
        code="" if code is None else str(code), message=str(error.get("message"))[:200], is_first=is_first
    )
