"""What this router knows of the fleet: records in, snapshot out. Requests read the snapshot and never wait.

Every record is hostile until it is judged: parsed (`fleet.records`), weighed against what came before
(`fleet.intake`), its ingress_url checked against the allowed networks. What is refused is counted and said
once; the site's last good record stays in use and ages.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Literal

from fleet.records import PowerReading, SiteInfo, SiteReport
from fleet.signing import RecordTrust
from fleet.wire import RecordError
from router.live.cordons import Cordons
from router.live.events import EventLevel, EventRing
from router.live.metrics import RouterMetrics
from router.live.networks import Network, NotAllowedError, check_literal, check_name
from router.live.plan_intake import PlanIntake, PlanRefusedError
from router.live.refusals import Refusals
from router.live.site_changes import state_change
from router.live.site_records import SiteRecords, Source
from router.live.sites import SiteRegistry
from router.policy.outlook import power_outlook
from router.policy.retry_after import retry_after_seconds
from router.policy.snapshot import Shortage, Snapshot, shortage, view_of

logger = logging.getLogger(__name__)

RecordKind = Literal["report", "info", "power", "plan", "cordon", "forgotten"]
MAX_SITES = 10_000
"""Beyond this further site ids are refused: Redis is writable by every site."""
FORGET_SECONDS = 60.0
"""The TTL of `site:<site>`: a site gone from Redis, and silent for so long, is no longer known."""
NAME_CHECK_SECONDS = 30.0
"""A host name is looked up again after so long."""
POWER_STEP_RATIO = 0.2
"""A grant that moves by more than this share of the farm's nameplate is an event."""


