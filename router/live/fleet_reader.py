"""Keeps the fleet view current: listens, re-reads, and asks the sites themselves while Redis is silent.

Pub/sub gives speed, the re-read gives certainty; losing either alone loses nothing (DESIGN §4). With Redis
away, or a site's own link to it, the site's report is fetched from its ingress every second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fleet.keys import is_name
from fleet.store import Store, StoreError
from fleet.wire import MAX_RECORD_BYTES
from gateway.upstream import Origin, UpstreamError, UpstreamPool
from router.live.events import EventRing
from router.live.fleet_view import MAX_SITES, FleetView
from router.live.metrics import RouterMetrics

logger = logging.getLogger(__name__)

REREAD_SECONDS = 1.0
SITES_PER_REREAD = 100
MAX_REREAD_PARTS = 5
"""Beyond 100 sites the re-read is spread over up to 5 seconds."""
SILENT_SECONDS = 3.0
"""Without word of a site through Redis for so long, the site itself is asked."""
POLL_SECONDS = 1.0
POLL_TIMEOUT_SECONDS = 1.0
MAX_POLLS_AT_ONCE = 32
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 2.0


class FleetReader:
    """Three loops around one `FleetView`."""

    def __init__(
        self,
        *,
        store: Store,
        view: FleetView,
        pool: UpstreamPool,
        metrics: RouterMetrics,
        events: EventRing,
        authorization: bytes | None,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._view = view
        self._pool = pool
        self._metrics = metrics
        self._events = events
        self._headers = [(b"accept", b"application/json")]
        if authorization is not None:
            self._headers.append((b"authorization", authorization))
        self._clock = clock
        self._unix_clock = unix_clock
        self._wake = asyncio.Event()
        self._part = 0
        self.is_store_up: bool | None = None
        """None before the first answer."""

    def loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """By name; each runs until cancelled, and stands in for the others."""
        return {
            "fleet events": self._listen,
            "fleet records": self._reread_forever,
            "fleet polls": self._poll_forever,
        }

    async def _listen(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                async for kind, raw in self._store.events(sites=True, plan=True, power_of=None):
                    backoff = FIRST_BACKOFF_SECONDS
                    if kind == "site":
                        self._view.take_report(raw, "event")
                    elif kind == "plan":
                        self._view.take_plan(raw)
                    elif kind == "power":
                        self._view.take_power(raw)
            except StoreError as error:
                self._note_store(is_up=False, why=str(error))
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            self._wake.set()  # what was published meanwhile is in the keys

    async def _reread_forever(self) -> None:
        while True:
            try:
                await self.reread()
            except StoreError as error:
                self._note_store(is_up=False, why=str(error))
            else:
                self._note_store(is_up=True)
            self._view.tell()
            self._wake.clear()
            try:
                async with asyncio.timeout(REREAD_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def reread(self) -> None:
        """Read the keys of all sites, or of the next part of them.

        Raises:
            StoreError: the store does not answer.
        """
        listed = [site_id for site_id in await self._store.site_ids() if is_name(site_id)]
        ids = sorted(set(listed[-MAX_SITES:]) | set(self._view.known_sites()))
        parts = min(MAX_REREAD_PARTS, -(-len(ids) // SITES_PER_REREAD)) or 1
        self._part = (self._part + 1) % parts
        ids = ids[self._part :: parts]
        if not ids:
            return
        cordons = await self._store.cordons(ids)  # first: no site is given work before its cordon is known
        for site_id, raw in zip(ids, cordons, strict=True):
            self._view.take_cordon(raw or await self._lost_cordon(site_id), site_id)
        reports = await self._store.site_reports(ids)
        for site_id, raw in zip(ids, reports, strict=True):
            if raw is None:
                self._view.forget_absent(site_id)
            else:
                self._view.take_report(raw, "store", site_id)
        for site_id, raw in zip(ids, await self._store.site_infos(ids), strict=True):
            if raw is not None:
                self._view.take_info(raw, site_id)
        for site_id, raw in zip(ids, await self._store.power_readings(ids), strict=True):
            if raw is not None:
                self._view.take_power(raw, site_id)
        plan = await self._store.plan()
        if plan is not None:
            self._view.take_plan(plan)

    async def _lost_cordon(self, site_id: str) -> bytes:
        """What an operator said of a site and Redis has lost, written there again; b"" where that is over."""
        lost = self._view.cordons.lost(site_id, self._unix_clock())
        if lost is None:
            return b""
        try:
            await self._store.restore_cordon(site_id, *lost)
        except StoreError as error:
            logger.warning("a cordon cannot be written again: %s", error, extra={"site_id": site_id})
        else:
            text = f"Redis had lost the cordon of {site_id}: it holds, and was written there again"
            self._events.add("cordon", text, site_id=site_id, level="warning")
        return lost[0]

    def _note_store(self, *, is_up: bool, why: str = "") -> None:
        if is_up == self.is_store_up:
            return
        if not is_up:
            text = f"Redis does not answer ({why}): routing on what is known, asking the sites themselves"
            self._events.add("store", text, level="bad")
        elif self.is_store_up is not None:
            self._events.add("store", "Redis answers again", level="good")
        self.is_store_up = is_up

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.poll_silent()

    async def poll_silent(self) -> None:
        """Ask every site that Redis has said nothing of for a while."""
        now = self._clock()
        silent = [
            (site_id, kept.origin)
            for site_id in self._view.known_sites()
            if (kept := self._view.records(site_id)) is not None
            and kept.origin is not None
            and now - kept.stored_at > SILENT_SECONDS
        ]
        for start in range(0, len(silent), MAX_POLLS_AT_ONCE):
            group = silent[start : start + MAX_POLLS_AT_ONCE]
            await asyncio.gather(*(self._poll(site_id, origin) for site_id, origin in group))

    async def _poll(self, site_id: str, origin: Origin) -> None:
        try:
            async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
                raw = await self._fetch(origin)
        except (UpstreamError, TimeoutError) as error:
            self._metrics.polls["failed"] += 1
            logger.debug("a site's report cannot be fetched: %s", error, extra={"site_id": site_id})
            return
        if raw is None:
            self._metrics.polls["failed"] += 1
            return
        self._metrics.polls["ok"] += 1
        self._view.take_report(raw, "poll", site_id)

    async def _fetch(self, origin: Origin) -> bytes | None:
        response = await self._pool.send(
            origin,
            "GET",
            "/heron/v1/report",
            self._headers,
            b"",
            first_byte_timeout_seconds=POLL_TIMEOUT_SECONDS,
        )
        try:
            body = await response.read(MAX_RECORD_BYTES)
            return body if response.status == 200 else None
        finally:
            response.close()
