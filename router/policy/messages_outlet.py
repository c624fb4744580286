"""A chat's stream as the events of Anthropic's Messages API. Pure.

The events are those of `AnthropicServingMessages.message_stream_converter` of vLLM 0.32, byte for byte, apart
from the signature of thinking, which is random there and made of the message's id here. Unlike there, the
first chunk may have content, an answer without usage ends as one with, and a fault is stated as elsewhere in
this router (`loss_events`); nothing follows it.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Literal

import orjson

from gateway.errors import anthropic_body
from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.body import Api
from router.policy.json_rules import MAX_COUNT
from router.policy.stream_end import loss_events

_Block = Literal["text", "thinking", "tool_use"]
_START = b'event: content_block_start\ndata: {"type":"content_block_start","content_block":%b,"index":%d}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":'
_TEXT_DELTA = _DELTA + b'"text_delta","text":'
_THINKING_DELTA = _DELTA + b'"thinking_delta","thinking":'
_JSON_DELTA = _DELTA + b'"input_json_delta","partial_json":'
_SIGNATURE_DELTA = _DELTA + b'"signature_delta","signature":"%b"},"index":%d}\n\n'
_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT_BLOCK = b'{"type":"text","text":""}'
_THINKING_BLOCK = b'{"type":"thinking","thinking":""}'


class _UnreadableError(ValueError):
    """A chunk that is none."""


class MessagesOutlet:
    """Makes one answer; used once."""

    __slots__ = (
        "_arguments",
        "_block",
        "_call_id",
        "_call_ids",
        "_finish",
        "_has_begun",
        "_has_told_end",
        "_index",
        "_is_over",
        "_message_id",
        "_pending",
        "_splitter",
        "_stop",
        "_tail",
        "_usage",
        "has_failed",
    )

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._has_begun = False
        self._has_told_end = False
        self._is_over = self.has_failed = False
        self._message_id = ""
        self._block: _Block | None = None
        """The kind of the open one."""
        self._index = 0
        """The open block's, or the next one's."""
        self._tail = b""
        """The end of each of its deltas."""
        self._call_id: str | None = None
        """Of the open block."""
        self._call_ids: dict[int, str] = {}
        self._pending: list[str] = []
        """Text that came while a call was open: it becomes a block behind it."""
        self._arguments: list[str] | None = None
        """Of the last call; None: there was none."""
        self._finish: str | None = None
        self._stop: int | str | None = None
        """The stop string that was met, or a token's id."""
        self._usage: Any = None
        """The last that was told."""

    @property
    def is_over(self) -> bool:
        """It has ended, or failed. (A property, for the reason of `ChatStreamScanner.is_over`.)"""
        return self._is_over

    def feed(self, data: bytes) -> bytes:
        """As `Outlet.feed`; once the message is over, nothing."""
        if self.is_over:
            return b""
        if (
            data.startswith(b"data: {")
            and data.endswith(b"\n\n")
            and data.count(b"\n") == 2
            and not self._splitter.rest
        ):
            return self._data(data[6:])  # one event in one piece: the common case
        try:
            events = self._splitter.feed(data)
        except EventTooLargeError:
            return self._unreadable()
        pieces = []
        for event in events:
            pieces.append(self._event(event))
            if self.is_over:
                break
        return b"".join(pieces)

    def whole(self, status: int, body: bytes) -> bytes:
        """An error: an engine's as it states it in this API, the router's as elsewhere on the path."""
        try:
            return _error_of(status, body)
        except (
            orjson.JSONDecodeError,
            orjson.JSONEncodeError,
        ):  # nested deeper than can be written
            return body

    def _event(self, event: bytes) -> bytes:
        payload = data_of(event)
        if payload is None:
            return event if event.startswith(b":") else b""
        return self._data(payload)

    def _data(self, payload: bytes) -> bytes:
        try:
            return self._done() if payload.strip() == b"[DONE]" else self._chunk(orjson.loads(payload))
        except (orjson.JSONDecodeError, _UnreadableError):
            return self._unreadable()

    def _unreadable(self) -> bytes:
        self._is_over = self.has_failed = True
        return loss_events(Api.MESSAGES, "stream_lost", "its stream could not be read")

    def _failure(self, error: Any) -> bytes:
        """An error that came in the stream, in the words of `loss_events`."""
        self._is_over = self.has_failed = True
        if type(error) is not dict or type(message := error.get("message")) is not str:
            return loss_events(Api.MESSAGES, "stream_lost", "an error was in its stream")
        code = error.get("code")
        made = {"type": "api_error", "message": message, "code": code if type(code) in (str, int) else None}
        return b"event: error\ndata: " + orjson.dumps({"type": "error", "error": made}) + b"\n\n"

    def _chunk(self, chunk: Any) -> bytes:
        if type(chunk) is not dict:
            raise _UnreadableError
        if chunk.get("error"):
            return self._failure(chunk["error"])
        usage, choices = chunk.get("usage"), chunk.get("choices")
        if usage is not None:
            self._usage = usage
        out = b"" if self._has_begun else self._begin(chunk)
        if type(choices) is not list:
            raise _UnreadableError
        if not choices:
            return out if usage is None or self._has_told_end else out + self._tell_end()
        choice = choices[0]
        if type(choice) is not dict or type(delta := choice.get("delta")) is not dict or self._has_told_end:
            raise _UnreadableError
        if choice.get("finish_reason") is not None:
            self._note_finish(choice)
        return out + self._delta(delta)

    def _begin(self, chunk: dict[str, Any]) -> bytes:
        message_id, model = chunk.get("id"), chunk.get("model")
        if type(message_id) is not str or type(model) is not str:
            raise _UnreadableError
        self._has_begun = True
        self._message_id = message_id
        message: dict[str, Any] = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._usage),
        }
        event = {"type": "message_start", "message": message}
        return b"event: message_start\ndata: " + orjson.dumps(event) + b"\n\n"

    def _note_finish(self, choice: dict[str, Any]) -> None:
        finish, stop = choice["finish_reason"], choice.get("stop_reason")
        if type(finish) is not str or not (stop is None or type(stop) is str or type(stop) is int):
            raise _UnreadableError
        self._finish, self._stop = finish, stop

    def _delta(self, delta: dict[str, Any]) -> bytes:
        """What a chunk says: reasoning, then text, then calls."""
        reasoning, text, calls = delta.get("reasoning"), delta.get("content"), delta.get("tool_calls")
        if reasoning is None:
            reasoning = delta.get("reasoning_content")  # an older engine's name
        out = b""
        if reasoning:
            out = self._open("thinking", _THINKING_BLOCK) if self._block != "thinking" else b""
            out += _THINKING_DELTA + _quoted(reasoning) + self._tail
        if text:
            out += self._text(text)
        if calls:
            out += self._calls(calls)
        return out

    def _text(self, text: Any) -> bytes:
        if self._block == "text":
            return _TEXT_DELTA + _quoted(text) + self._tail
        if self._block == "tool_use":
            if type(text) is not str:
                raise _UnreadableError
            self._pending.append(text)
            return b""
        return self._open("text", _TEXT_BLOCK) + _TEXT_DELTA + _quoted(text) + self._tail

    def _calls(self, calls: Any) -> bytes:
        if type(calls) is not list:
            raise _UnreadableError
        return b"".join([self._call(call) for call in calls])

    def _call(self, call: Any) -> bytes:
        """A piece of a call. As in vLLM, arguments of one whose block is not open are not told."""
        if type(call) is not dict or type(index := call.get("index")) is not int:
            raise _UnreadableError
        function = call.get("function")
        if function is None:
            function = {}
        if type(function) is not dict:
            raise _UnreadableError
        call_id, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
        if not all(value is None or type(value) is str for value in (call_id, name, arguments)):
            raise _UnreadableError
        out = b""
        if call_id is None:
            call_id = self._call_ids.get(index)
        else:
            self._call_ids[index] = call_id
            if name is not None and self._call_id != call_id:
                block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                out = self._open("tool_use", orjson.dumps(block))
                self._call_id = call_id
                self._arguments = []
        if arguments and call_id is not None and self._call_id == call_id and self._arguments is not None:
            self._arguments.append(arguments)
            out += _JSON_DELTA + orjson.dumps(arguments) + self._tail
        return out

    def _open(self, kind: _Block, block: bytes) -> bytes:
        """End the open block and begin another."""
        out = self._close()
        self._block = kind
        self._tail = b'},"index":%d}\n\n' % self._index
        return out + _START % (block, self._index)

    def _close(self) -> bytes:
        """End the open block, if any; the text that came during a call is told as one."""
        if self._block is None:
            return b""
        out = _STOP % self._index
        if self._block == "thinking":
            out = _SIGNATURE_DELTA % (self._signature(), self._index) + out
        self._block = self._call_id = None
        self._index += 1
        if not self._pending:
            return out
        text = "".join(self._pending)
        self._pending.clear()
        return (
            out + self._open("text", _TEXT_BLOCK) + _TEXT_DELTA + _quoted(text) + self._tail + self._close()
        )

    def _signature(self) -> bytes:
        text = f"{self._message_id}/{self._index}"
        return blake2b(text.encode(errors="replace"), digest_size=16).hexdigest().encode()

    def _tell_end(self) -> bytes:
        self._has_told_end = True
        reason, sequence = self._stop_reason()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        event = {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}
        return self._close() + b"event: message_delta\ndata: " + orjson.dumps(event) + b"\n\n"

    def _stop_reason(self) -> tuple[str | None, str | None]:
        """As vLLM says it: a call that a stop string cut short must not run."""
        finish = self._finish or "stop"
        if finish == "length":
            return "max_tokens", None
        if finish not in ("stop", "tool_calls"):
            return None, None
        calls = self._arguments
        if type(self._stop) is str and (calls is None or not _is_json("".join(calls))):
            return "stop_sequence", self._stop
        return ("tool_use" if calls is not None or finish == "tool_calls" else "end_turn"), None

    def _done(self) -> bytes:
        if not self._has_begun or (self._finish is None and not self._has_told_end):
            raise _UnreadableError  # it was cut off
        out = b"" if self._has_told_end else self._tell_end()
        self._is_over = True
        return out + _END


