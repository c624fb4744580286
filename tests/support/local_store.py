from __future__ import annotations
import asyncio
from typing import Any
from fleet.store import StoreError


class MemoryStore:
    def __init__(self, *_: Any) -> None:
        self.reports: dict[str, bytes] = {}
        self.infos: dict[str, bytes] = {}
        self.powers: dict[str, bytes] = {}
        self.queues: set[asyncio.Queue[Any]] = set()
        self.routers: dict[str, bytes] = {}
        self.is_down = False

    def _check(self) -> None:
        if self.is_down:
            raise StoreError("down")

    async def publish_site_report(self, site_id, record, unix_seconds):
        self._check()
        self.reports[site_id] = record
        for q in self.queues:
            q.put_nowait(("site", record))

    async def publish_site_info(self, site_id, record):
        self._check()
        self.infos[site_id] = record

    async def publish_power_reading(self, site_id, record, *, log):
        self._check()
        self.powers[site_id] = record
        for q in self.queues:
            q.put_nowait(("power", record))

    async def publish_router(self, router_id, record, ttl_seconds):
        self._check()
        self.routers[router_id] = record

    async def site_ids(self, newer_than_unix_seconds=0.0):
        self._check()
        return sorted(self.reports)

    async def site_reports(self, ids):
        self._check()
        return [self.reports.get(i) for i in ids]

    async def site_infos(self, ids):
        self._check()
        return [self.infos.get(i) for i in ids]

    async def power_readings(self, ids):
        self._check()
        return [self.powers.get(i) for i in ids]

    async def events(self, *, sites=False, plan=False, power_of=()):
        self._check()
        q = asyncio.Queue()
        self.queues.add(q)
        try:
            while True:
                item = await q.get()
                if item is None:
                    raise StoreError("lost")
                yield item
        finally:
            self.queues.discard(q)

    async def ping(self):
        self._check()

    async def aclose(self):
        pass
