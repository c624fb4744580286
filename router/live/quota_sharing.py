"""Keeps this router's quotas those of the whole fleet: twice a second it says what was spent, and hears what
is left. No request waits for it; while Redis is away each router goes on by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fleet.store import Store, StoreError
from router.policy.key_ring import KeyRing
from router.policy.quota_member import QuotaMember

logger = logging.getLogger(__name__)

SHARE_SECONDS = 0.5
"""So much more than its quota a key may use at most: what all routers let in within it."""
RETRY_SECONDS = 2.0


class QuotaSharing:
    """One loop around one ring; `member` is this router's name in the fleet's book."""

    def __init__(self, *, store: Store, ring: KeyRing, member: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._ring = QuotaMember(ring)
        self._member = member
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        is_away = False
        while True:
            try:
                await self.share()
            except StoreError as error:
                if not is_away:
                    logger.warning("quotas are this router's own until Redis answers: %s", error)
                self._ring.lose()
            is_away = self._ring.is_lost
            await asyncio.sleep(RETRY_SECONDS if is_away else SHARE_SECONDS)

    async def share(self) -> None:
        """Once.

        Raises:
            StoreError: the store does not answer.
        """
        if not self._ring.is_needed:
            return
        standings = await self._store.share_quotas(self._member, self._ring.report())
        self._ring.take(standings, self._clock())