def _error_of(status: int, body: bytes) -> bytes:
    value = orjson.loads(body)
    error = value.get("error") if type(value) is dict else None
    if type(error) is dict and type(error.get("code")) is int:  # an engine's code is its status
        kind, message = error.get("type"), error.get("message")
        if type(kind) is str and type(message) is str:
            return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
    return anthropic_body(status, body)


def _quoted(text: Any) -> bytes:
    if type(text) is not str:
        raise _UnreadableError
    return orjson.dumps(text)


def _usage(usage: Any) -> dict[str, int]:
    """A chat's usage as this API counts: what was read from the cache, or put there, is no input."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    if type(usage) is not dict:
        raise _UnreadableError
    tokens = _count(usage, "prompt_tokens") or 0
    made = {"input_tokens": 0, "output_tokens": _count(usage, "completion_tokens") or 0}
    details = usage.get("prompt_tokens_details")
    if details is not None:
        if type(details) is not dict:
            raise _UnreadableError
        created, read = _count(details, "created_cache_tokens"), _count(details, "cached_tokens")
        if created is not None:
            made["cache_creation_input_tokens"] = created
        if read is not None:
            made["cache_read_input_tokens"] = read
        tokens -= (created or 0) + (read or 0)
    made["input_tokens"] = max(0, tokens)
    return made


def _count(counts: dict[str, Any], name: str) -> int | None:
    count = counts.get(name)
    if count is None or (type(count) is int and 0 <= count <= MAX_COUNT):
        return count
    raise _UnreadableError


def _is_json(text: str) -> bool:
    """As vLLM judges, by the standard library."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
