"""Stop strings across the seam of a resumed stream. Pure.

An engine looks for stop strings only in its own output, and holds back what may be the beginning of one. A
stop string of which one engine wrote the first half and another the second is seen by neither; this sees it.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Feeds on a continuation's text, releases what is safe to send."""

    __slots__ = ("_hold", "_keeps_stop", "_pending", "_sent_tail", "_stops", "sent_characters", "stopped_by")

    def __init__(self, stops: Sequence[str], *, keeps_stop: bool, sent: str) -> None:
        """`sent` is what the client has; `keeps_stop`: the stop string itself belongs to the answer."""
        self._stops = tuple(stops)
        self._keeps_stop = keeps_stop
        self._hold = max((len(stop) for stop in self._stops), default=1) - 1
        self._sent_tail = sent[-self._hold :] if self._hold else ""
        self._pending = ""
        self.sent_characters = len(sent)
        """Of the answer that the client has, before the event with the stop string."""
        self.stopped_by: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._stops)

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """What may be sent now. After `stopped_by` is set nothing more is."""
        if self.stopped_by is not None:
            return ""
        if not self._stops:
            return text
        self._pending += text
        sent = len(self._sent_tail)
        window = self._sent_tail + self._pending
        # One that ends in what was sent is none: the engine that wrote it had to pass over it (`min_tokens`).
        found = [
            (at + len(stop), at, stop)
            for stop in self._stops
            if (at := window.find(stop, max(0, sent - len(stop) + 1))) >= 0
        ]
        if found:
            end, start, stop = min(found)
            self.stopped_by = stop
            cut = end if self._keeps_stop else start
            return window[sent : max(cut, sent)]
        keep = 0 if is_last else min(self._hold, len(self._pending))
        out = self._pending[: len(self._pending) - keep]
        self._pending = self._pending[len(out) :]
        self.sent_characters += len(out)
        if self._hold:
            self._sent_tail = (self._sent_tail + out)[-self._hold :]
        return out
