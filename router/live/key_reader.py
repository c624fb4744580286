"""Keeps a `KeyRing` current from the store: every second, so that a key that was just made works at once.

No request waits for it. While the store does not answer, or has been emptied, the ring keeps what it knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fleet.store import Store, StoreError
from router.live.events import EventRing
from router.live.metrics import RouterMetrics
from router.policy.key_ring import KeyRing

logger = logging.getLogger(__name__)

KEYS_NOT_READ = "the API keys have not been read yet: Redis does not answer"
REREAD_SECONDS = 1.0
KEYS_PER_REREAD = 500
"""Of the keys that are known, and, once all were read, of the others: beyond it they take turns."""
KEYS_AT_ONCE = 50
"""In one round trip: a few milliseconds of reading and believing them, then other work has its turn."""
BUSY_RATIO = 0.1
"""Where a store holds very many keys, reading them takes at most this share of the time."""


class KeyReader:
    """One loop around one ring; where several processes share a reader, each has its own ring."""

    def __init__(
        self,
        *,
        store: Store,
        ring: KeyRing,
        metrics: RouterMetrics,
        events: EventRing,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._ring = ring
        self._metrics = metrics
        self._events = events
        self._clock = clock
        self._turn = 0
        self._told = -1
        self._is_store_up = True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock()
            try:
                await self.reread()
            except StoreError as error:
                if self._is_store_up:
                    logger.warning("API keys cannot be read, %d stay in use: %s", len(self._ring), error)
                self._is_store_up = False
            else:
                self._is_store_up = True
            took = self._clock() - began
            await asyncio.sleep(max(REREAD_SECONDS, took / BUSY_RATIO if self._is_store_up else 0.0))

    async def reread(self) -> None:
        """Read those known, whatever else is listed, and those that are new; of many, the next part.

        Raises:
            StoreError: the store does not answer.
        """
        listed = await self._store.api_key_ids()
        self._turn += 1
        new = [sha256_hex for sha256_hex in listed if not self._ring.knows(sha256_hex)]
        wanted = self._part(self._ring.ids()) + (new if self._ring.read_at is None else self._part(new))
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            ids = wanted[start : start + KEYS_AT_ONCE]
            records = await self._store.api_keys(ids)
            faults = self._ring.take(dict(zip(ids, records, strict=True)), self._clock(), time.time())
            for key_id, error in faults:
                self._metrics.count_refused("ApiKey", error.reason)
                self._events.add("record_refused", f"refused: API key {key_id[:12]}…: {error}")
        self._ring.note_listed(listed)
        self._ring.note_read(self._clock())
        self._tell(len(listed))

    def _part(self, ids: list[str]) -> list[str]:
        """All of them, or those whose turn it is."""
        parts = -(-len(ids) // KEYS_PER_REREAD) or 1
        return ids[self._turn % parts :: parts]

    def _tell(self, listed: int) -> None:
        """Say how many there are when that changes."""
        if listed == self._told:
            return
        if not listed and not len(self._ring):
            logger.warning('auth = "keys" and there is no key: make one with `heron keys add --tenant NAME`')
        elif listed < len(self._ring):
            text = (
                "%d API keys in the store, %d known: those that are gone stay in use until they are revoked"
                " or this router is started anew"
            )
            logger.warning(text, listed, len(self._ring))
        else:
            logger.info("%d API keys are known", listed)
        self._told = listed
