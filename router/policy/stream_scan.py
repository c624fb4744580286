"""Reads an engine's stream as it passes to the client: whole events only, token ids cut out, the end judged.

Sans-IO and lean: it runs once per token of every stream. The common event — one token of text, nothing
special — is settled by a handful of byte searches; only the others (first, last, errors, odd shapes) are
parsed as JSON.

Why byte searches are safe: inside a JSON string every quote is escaped, so `"name":` with its bare quotes can
only be a key.

A stream is complete only when a real `finish_reason` and its terminal event were seen (DESIGN §5). Broken is:
an error event, `finish_reason` "abort" or "error", a terminal event without a finish, an event that is not
JSON. The event that breaks it is not passed on; nor is a part of an event, nor a usage without a finish.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.body import Api
from router.policy.stream_record import END_OF_EVENT, StreamRecord

Ending = Literal["complete", "error_event", "aborted", "no_finish", "malformed", "other_output"]
Mode = Literal["ids", "text", "plain"]
"""ids: token ids were asked for, record them and the text; text: record the text; plain: record nothing."""

_ABORT_REASONS = frozenset({"abort", "error"})
"""Finish reasons of an engine that gave up."""
_ID_KEYS = (b'"token_ids"', b'"prompt_token_ids"')
_FAST_IDS = b',"token_ids":['
_DELTA = b'"delta":{'
_FAST_REASONING = b'"reasoning":"'
_PARSED = (b'"tool_calls":[{', _FAST_REASONING, b'"reasoning_content":"')
_FAST_TEXT = {Api.CHAT: b'"content":"', Api.COMPLETION: b'"text":"'}
_OTHER_OUTPUT = ("reasoning", "reasoning_content", "tool_calls", "function_call", "refusal", "audio")
_BACKSLASH = 0x5C
_OPEN, _CLOSE = 0x7B, 0x7D


class ChatStreamScanner:
    """For streams of chat/completions and completions."""

    __slots__ = (
        "_choices_left",
        "_cut",
        "_early_usage",
        "_is_chat",
        "_is_learning",
        "_mode",
        "_splitter",
        "_text_key",
        "_text_key_length",
        "ending",
        "error",
        "events",
        "has_begun",
        "record",
    )

    def __init__(self, api: Api, mode: Mode, *, cut: bool, choices: int = 1) -> None:
        """`cut`: take token ids out of the events; `choices`: how many must finish."""
        self._splitter = EventSplitter()
        self._mode: Mode = mode
        self._cut = cut
        self._text_key = _FAST_TEXT.get(api, b'"text":"')
        self._text_key_length = len(self._text_key)
        self._is_chat = api is Api.CHAT
        self._choices_left = choices
        self._early_usage = b""
        """A usage event before the finish: an engine that gives up sends one of zero tokens."""
        self._is_learning = True
        """Until a plain event of text has shown the engine's shape, every event is parsed."""
        self.record = StreamRecord()
        self.events = 0
        """Events other than comments: what a stall is measured by."""
        self.has_begun = False
        """An event said more than that an answer will come: there is something to continue."""
        self.ending: Ending | None = None
        self.error: Any = None
        """The payload of an error event."""

    @property
    def is_over(self) -> bool:
        """Nothing more of it goes to the client. (A property: `ending` changes in calls, which mypy's
        narrowing of it does not see, and compiled code believes.)"""
        return self.ending is not None

    def feed(self, data: bytes) -> bytes:
        """Take a piece off the socket; returns what goes to the client now (whole events, maybe none)."""
        if self.is_over:
            return b""
        if (
            data.endswith(b"\n\n")
            and data.find(b"\n\n") == len(data) - 2
            and not self._splitter.rest
            and b"\r" not in data
        ):
            return self._event(data)  # one event in one piece: the common case
        try:
            events = self._splitter.feed(data)
        except EventTooLargeError:
            self.ending = "malformed"
            return b""
        pieces = []
        for event in events:
            pieces.append(self._event(event))
            if self.is_over:
                break
        return b"".join(pieces)

    def _event(self, event: bytes) -> bytes:
        """The common event by byte search; everything else goes to `_parse`."""
        if self._is_learning or event.find(b'"finish_reason":null') < 0 or not event.startswith(b"data: {"):
            return self._parse(event)
        mode = self._mode
        if mode == "plain":
            if event.find(b'"finish_reason":"') >= 0:
                return self._parse(event)
            self.events += 1
            return event
        start = event.find(self._text_key)
        if start < 0:
            return self._reasoning(event)
        is_first = event[start - 1] == _OPEN
        start += self._text_key_length
        end = event.find(b'"', start)
        if event[end - 1] == _BACKSLASH:
            end = _string_end(event, start)
        if self._is_chat and not (is_first and event[end + 1] == _CLOSE) and _has_parsed(event):
            return self._parse(event)
        out = self._without_ids(event)
        if not out:
            return self._parse(event)
        if end > start:
            self.record.text += event[start:end]
            self.record.text_events += 1
        elif mode == "ids":
            self.record.note_silence()
        self.events += 1
        return out

    def _reasoning(self, event: bytes) -> bytes:
        """An event whose delta has reasoning alone, or nothing: a parser holds text back."""
        start = event.find(_DELTA) + len(_DELTA)
        parsed = self.record.parsed
        if self._mode != "ids" or start < len(_DELTA):
            return self._parse(event)
        end = start
        if event.startswith(_FAST_REASONING, start) and parsed is not None:
            start += len(_FAST_REASONING)
            end = event.find(b'"', start)
            if event[end - 1] == _BACKSLASH:
                end = _string_end(event, start)
            close = end + 1
        else:
            close = start
        out = self._without_ids(event) if event[close] == _CLOSE else b""
        if not out:
            return self._parse(event)
        if end == start:
            self.record.note_silence()
        elif parsed is not None:
            parsed.add_raw_reasoning(event[start:end])
        self.events += 1
        return out

    def _without_ids(self, event: bytes) -> bytes:
        """The event as it goes on; its ids are noted. b"": it is not as most are."""
        if self._mode != "ids":
            return b"" if self._cut and event.find(b'token_ids"') >= 0 else event
        start = event.rfind(_FAST_IDS)
        end = event.find(b"]", start)
        if start < 0 or end <= start + 14:
            return b""
        ids = event[start + 14 : end]
        if b" " in ids:
            return b""
        self.record.ids += ids
        self.record.ids += END_OF_EVENT
        return event[:start] + event[end + 1 :] if self._cut else event

    def _parse(self, event: bytes) -> bytes:
        payload = data_of(event)
        if payload is None:
            return event  # a comment, or fields without data
        self.events += 1
        if payload.strip() == b"[DONE]":
            self.ending = "complete" if self._choices_left <= 0 else "no_finish"
            return event if self.ending == "complete" else b""
        value = _object_of(payload)
        choices = _choices_of(value)
        self.ending = self._break_by(value, choices)
        if value is None or self.ending is not None:
            return b""
        out = event
        if self._cut:
            for key in _ID_KEYS:
                out = cut_field(out, key)
        if value.get("usage") and not choices:
            return self._pass_usage(out)
        if not self.has_begun:
            self.has_begun = any(has_output(choice) for choice in choices)
        if self._mode != "plain":
            self._take(value, choices, out)
            if self._is_learning and any(any(text_of(choice)) for choice in choices):
                # The next events look like this one, unless it is a first one with the prompt's ids.
                self._is_learning = self._cut and b'"prompt_token_ids"' in event
        elif self.has_begun:
            self._is_learning = False
        self._choices_left -= sum(1 for choice in choices if choice.get("finish_reason") is not None)
        return out + self._pass_usage(self._early_usage) if self._early_usage else out

    def _break_by(self, value: dict[str, Any] | None, choices: list[dict[str, Any]]) -> Ending | None:
        """How an event ends the stream before its time, if it does."""
        if value is None:
            return "malformed"
        if value.get("error"):
            self.error = value["error"]
            return "error_event"
        if any(is_abort(choice.get("finish_reason")) for choice in choices):
            return "aborted"
        return None

    def _pass_usage(self, usage: bytes) -> bytes:
        """The usage event once every choice has finished; until then it is held back."""
        if self._choices_left > 0:
            self._early_usage = usage
            return b""
        self._early_usage = b""
        self.record.usage_sent = True
        return usage

    def _take(self, value: dict[str, Any], choices: list[dict[str, Any]], out: bytes) -> None:
        """Note what an event of a stream with one choice says."""
        record = self.record
        if not record.first_event:
            record.first_event = out
        prompt_ids = value.get("prompt_token_ids")
        for choice in choices:
            text, has_other_output = text_of(choice)
            if has_other_output:
                record.add_parsed(choice["delta"])
            ids = choice.get("token_ids")
            prompt_ids = choice.get("prompt_token_ids") or prompt_ids
            if isinstance(ids, list):
                record.add_ids(_raw_ids(ids))
                if ids and not text and not has_other_output:
                    record.note_silence()
            elif text or has_other_output:
                record.has_missing_ids = True
                self._mode = "text"
            record.add_text(text)
            if choice.get("finish_reason") is not None:
                record.finish_reason = str(choice["finish_reason"])
        if isinstance(prompt_ids, list) and record.prompt_ids is None:
            record.prompt_ids = _raw_ids(prompt_ids)


