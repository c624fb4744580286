"""Reads streams that cannot be continued: whole events only, and the end judged by event names. Pure.

What `stream_scan` is for chat and completions; Responses, Messages and other streams come through here.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.body import Api
from router.policy.stream_scan import ChatStreamScanner, Ending, Mode

_ANNOUNCEMENTS = ("message_start", "ping")
"""Events before the first output: until then another site may make the answer. A Response's first event is no
such: it tells the id by which a client may read or cancel it from then on."""


class EventStreamScanner:
    """For streams that cannot be continued: Responses, Messages, and whatever else streams events."""

    __slots__ = ("_api", "_splitter", "ending", "error", "events", "has_begun")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._splitter = EventSplitter()
        self.events = 0
        self.has_begun = False
        """An event said more than that an answer will come."""
        self.ending: Ending | None = None
        self.error: Any = None

    def feed(self, data: bytes) -> bytes:
        """As `ChatStreamScanner.feed`."""
        if self.ending is not None:
            return b""
        try:
            events = self._splitter.feed(data)
        except EventTooLargeError:
            self.ending = "malformed"
            return b""
        pieces = []
        for event in events:
            name, payload = _name_of(event), data_of(event)
            self.events += payload is not None
            if name in ("error", ""):
                value = _object(payload)
                if name == "error" or value.get("error"):
                    self.error = value.get("error") or value
                    self.ending = "error_event"
                    break
                name = str(value.get("type", ""))
            if name == "message_delta" and b'"stop_reason":null' in event:
                self.ending = "aborted"  # what a stopping vLLM says, before a clean message_stop
                break
            pieces.append(event)
            if payload is not None and name not in _ANNOUNCEMENTS:
                self.has_begun = True
            if name in _TERMINAL_EVENTS or (payload is not None and payload.strip() == b"[DONE]"):
                self.ending = "complete"
                break
        return b"".join(pieces)


_TERMINAL_EVENTS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})
"""`response.failed` is that API's own stated error: the answer is whole."""


def _name_of(event: bytes) -> str:
    """The `event:` field, "" where there is none."""
    if not event.startswith(b"event:"):
        return ""
    return event[6 : event.find(b"\n")].strip().decode("utf-8", "replace")


def _object(payload: bytes | None) -> dict[str, Any]:
    if payload is None or not payload.lstrip().startswith(b"{"):
        return {}
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


StreamScanner = ChatStreamScanner | EventStreamScanner


def scanner_for(api: Api, mode: Mode, *, cut: bool, choices: int) -> StreamScanner:
    """The scanner of one answer."""
    if api is Api.CHAT or api is Api.COMPLETION:
        return ChatStreamScanner(api, mode, cut=cut, choices=choices)
    return EventStreamScanner(api)
