"""The last good records of one site, and what is refused of those that come after them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from fleet.intake import MAX_CLOCK_SKEW_SECONDS, RecordJudge, Refusal
from fleet.records import MAX_SITE_MODELS, PowerReading, SiteInfo, SiteReport
from gateway.upstream import Origin

Source = Literal["event", "store", "poll"]


class SiteRecords:
    """Mutable, one per site; `FleetView` owns it."""

    def __init__(self, site_id: str, *, max_clock_skew_seconds: float = MAX_CLOCK_SKEW_SECONDS) -> None:
        self.site_id = site_id
        self._reports = RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds)
        self._infos = RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds)
        self._powers = RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds)
        self.report: SiteReport | None = None
        self.raw_report = b""
        self._raw_by = {"event": b"", "store": b""}
        """What each brought last."""
        self.info: SiteInfo | None = None
        self.raw_info = b""
        self.power: PowerReading | None = None
        self.raw_power = b""
        self.arrived_at = 0.0
        """When the newest report's sequence first arrived, by any way."""
        self.stored_at = float("-inf")
        """When the store or its channel last brought anything new of the site."""
        self.is_confirmed = False
        """The sequence has advanced since this router first saw the site."""
        self.skew_seconds = 0.0
        """Clock here less clock there, as the newest report arrived. Compared, never believed."""
        self.is_skewed = False
        """Said to be off by too much."""
        self.is_clock_off = False
        self._models: tuple[str, ...] = ()
        """Of the last report that served; until one does, of the first that listed any."""
        # where it is
        self.origin: Origin | None = None
        """None until its ingress_url was found allowed."""
        self.checked_url = ""
        self.checked_at = float("-inf")
        self.is_name = False
        """The URL holds a name, to be looked up again now and then."""

    def take_report(
        self, raw: bytes, report: SiteReport, source: Source, *, now: float, unix_now: float
    ) -> Refusal | None:
        """Use a report, or say why not."""
        refusal = self._reports.judge(report, now=now, unix_now=unix_now)
        if refusal is not None:
            return refusal
        self.is_confirmed = self.report is not None and report.sequence > self.report.sequence
        self.report = report
        self.raw_report = raw
        self.arrived_at = now
        self.skew_seconds = unix_now - report.observed_at_unix_seconds
        self.note_heard(raw, source, now)
        if report.state == "serving" or not self._models:
            self._models = tuple(entry.model for entry in report.models)
        return None

    def note_heard(self, raw: bytes, source: Source, now: float) -> None:
        """Word of the site has come: anything new on the channel or in the store."""
        if source != "poll" and raw != self._raw_by[source]:
            self.stored_at = now
            self._raw_by[source] = raw

    def take_info(self, raw: bytes, info: SiteInfo, *, now: float, unix_now: float) -> Refusal | None:
        """Use a SiteInfo, or say why not."""
        refusal = self._infos.judge(info, now=now, unix_now=unix_now)
        if refusal is None:
            self.info, self.raw_info = info, raw
        return refusal

    def take_power(self, raw: bytes, reading: PowerReading, *, now: float, unix_now: float) -> Refusal | None:
        """Use a power reading, or say why not."""
        refusal = self._powers.judge(reading, now=now, unix_now=unix_now)
        if refusal is None:
            self.power, self.raw_power = reading, raw
        return refusal

    def known_models(self) -> Collection[str]:
        """Of a site that does not serve now: what it lists, had before, or says it can run, up to a limit."""
        if self.report is None or self.report.state == "serving":
            return ()
        listed = (entry.model for entry in self.report.models)
        configured = () if self.info is None else (entry.model for entry in self.info.configurations)
        return tuple(dict.fromkeys((*listed, *self._models, *configured)))[:MAX_SITE_MODELS]
