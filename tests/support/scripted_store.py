"""A store that a test can take away, fill with anything, and look into: what a site agent needs of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from fleet.store import StoreError


class ScriptedStore:
    """`is_down` makes every call fail, and ends subscriptions."""

    def __init__(self) -> None:
        self.reports: list[bytes] = []
        self.infos: list[bytes] = []
        self.report: bytes | None = None
        self.info: bytes | None = None
        self.power: bytes | None = None
        self.power_reads = 0
        self.kept_plan: bytes | None = None
        self.is_closed = False
        self._is_down = False
        self._listeners: list[asyncio.Queue[bytes | None]] = []
        self._plan_listeners: list[asyncio.Queue[bytes | None]] = []

    @property
    def is_down(self) -> bool:
        return self._is_down

    @is_down.setter
    def is_down(self, value: bool) -> None:
        self._is_down = value
        for queue in [*self._listeners, *self._plan_listeners] if value else []:
            queue.put_nowait(None)

    def empty(self) -> None:
        """Restarted without its data."""
        self.report = self.info = self.power = self.kept_plan = None

    def publish_power(self, record: bytes, *, is_kept: bool = True) -> None:
        """As the feed does; without `is_kept` only those who listen hear it."""
        if is_kept:
            self.power = record
        for queue in self._listeners:
            queue.put_nowait(record)

    def publish_plan(self, record: bytes, *, is_kept: bool = True) -> None:
        """As the planner does."""
        if is_kept:
            self.kept_plan = record
        for queue in self._plan_listeners:
            queue.put_nowait(record)

    def _check(self) -> None:
        if self._is_down:
            raise StoreError("redis://test: down, as the test says")

    async def publish_site_report(self, site_id: str, record: bytes, unix_seconds: float) -> None:
        self._check()
        self.report = record
        self.reports.append(record)

    async def publish_site_info(self, site_id: str, record: bytes) -> None:
        self._check()
        self.info = record
        self.infos.append(record)

    async def site_reports(self, site_ids: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self.report]

    async def site_infos(self, site_ids: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self.info]

    async def power_readings(self, site_ids: Sequence[str]) -> list[bytes | None]:
        self._check()
        self.power_reads += 1
        return [self.power]

    async def plan(self) -> bytes | None:
        self._check()
        return self.kept_plan

    async def events(
        self, *, sites: bool = False, plan: bool = False, power_of: Sequence[str] | None = ()
    ) -> AsyncIterator[tuple[str, bytes]]:
        self._check()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        listeners = self._plan_listeners if plan else self._listeners
        listeners.append(queue)
        try:
            while (record := await queue.get()) is not None:
                yield "plan" if plan else "power", record
            raise StoreError("redis://test: the connection is lost")
        finally:
            listeners.remove(queue)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    async def aclose(self) -> None:
        self.is_closed = True
