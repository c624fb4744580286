"""Records that were not used: all counted, each told of once, and passed over when they are read again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from fleet.keys import is_name
from router.live.events import EventRing
from router.live.metrics import RouterMetrics

KINDS_OF_SITES = ("SiteReport", "SiteInfo", "PowerReading", "Cordon")
FOR_NOW = frozenset({"second_writer", "signed_ahead"})
"""Such a record may be used later: once the first writer is silent, once its time has come."""
MAX_REMEMBERED_OF_STRANGERS = 30_000
"""Of sites that are not known: Redis is writable by every site."""
SAY_REFUSED_SECONDS = 1.0
"""Those of one kind and reason are told of at most so often."""


class Refusals:
    """One per `FleetView`."""

    def __init__(
        self,
        metrics: RouterMetrics,
        events: EventRing,
        clock: Callable[[], float],
        *,
        is_known: Callable[[str], bool],
    ) -> None:
        """`is_known`: whether records of a site are kept."""
        self._metrics = metrics
        self._events = events
        self._clock = clock
        self._is_known = is_known
        self._refused: dict[tuple[str, str], bytes] = {}
        """Digests."""
        self._for_now: dict[tuple[str, str], bytes] = {}
        self._said: dict[tuple[str, str], float] = {}

    def has(self, kind: str, site_id: str | None, raw: bytes) -> bool:
        """Whether this very record was the last of its kind and site that was refused for good."""
        known = None if site_id is None else self._refused.get((kind, site_id))
        return known is not None and known == _digest(raw)

    def add(self, kind: str, reason: str, message: str, site_id: str | None, raw: bytes) -> None:
        """Count it; say it once per record, not at every re-read."""
        memory = self._for_now if reason in FOR_NOW else self._refused
        if (
            site_id is not None
            and is_name(site_id)
            and (self._is_known(site_id) or len(memory) < MAX_REMEMBERED_OF_STRANGERS)
        ):
            digest = _digest(raw)
            if memory.get((kind, site_id)) == digest:
                return
            memory[kind, site_id] = digest
        self._metrics.count_refused(kind, reason)
        now = self._clock()
        if now - self._said.get((kind, reason), float("-inf")) >= SAY_REFUSED_SECONDS:
            self._said[kind, reason] = now
            self._events.add("record_refused", f"refused: {message}", site_id=site_id)

    def forget(self, site_id: str) -> None:
        """Nothing is remembered of this site."""
        for kind in KINDS_OF_SITES:
            self._refused.pop((kind, site_id), None)
            self._for_now.pop((kind, site_id), None)


def _digest(raw: bytes) -> bytes:
    """In place of a record, which may have 256 KiB."""
    return hashlib.blake2b(raw, digest_size=16).digest()