def _object_of(payload: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _choices_of(value: dict[str, Any] | None) -> list[dict[str, Any]]:
    choices = None if value is None else value.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def is_abort(finish_reason: Any) -> bool:
    """Whether a choice ended because its engine gave it up."""
    return isinstance(finish_reason, str) and finish_reason in _ABORT_REASONS


def text_of(choice: dict[str, Any]) -> tuple[str, bool]:
    """A choice's text, and whether it carries output of another kind (tool calls, reasoning, …)."""
    source = choice.get("delta")
    if not isinstance(source, dict):
        text = choice.get("text")
        return (text if isinstance(text, str) else ""), False
    text = source.get("content")
    return (text if isinstance(text, str) else ""), any(source.get(name) for name in _OTHER_OUTPUT)


def has_output(choice: dict[str, Any]) -> bool:
    """Whether an event says anything of the answer: a chat's first often has the role alone. One without text
    may hide reasoning, whose ids must not be continued as if they were text."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or choice.get("finish_reason") is not None:
        return True
    return any(value for name, value in delta.items() if name != "role")


def cut_field(event: bytes, key: bytes) -> bytes:
    """`event` without every `key` whose value is a list of numbers or null, and one comma beside each.

    `key` is quoted. A value of another kind is left alone.
    """
    start = event.find(key)
    if start < 0:
        return event
    pieces = []
    kept_from = 0
    last_bracket = event.rfind(b"]")
    while start >= 0:
        colon = _skip_spaces(event, start + len(key))
        value = _skip_spaces(event, colon + 1)
        if event[colon : colon + 1] != b":":
            end = -1
        elif event[value : value + 1] == b"[":
            end = event.find(b"]", value) + 1 if value < last_bracket else -1
        elif event[value : value + 4] == b"null":
            end = value + 4
        else:
            end = -1
        if end <= 0:
            start = event.find(key, start + 1)
            continue
        before = event[kept_from:start].rstrip(b" ")
        if before.endswith(b","):
            pieces.append(before[:-1])
        else:  # or the cut before took the comma between them
            pieces.append(event[kept_from:start])
            after = _skip_spaces(event, end)
            if event[after : after + 1] == b",":
                end = _skip_spaces(event, after + 1)
        kept_from = end
        start = event.find(key, end)
    pieces.append(event[kept_from:])
    return b"".join(pieces)


def _skip_spaces(event: bytes, at: int) -> int:
    if event[at : at + 1] != b" ":
        return at
    spaces = _SPACES.match(event, at)
    return at if spaces is None else spaces.end()


_SPACES = re.compile(rb" *")
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
"""What is left of a JSON string, its last quote too."""


def _string_end(event: bytes, start: int) -> int:
    """Index of the quote that ends the JSON string whose text begins at `start`."""
    string = _STRING.match(event, start)
    return start if string is None else string.end() - 1


def _has_parsed(event: bytes) -> bool:
    """Whether an event with text has reasoning or tool calls too."""
    return any(event.find(name) >= 0 for name in _PARSED)


def _raw_ids(ids: list[Any]) -> bytes:
    return orjson.dumps(ids)[1:-1]
