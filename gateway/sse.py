"""Cutting a byte stream into server-sent events, without decoding them."""

from __future__ import annotations

MAX_EVENT_BYTES = 8 << 20
"""A first event may carry the prompt's token ids (about 7 bytes each), hence not smaller."""


class EventTooLargeError(ValueError):
    """An event did not end within the limit."""


class EventSplitter:
    """Feeds on pieces as they come off the socket, returns whole events with their blank line."""

    __slots__ = ("_limit", "rest")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self.rest = b""
        """The beginning of an event whose end has not come."""

    def feed(self, data: bytes) -> list[bytes]:
        """All events that are whole now.

        Raises:
            EventTooLargeError: more than the limit without the end of an event.
        """
        if self.rest:
            data = self.rest + data
            self.rest = b""
        elif data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
            return [data]  # one event in one piece: the common case
        events = []
        start = 0
        while True:
            end = _event_end(data, start)
            if end < 0:
                break
            events.append(data[start:end])
            start = end
        self.rest = data[start:]
        if len(self.rest) > self._limit:
            raise EventTooLargeError(f"a server-sent event of more than {self._limit} bytes")
        return events


def _event_end(data: bytes, start: int) -> int:
    """Index behind the next blank line, -1 where there is none."""
    plain = data.find(b"\n\n", start)
    windows = data.find(b"\r\n\r\n", start) if b"\r" in data else -1
    if plain < 0:
        return windows + 4 if windows >= 0 else -1
    if windows < 0 or plain < windows:
        return plain + 2
    return windows + 4


def data_of(event: bytes) -> bytes | None:
    """The payload of an event's `data:` lines, None for comments and other fields."""
    if event.startswith(b"data: ") and event.count(b"\n") == 2:
        return event[6:].rstrip(b"\r\n")
    lines = [line.rstrip(b"\r") for line in event.split(b"\n")]
    payload = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(payload) if payload else None
