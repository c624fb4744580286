"""Writes readings to the store beside the streams: whatever the store does, no stream waits for it.

Rule: per site only the newest reading waits to be written. When the store comes (back), its own keys are
read first, so that sequences go on above whatever was written there before (DESIGN §4).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from fleet.records import PowerReading, is_of_no_clock
from fleet.signing import RecordTrust, signed_at_milliseconds
from fleet.store import Store, StoreError
from fleet.wire import RecordError

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0


class StoreWriter:
    """One task that empties a mailbox per site."""

    def __init__(
        self,
        store: Store,
        site_ids: Sequence[str],
        *,
        trust: RecordTrust,
        on_reading: Callable[[PowerReading, float | None], None],
        on_error: Callable[[], None],
    ) -> None:
        """`on_reading` is told what was found in the store, and the seconds since it was signed (None: it
        need not be); `on_error` counts a failure."""
        self._store = store
        self._site_ids = tuple(site_ids)
        self._trust = trust
        self._on_reading = on_reading
        self._on_error = on_error
        self._order = list(site_ids)
        """In which they are written: whose writing failed comes last."""
        self._waiting: dict[str, tuple[bytes, bool]] = {}
        self._arrived = asyncio.Event()
        self.is_connected = False
        """Whether the last exchange with the store succeeded."""

    def offer(self, site_id: str, reading: bytes, *, log: bool) -> None:
        """Queue a site's reading in place of one that still waits; `log` is kept until it is written."""
        waiting = self._waiting.get(site_id)
        self._waiting[site_id] = (reading, log or (waiting is not None and waiting[1]))
        self._arrived.set()

    async def run(self) -> None:
        """Write for ever; a store that fails is tried again with back-off."""
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                if not self.is_connected:
                    await self._read_own()
                    self.is_connected = True
                    retry_seconds = FIRST_RETRY_SECONDS
                    logger.info("store reached", extra={"sites": len(self._site_ids)})
                await self._arrived.wait()
                self._arrived.clear()
                await self._write()
            except StoreError as error:
                self._on_error()
                if self.is_connected or retry_seconds == FIRST_RETRY_SECONDS:
                    logger.warning("store away, streams go on: %s", error)
                self.is_connected = False
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)

    async def _read_own(self) -> None:
        found = await self._store.power_readings(self._site_ids)
        for site_id, raw in zip(self._site_ids, found, strict=True):
            if raw is None:
                continue
            try:
                reading = self._trust.read(PowerReading, raw, unix_now=None)
            except RecordError as error:
                logger.warning("power:%s held no reading and will be replaced: %s", site_id, error)
                continue
            if is_of_no_clock(reading.sequence, time.time()):
                logger.warning(
                    "the sequence under power:%s is from no clock, and is not gone on from: %d",
                    site_id,
                    reading.sequence,
                )
            elif reading.site_id == site_id:
                signed_at = signed_at_milliseconds(reading) / 1000
                is_signed = self._trust.asks("power_feed")
                self._on_reading(reading, time.time() - signed_at if is_signed else None)

    async def _write(self) -> None:
        for site_id in list(self._order):
            if site_id not in self._waiting:
                continue
            reading, log = self._waiting.pop(site_id)
            try:
                await self._store.publish_power_reading(site_id, reading, log=log)
            except StoreError:
                newer = self._waiting.pop(site_id, (reading, False))
                self.offer(site_id, newer[0], log=log or newer[1])
                self._order.remove(site_id)  # a key of this one site that takes nothing holds up no other
                self._order.append(site_id)
                raise
