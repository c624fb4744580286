"""The plan from Redis: by its channel for speed, by a re-read for certainty (DESIGN §4).

Rule: the site needs no plan. While Redis is away the last one holds until it is over; then the governor
chooses by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from fleet.store import Store, StoreError
from site_agent.plan_judge import PlanJudge

logger = logging.getLogger(__name__)

REREAD_SECONDS = 5.0
"""A plan holds for minutes and may be large: it is read less often than power."""
BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0
SAY_AGAIN_SECONDS = 60.0
"""Refused plans are logged no more often."""


class PlanFollow:
    """Feeds a `PlanJudge`."""

    def __init__(self, *, store: Store, judge: PlanJudge, rng: random.Random) -> None:
        self._store = store
        self._judge = judge
        self._rng = rng
        self._last: bytes | None = None
        """What was read last: bytes are compared before they are parsed."""
        self._has_read = False
        self._said_at = float("-inf")

    async def follow_events(self) -> None:
        """Redis' channel; runs as long as the agent does."""
        await self._persist(self._read_events)

    async def reread(self) -> None:
        """The record in Redis; runs as long as the agent does."""
        await self._persist(self._read_record)

    async def _read_events(self) -> None:
        async for kind, record in self._store.events(plan=True):
            if kind == "plan":
                self._take(record, is_left_over=False)

    async def _read_record(self) -> None:
        record = await self._store.plan()
        if record is not None and record != self._last:
            self._last = record
            self._take(record, is_left_over=not self._has_read)
        self._has_read = True
        await asyncio.sleep(REREAD_SECONDS)

    async def _persist(self, read: Callable[[], Awaitable[None]]) -> None:
        wait = BACKOFF_SECONDS
        while True:
            try:
                await read()
            except StoreError as error:
                logger.debug("the plan cannot be read", extra={"error": str(error)})
                await asyncio.sleep(wait * self._rng.uniform(0.5, 1.5))
                wait = min(MAX_BACKOFF_SECONDS, wait * 2)
            else:
                wait = BACKOFF_SECONDS

    def _take(self, raw: bytes, *, is_left_over: bool) -> None:
        now = asyncio.get_running_loop().time()
        before = self._judge.plans_taken
        problem = self._judge.take(raw, now=now, unix_now=time.time(), is_left_over=is_left_over)
        if problem is not None and now - self._said_at >= SAY_AGAIN_SECONDS:
            self._said_at = now
            logger.warning("plan: %s", problem)
        if self._judge.plans_taken > before:
            logger.info("a plan", extra={"epoch": self._judge.epoch, "targets": self._judge.targets(now)})