class FleetView:
    """One per process. `take_*` are called by `fleet_reader`; everything else by requests and operators."""

    def __init__(
        self,
        *,
        registry: SiteRegistry,
        metrics: RouterMetrics,
        events: EventRing,
        networks: tuple[Network, ...],
        max_clock_skew_seconds: float,
        trust: RecordTrust,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.registry = registry
        self.snapshot = Snapshot()
        self.on_change: Callable[[], None] = lambda: None
        self.plans = PlanIntake(trust)
        self.cordons = Cordons(trust)
        self.has_known_sites = False
        """Ever. Where they are gone, it is this router that tells clients when to come back."""
        self._plan_refused: tuple[bytes, int] | None = None
        self._infos_taken = 0
        self.on_record: Callable[[RecordKind, str, bytes], None] = lambda _kind, _site_id, _raw: None
        """Told of every record that is used, under its site's id, and of every site that is forgotten."""
        self._trust = trust
        self._events = events
        self._networks = networks
        self._max_skew = max_clock_skew_seconds
        self._clock = clock
        self._unix_clock = unix_clock
        self._rng = rng
        self._records: dict[str, SiteRecords] = {}
        self._refusals = Refusals(metrics, events, clock, is_known=self._records.__contains__)
        self._breaks: dict[tuple[str, str], int] = {}
        self._look_ups: set[asyncio.Task[None]] = set()

    # what requests ask
    @property
    def is_settled(self) -> bool:
        """Whether enough is known to say that a model does not exist."""
        return bool(self.snapshot.sites)

    def is_losing_power(self, site_id: str) -> bool:
        """Whether the site's own report says that it is stopping or has stopped its engines."""
        site = self.snapshot.sites.get(site_id)
        return site is not None and site.state in ("draining", "dark")

    def retry_after_seconds(self, why: Shortage) -> int:
        """When a client that is refused now should come back."""
        sites = [
            (site, self._records[site_id].power)
            for site_id, site in self.snapshot.sites.items()
            if site_id in self._records
        ]
        return retry_after_seconds(why, sites, self._rng)

    def shortage(self, model: str) -> Shortage:
        """Why there is no room for a model."""
        return shortage(self.snapshot.models.get(model, ()))

    def note_break(self, site_id: str, reason: str, count: int = 1) -> None:
        """Streams broke off there; they are told of together by `tell`."""
        key = (site_id, reason)
        self._breaks[key] = self._breaks.get(key, 0) + count

    def take_breaks(self) -> list[tuple[str, str, int]]:
        """Site, reason and number of the streams that broke off since the last call."""
        taken, self._breaks = self._breaks, {}
        return [(site_id, reason, count) for (site_id, reason), count in sorted(taken.items())]

    def tell(self) -> None:
        """Turn broken streams and changed breakers since the last call into events."""
        for site_id, reason, count in self.take_breaks():
            streams = "1 stream" if count == 1 else f"{count} streams"
            self._events.add("resume", f"{streams} broke off at {site_id} ({reason})", site_id=site_id)
        for site_id, entry in sorted(self.registry.entries.items()):
            is_open = entry.breaker.state != "closed"
            if is_open != entry.is_told_open:
                entry.is_told_open = is_open
                text = (
                    f"{site_id} fails requests: it gets none but a probe"
                    if is_open
                    else f"{site_id} is well again"
                )
                self._events.add("breaker", text, site_id=site_id, level="bad" if is_open else "good")

    # what the reader asks
    def known_sites(self) -> list[str]:
        """Ids of all sites that a record is kept of, sorted."""
        return sorted(self._records)

    def records(self, site_id: str) -> SiteRecords | None:
        """What is kept of a site."""
        return self._records.get(site_id)

    def take_report(self, raw: bytes, source: Source, site_id: str | None = None) -> None:
        """A site's report from the channel, the store or the site itself. `site_id`: whose it should be."""
        now = self._clock()
        if site_id is not None:
            kept = self._records.get(site_id)
            if kept is not None and kept.raw_report == raw:
                kept.note_heard(raw, source, now)
                return
        if self._refusals.has("SiteReport", site_id, raw):
            return
        try:
            report = SiteReport.from_json(raw)
        except RecordError as error:
            self._refusals.add("SiteReport", error.reason, str(error), site_id, raw)
            return
        if site_id is not None and report.site_id != site_id:
            message = f"SiteReport of {report.site_id} under the name of {site_id}"
            self._refusals.add("SiteReport", "wrong_site", message, site_id, raw)
            return
        kept = self._records.get(report.site_id)
        if kept is None:
            if len(self._records) >= MAX_SITES:
                self._refusals.add(
                    "SiteReport", "too_many_sites", f"more than {MAX_SITES} sites", site_id, raw
                )
                return
            kept = SiteRecords(report.site_id, max_clock_skew_seconds=self._max_skew)
        elif kept.raw_report == raw:
            kept.note_heard(raw, source, now)
            return
        unix_now = self._unix_clock()
        try:
            self._trust.check(report, raw, unix_now=unix_now)
        except RecordError as error:
            self._refusals.add("SiteReport", error.reason, str(error), report.site_id, raw)
            return
        refusal = kept.take_report(raw, report, source, now=now, unix_now=unix_now)
        if refusal is not None:
            if refusal.is_worth_saying:
                self._refusals.add("SiteReport", refusal.reason, refusal.message, report.site_id, raw)
            return
        self._records[report.site_id] = kept
        self._check_clock(kept)
        self._resolve(kept, report)
        self.on_record("report", report.site_id, raw)

    def take_info(self, raw: bytes, site_id: str) -> None:
        """A SiteInfo from the store."""
        kept = self._records.get(site_id)
        if kept is None or kept.raw_info == raw or self._refusals.has("SiteInfo", site_id, raw):
            return
        unix_now = self._unix_clock()
        try:
            info = self._trust.read(SiteInfo, raw, unix_now=unix_now)
        except RecordError as error:
            self._refusals.add("SiteInfo", error.reason, str(error), site_id, raw)
            return
        if info.site_id != site_id:
            self._refusals.add("SiteInfo", "wrong_site", f"SiteInfo of {info.site_id}", site_id, raw)
            return
        refusal = kept.take_info(raw, info, now=self._clock(), unix_now=unix_now)
        if refusal is not None:
            if refusal.is_worth_saying:
                self._refusals.add("SiteInfo", refusal.reason, refusal.message, site_id, raw)
            return
        self._infos_taken += 1
        self._rebuild(kept)
        self.on_record("info", site_id, raw)

    def take_power(self, raw: bytes, site_id: str | None = None) -> None:
        """A PowerReading: for the operator's view, Retry-After, and policies that look ahead. What a site
        admits is its own affair, whatever this says."""
        if self._refusals.has("PowerReading", site_id, raw):
            return
        try:
            reading = PowerReading.from_json(raw)
        except RecordError as error:
            self._refusals.add("PowerReading", error.reason, str(error), site_id, raw)
            return
        kept = self._records.get(reading.site_id)
        if kept is None or kept.raw_power == raw or (site_id is not None and reading.site_id != site_id):
            return
        before = kept.power
        now, unix_now = self._clock(), self._unix_clock()
        try:
            self._trust.check(reading, raw, unix_now=unix_now)
        except RecordError as error:
            self._refusals.add("PowerReading", error.reason, str(error), reading.site_id, raw)
            return
        refusal = kept.take_power(raw, reading, now=now, unix_now=unix_now)
        if refusal is not None:
            if refusal.is_worth_saying:
                self._refusals.add("PowerReading", refusal.reason, refusal.message, reading.site_id, raw)
            return
        self.snapshot = self.snapshot.with_power(power_outlook(reading, arrived_at=now))
        self.on_record("power", reading.site_id, raw)
        if before is not None:
            step = reading.granted_power_watts - before.granted_power_watts
            if abs(step) > POWER_STEP_RATIO * reading.nameplate_capacity_watts > 0:
                verb = "rises" if step > 0 else "falls"
                text = (
                    f"power of {reading.site_id} {verb} from {before.granted_power_watts / 1000:.1f}"
                    f" to {reading.granted_power_watts / 1000:.1f} kW"
                )
                level: EventLevel = "good" if step > 0 else "warning"
                self._events.add("power", text, site_id=reading.site_id, level=level)

    def take_cordon(self, raw: bytes, site_id: str) -> None:
        """An operator's word on a site; b"": there is none. A refused one leaves the last, to its end."""
        unix_now = self._unix_clock()
        if self._refusals.has("Cordon", site_id, raw):
            raw = self.cordons.raw_of(site_id)
        try:
            change = self.cordons.take(raw, site_id, unix_now)
        except RecordError as error:
            self._refusals.add("Cordon", error.reason, str(error), site_id, raw)
            raw = self.cordons.raw_of(site_id)
            change = self.cordons.take(raw, site_id, unix_now)
        if not change:
            return
        level: EventLevel = "good" if self.cordons.of(site_id) is None else "warning"
        self._events.add("cordon", change, site_id=site_id, level=level)
        self.on_record("cordon", site_id, raw)
        if (kept := self._records.get(site_id)) is not None:
            self._rebuild(kept)

    def refuse(self, kind: str, reason: str, message: str) -> None:
        """Count and tell of a record that somebody else has judged."""
        self._refusals.add(kind, reason, message, None, b"")

    def infos(self) -> dict[str, SiteInfo]:
        """Of every site that says what it is."""
        return {site_id: kept.info for site_id, kept in self._records.items() if kept.info is not None}

    def take_plan(self, raw: bytes) -> None:
        """A plan from its channel or the store."""
        looked = (raw, self._infos_taken)
        if (raw and raw == self.plans.raw) or looked == self._plan_refused:
            return
        try:
            view = self.plans.take(raw, self.infos(), now=self._clock(), unix_now=self._unix_clock())
        except PlanRefusedError as error:
            if self._plan_refused is None or self._plan_refused[0] != raw:
                self._refusals.add("Plan", error.reason, str(error), None, raw)
            if error.reason != "second_writer":  # that one is heard once the first is silent
                self._plan_refused = looked  # it is read every second, and may be used once a site is known
            return
        if view is not None:
            self.snapshot = self.snapshot.with_plan(view)
            self.on_record("plan", "", raw)
            self.on_change()

    def forget_absent(self, site_id: str) -> None:
        """The store has no report of this site: forget it once it has been silent for the TTL."""
        kept = self._records.get(site_id)
        if kept is not None and self._clock() - kept.arrived_at > FORGET_SECONDS:
            self.forget(site_id)

    def forget(self, site_id: str) -> None:
        """The site is no longer known."""
        if self._records.pop(site_id, None) is None:
            return
        self._refusals.forget(site_id)
        self.registry.forget(site_id)
        self.snapshot = self.snapshot.without_site(site_id)
        self._events.add(
            "site_forgotten",
            f"{site_id} is gone: no report for {FORGET_SECONDS:g} s",
            site_id=site_id,
            level="bad",
        )
        self.on_record("forgotten", site_id, b"")
        self.on_change()

    def aclose(self) -> None:
        """Stop what is still being looked up."""
        for task in self._look_ups:
            task.cancel()

    # records to snapshot
    def _resolve(self, kept: SiteRecords, report: SiteReport) -> None:
        """Find out where the site may be called, then rebuild its view."""
        now = self._clock()
        if report.ingress_url == kept.checked_url and kept.origin is not None:
            self._rebuild(kept)
            if now - kept.checked_at <= NAME_CHECK_SECONDS or not kept.is_name:
                return
        elif report.ingress_url != kept.checked_url:
            kept.origin = None
            kept.checked_url = report.ingress_url
        elif now - kept.checked_at <= NAME_CHECK_SECONDS:
            return  # not allowed, and said so
        kept.checked_at = now
        try:
            kept.origin = check_literal(report.ingress_url, self._networks) or kept.origin
            kept.is_name = check_literal(report.ingress_url, self._networks) is None
        except NotAllowedError as error:
            self._not_allowed(kept, error)
            return
        if kept.is_name:
            task = asyncio.get_running_loop().create_task(self._look_up(kept, report.ingress_url))
            self._look_ups.add(task)
            task.add_done_callback(self._look_ups.discard)
        else:
            self._rebuild(kept)

    async def _look_up(self, kept: SiteRecords, ingress_url: str) -> None:
        try:
            origin = await check_name(ingress_url, self._networks)
        except NotAllowedError as error:
            if kept.checked_url == ingress_url:
                self._not_allowed(kept, error)
            return
        if kept.checked_url == ingress_url:
            kept.origin = origin
            self._rebuild(kept)

    def _not_allowed(self, kept: SiteRecords, error: NotAllowedError) -> None:
        kept.origin = None
        self._refusals.add("SiteReport", "ingress_url", str(error), kept.site_id, kept.raw_report)
        if kept.site_id in self.snapshot.sites:
            self.snapshot = self.snapshot.without_site(kept.site_id)

    def _rebuild(self, kept: SiteRecords) -> None:
        """Put a site's newest records into the snapshot."""
        report = kept.report
        if report is None or kept.origin is None or self._records.get(kept.site_id) is not kept:
            return
        before = self.snapshot.sites.get(kept.site_id)
        view = view_of(
            report,
            kept.info,
            arrived_at=kept.arrived_at,
            is_confirmed=kept.is_confirmed,
            known_models=kept.known_models(),
            cordon=self.cordons.of(kept.site_id),
        )
        entry = self.registry.entry(kept.site_id, kept.origin)
        is_newer = before is None or before.sequence != view.sequence
        for model in view.models:
            load = self.registry.load(model.model, entry)
            if is_newer:
                load.reported(model)
        self.snapshot = self.snapshot.with_site(view)
        self.has_known_sites = True
        if before is not None and before.agent_id != view.agent_id:
            entry.breaker.allow_probe()
        if (change := state_change(before, view)) is not None:
            self._events.add(change.kind, change.text, site_id=kept.site_id, level=change.level)
        self.on_change()

    def _check_clock(self, kept: SiteRecords) -> None:
        """Alarm when a site's clock begins to be off; nothing is decided by it."""
        is_skewed = abs(kept.skew_seconds) > self._max_skew
        if is_skewed and not kept.is_skewed:
            text = f"the clock of {kept.site_id} is off by {-kept.skew_seconds:.1f} s: check its NTP"
            self._events.add("clock", text, site_id=kept.site_id)
        kept.is_skewed = is_skewed
