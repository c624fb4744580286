"""What happened lately, for the operator's view: a bounded ring, newest last."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, Literal

logger = logging.getLogger(__name__)

MAX_EVENTS = 500
EventKind = Literal[
    "site_appeared",
    "site_forgotten",
    "site_state",
    "power",
    "breaker",
    "clock",
    "resume",
    "record_refused",
    "store",
    "worker",
    "policy",
    "plan",
]


class EventRing:
    """`add` also logs, so that the ring and the log tell one story."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)

    def add(self, kind: EventKind, text: str, *, site_id: str | None = None) -> None:
        """Note one event, in words for a person."""
        self._events.append({"unix_seconds": time.time(), "site_id": site_id, "kind": kind, "text": text})
        logger.info(text, extra={"kind": kind, "site_id": site_id})

    def recent(self) -> list[dict[str, Any]]:
        """All that are kept, oldest first."""
        return list(self._events)
