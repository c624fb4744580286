"""Cutting a byte stream into server-sent events, without decoding them."""

from __future__ import annotations

MAX_EVENT_BYTES = 8 << 20
"""A first event may carry the prompt's token ids (about 7 bytes each), hence not smaller."""


class EventTooLargeError(ValueError):
    """An event did not end within the limit."""


class EventSplitter:
    """Feeds on pieces as they come off the socket, returns whole events with their blank line.

    Rule: each byte is looked at a fixed number of times, however small the pieces and the events are.
    """

    __slots__ = ("_limit", "rest")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self.rest = bytearray()
        """The beginning of an event whose end has not come."""

    def feed(self, data: bytes) -> list[bytes]:
        """All events that are whole now.

        Raises:
            EventTooLargeError: more than the limit without the end of an event.
        """
        rest = self.rest
        if not rest:
            if data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
                return [data]  # one event in one piece: the common case
            events, left = _cut(data)
            if left:
                rest += left
        else:
            searched = max(0, len(rest) - 3)  # a blank line may have begun
            rest += data
            if rest.find(b"\n\n", searched) < 0 and rest.find(b"\r\n\r\n", searched) < 0:
                events = []
            else:
                events, left = _cut(bytes(rest))
                rest.clear()  # its memory too
                if left:
                    rest += left
        if len(rest) > self._limit:
            raise EventTooLargeError(f"a server-sent event of more than {self._limit} bytes")
        return events


def _cut(data: bytes) -> tuple[list[bytes], bytes]:
    """The events up to the last blank line, and what is behind it."""
    events = []
    start = 0
    plain = data.find(b"\n\n")
    windows = data.find(b"\r\n\r\n") if b"\r" in data else -1
    while plain >= 0 or windows >= 0:
        end = windows + 4 if plain < 0 or 0 <= windows < plain else plain + 2
        events.append(data[start:end])
        start = end
        if 0 <= plain < end:  # only the one that is used up: the other may be far, or nowhere
            plain = data.find(b"\n\n", end)
        if 0 <= windows < end:
            windows = data.find(b"\r\n\r\n", end)
    return events, data[start:]


def data_of(event: bytes) -> bytes | None:
    """The payload of an event's `data:` lines, None for comments and other fields."""
    if event.startswith(b"data: ") and event.count(b"\n") == 2:
        return event[6:].rstrip(b"\r\n")
    lines = [line.rstrip(b"\r") for line in event.split(b"\n")]
    payload = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(payload) if payload else None
