"""What happened lately, for the operator's view: a bounded ring, newest last."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from operator import itemgetter
from typing import Any, Literal

logger = logging.getLogger(__name__)

MAX_EVENTS = 500
MAX_REFUSED_EVENTS = 100
"""Of records that were refused, kept apart: a writer that is always wrong must not push out the rest."""
MAX_TEXT_CHARACTERS = 1000
EventKind = Literal[
    "site_appeared",
    "site_forgotten",
    "site_state",
    "cordon",
    "power",
    "cap",
    "report",
    "breaker",
    "clock",
    "resume",
    "requests",
    "fleet",
    "record_refused",
    "store",
    "worker",
    "policy",
    "plan",
]
EventLevel = Literal["info", "good", "warning", "bad"]
"""`good`: something is well again; `bad`: look at it now."""
LEVELS: dict[EventKind, EventLevel] = {
    "record_refused": "warning",
    "clock": "warning",
    "resume": "warning",
}
"""Where nothing else is said; the rest is `info`."""
_LOG_LEVELS: dict[EventLevel, int] = {
    "info": logging.INFO,
    "good": logging.INFO,
    "warning": logging.WARNING,
    "bad": logging.ERROR,
}


class EventRing:
    """`add` also logs, so that the ring and the log tell one story."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._refused: deque[dict[str, Any]] = deque(maxlen=MAX_REFUSED_EVENTS)
        self._numbers = itertools.count(1)
        self.last_number = 0
        """Of the newest event; 0 before the first."""

    def add(
        self, kind: EventKind, text: str, *, site_id: str | None = None, level: EventLevel | None = None
    ) -> None:
        """Note one event, in words for a person."""
        self.last_number = next(self._numbers)
        level = level or LEVELS.get(kind, "info")
        text = text[:MAX_TEXT_CHARACTERS].encode("utf-8", "replace").decode()  # JSON has no half characters
        ring = self._refused if kind == "record_refused" else self._events
        ring.append(
            {
                "number": self.last_number,
                "unix_seconds": time.time(),
                "site_id": site_id,
                "kind": kind,
                "level": level,
                "text": text,
            }
        )
        logger.log(_LOG_LEVELS[level], text, extra={"kind": kind, "site_id": site_id})

    def recent(self, after: int = 0) -> list[dict[str, Any]]:
        """All that are kept, oldest first; `after`: only those with a higher number."""
        merged = heapq.merge(self._events, self._refused, key=itemgetter("number"))
        return [event for event in merged if event["number"] > after]
