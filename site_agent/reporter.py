"""Writes the site's records to Redis: the report every second and at once on change, the info when new.

Rules: nothing waits for Redis; what it does not take is written again, newer, a moment later. Sequences only
grow, over restarts and an emptied Redis too (`fleet.records.next_sequence`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fleet.records import SiteInfo, SiteReport, is_of_no_clock, next_sequence
from fleet.signing_keys import Signing
from fleet.store import Store, StoreError
from fleet.wire import RecordError

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
INFO_SECONDS = 60.0
"""So often the info is written though nothing in it is new: Redis may have been emptied meanwhile."""
MIN_SPACING_SECONDS = 0.05
"""Between two reports, however much changes: routers hear of a drop within this."""


class Reporter:
    """One writer; `agent_id` is random per process."""

    def __init__(
        self,
        *,
        site_id: str,
        store: Store,
        changed: asyncio.Event,
        make_report: Callable[[int], SiteReport],
        make_info: Callable[[int], SiteInfo],
        signing: Signing,
    ) -> None:
        """`changed` is set from outside: report at once. `make_…` build the record of now."""
        self.published = 0
        self.failed = 0
        self._site_id = site_id
        self._store = store
        self._signer, self._trust = signing
        self._make_report = make_report
        self._make_info = make_info
        self._changed = changed
        self._last_sequence: int | None = None
        self._highest_seen: int | None = None
        self._last_info: SiteInfo | None = None
        self._info_sequence: int | None = None
        self._info_at = 0.0
        """Loop time at which it was written last."""
        self._info_highest_seen: int | None = None
        self._has_seen_store = False
        self._is_failing = False

    def current_report(self) -> bytes:
        """The report of now, with a sequence of its own: what `GET /heron/v1/report` answers."""
        return self._signer.to_json(self._report(), unix_now=time.time())

    def _report(self) -> SiteReport:
        self._last_sequence = next_sequence(self._last_sequence, self._highest_seen, int(time.time() * 1000))
        return self._make_report(self._last_sequence)

    async def run(self) -> None:
        """Runs as long as the agent does."""
        while True:
            await self.publish()
            await asyncio.sleep(MIN_SPACING_SECONDS)
            try:
                async with asyncio.timeout(REPORT_SECONDS - MIN_SPACING_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def publish(self) -> None:
        """Write the report, and the info where it is new. Never raises for the store."""
        self._changed.clear()
        try:
            if not self._has_seen_store:
                await self._look()
            await self._publish_info()
            report = self._report()
            raw = self._signer.to_json(report, unix_now=time.time())
            await self._store.publish_site_report(self._site_id, raw, report.observed_at_unix_seconds)
        except StoreError as error:
            self.failed += 1
            self._has_seen_store = False  # what comes back may be empty, or another
            self._last_info = None
            if not self._is_failing:
                logger.warning("Redis takes no reports; going on without", extra={"error": str(error)})
            self._is_failing = True
            return
        self.published += 1
        if self._is_failing:
            logger.info("Redis takes reports again")
        self._is_failing = False

    async def _look(self) -> None:
        """What an earlier agent of this site wrote last: sequences go on from there."""
        [report] = await self._store.site_reports([self._site_id])
        [info] = await self._store.site_infos([self._site_id])
        self._highest_seen = _higher(self._highest_seen, self._sequence_of(SiteReport, report))
        self._info_highest_seen = _higher(self._info_highest_seen, self._sequence_of(SiteInfo, info))
        self._has_seen_store = True

    async def _publish_info(self) -> None:
        sequence = next_sequence(self._info_sequence, self._info_highest_seen, int(time.time() * 1000))
        info = self._make_info(sequence)
        now = asyncio.get_running_loop().time()
        is_due = now - self._info_at >= INFO_SECONDS
        if (
            self._last_info is not None
            and not is_due
            and info == self._last_info.model_copy(update={"sequence": sequence})
        ):
            return
        await self._store.publish_site_info(self._site_id, self._signer.to_json(info, unix_now=time.time()))
        self._last_info, self._info_sequence, self._info_at = info, sequence, now

    def _sequence_of(self, kind: type[SiteReport | SiteInfo], raw: bytes | None) -> int | None:
        """Of a record that may be anything; None where it says none."""
        if raw is None:
            return None
        try:
            sequence = self._trust.read(kind, raw, unix_now=None).sequence
        except RecordError as error:
            logger.warning("what is under this site's key is no record", extra={"error": str(error)})
            return None
        if is_of_no_clock(sequence, time.time()):
            logger.warning(
                "the sequence under this site's key is from no clock", extra={"sequence": sequence}
            )
            return None
        return sequence


def _higher(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)
