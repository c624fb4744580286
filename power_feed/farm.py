"""One farm's way from its source to its sites' readings, and when the next ones are due. Pure.

Readings are due `interval` after the last ones, and at once when there is a newer measurement. All sites of a
farm are read together, since they share its power.

A feed that starts anew at a farm of several sites first waits, at most START_WAIT_SECONDS, until it knows
what each of them has: to say 0 W before that would break off what runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.power import WALK_END_PERIODS, CapRule, CapTracker
from fleet.records import ForecastPoint, PowerReading, next_sequence
from power_feed.allocator import Allocator, SiteClaim
from power_feed.forecast import PowerForecaster, QuantileForecast
from power_feed.outlook import site_forecasts
from power_feed.quality import QualityChecker, Verdict
from power_feed.readings import Farm, Origin, power_reading
from power_feed.sources.interface import Source

MIN_SPACING_SECONDS = 0.02
"""Between two readings of a site: a source that changes faster is sampled."""
LOG_SECONDS = 60.0
"""Between two entries of the power log (DESIGN §4: one a minute)."""
MAX_SOURCE_CHARACTERS = 512
"""Of a reading's `source`."""
START_WAIT_SECONDS = 2.5
"""Caps begin to walk down after 3 s of silence at the earliest (3 T, T ≥ 1 s)."""
MAX_SILENT_PERIOD_SECONDS = 10.0
"""How often a source speaks that has said nothing since the start is not known: no longer than this."""


@dataclass(slots=True, kw_only=True)
class FarmFeed:
    """The state that a farm's readings depend on."""

    farm: Farm
    site_ids: tuple[str, ...]
    source: Source
    checker: QualityChecker
    allocator: Allocator
    forecaster: PowerForecaster
    feed_id: str
    interval_seconds: float = 1.0
    source_digest: str = ""
    """Of how the source is read (`source_digest`)."""
    verdict: Verdict | None = None
    """Of the last `read`."""
    readings: tuple[PowerReading, ...] = ()
    """The last ones made; empty before anything was measured."""
    _sequences: dict[str, int] = field(default_factory=dict)
    _highest_seen: dict[str, int] = field(default_factory=dict)
    _restored: set[str] = field(default_factory=set)
    """Only asked for members, never iterated."""
    _has_allocated: bool = False
    _began_at: float | None = None
    _read_at: float | None = None
    _sampled_at_unix_seconds: float = 0.0
    _logged_at: float | None = None
    _shareable: CapTracker = field(
        default_factory=lambda: CapTracker(rule=CapRule(max_site_watts=math.inf, margin_ratio=0.0))
    )
    """What may be shared out: follows the measurements as a site's cap follows its readings."""
    _forecast_at: float | None = None
    _forecast: tuple[QuantileForecast, ...] = ()

    def read(
        self, *, now: float, unix_seconds: float, claims: Sequence[SiteClaim]
    ) -> tuple[PowerReading, ...]:
        """Measure, judge and share out; empty as long as nothing usable was ever measured.

        `now` is monotonic and paces; `unix_seconds` is the wall's, for the source and a first sequence.
        `claims`: one per site, in the order of `site_ids`.
        """
        self._read_at = now
        self._began_at = now if self._began_at is None else self._began_at
        self._sampled_at_unix_seconds = unix_seconds
        self.verdict = self.checker.judge(self.source.measurement(unix_seconds), unix_seconds)
        if self.verdict is None or self._is_waiting(claims, now):
            return ()
        if self.verdict.quality == "good":
            self.forecaster.observe(
                self.verdict.watts, self.verdict.observed_at_unix_seconds * self.source.speed
            )
        grants = self.allocator.allocate(self._shareable_watts(self.verdict, now), claims, now)
        self._has_allocated = True
        forecasts = self._forecasts(self.verdict, claims)
        origin = Origin(
            feed_id=self.feed_id,
            period_seconds=self.source.period_seconds,
            source=self.source_name,
        )
        self.readings = tuple(
            power_reading(
                self.farm,
                self.verdict,
                origin,
                site_id=site_id,
                sequence=self._next_sequence(site_id, unix_seconds),
                granted_watts=grants[site_id],
                forecast=forecasts[site_id],
            )
            for site_id in self.site_ids
        )
        return self.readings

    @property
    def source_name(self) -> str:
        """As in readings: what it is, and the check sum of how it is read, by which a log is known again."""
        suffix = f" #{self.source_digest}" if self.source_digest else ""
        return self.source.description[: MAX_SOURCE_CHARACTERS - len(suffix)] + suffix

    def seconds_until_due(self, *, now: float, unix_seconds: float) -> float:
        """How long until the next `read`; 0 or less: now.

        A wall clock that was set back makes it due at once: the source must be asked anew.
        """
        if self._read_at is None or unix_seconds < self._sampled_at_unix_seconds:
            return 0.0
        wait = self._read_at + self.interval_seconds - now
        change = self.source.next_change_after(self._sampled_at_unix_seconds)
        if change is not None:
            wait = min(wait, change - unix_seconds)
        return max(wait, self._read_at + MIN_SPACING_SECONDS - now)

    def is_silent(self, now: float) -> bool:
        """Whether its source has said nothing since the start for so long that a cap would have walked to its
        floor: no site has power by it, and a server draws idle all the same."""
        if self._began_at is None or self.verdict is not None:
            return False
        period_seconds = min(self.source.period_seconds, MAX_SILENT_PERIOD_SECONDS)
        return now - self._began_at >= START_WAIT_SECONDS + WALK_END_PERIODS * period_seconds

    def has_counted(self, heard_at: float | None) -> bool:
        """Whether power was shared out since a report came at that time."""
        return heard_at is not None and self._read_at is not None and heard_at <= self._read_at

    def is_log_due(self, now: float) -> bool:
        """Whether the readings made at `now` belong in the power log; saying so once a minute."""
        if self._logged_at is not None and now - self._logged_at < LOG_SECONDS:
            return False
        self._logged_at = now
        return True

    def restart(self, source: Source, forecaster: PowerForecaster) -> None:
        """Go on with the same record, now that its start is known; what stood still taught nothing."""
        self.source = source
        self.forecaster = forecaster
        self._forecast_at = None
        self._read_at = None

    def take_forecaster(self, forecaster: PowerForecaster) -> None:
        """One that knows more; it is shown the measurement of this moment with the next `read`."""
        self.forecaster = forecaster
        self._forecast_at = None

    def note_reading(self, reading: PowerReading, *, now: float, signed_seconds: float | None = None) -> None:
        """A reading of one of the sites was found in the store, whoever wrote it: the next one is higher.

        Before anything was shared out, it also says what the site was granted: unless it was signed longer
        ago than a site follows a grant, since an old one may have been put there.
        """
        site_id = reading.site_id
        self._highest_seen[site_id] = max(reading.sequence, self._highest_seen.get(site_id, 0))
        is_recent = signed_seconds is None or abs(signed_seconds) <= self.allocator.walk_seconds
        if is_recent and not self._has_allocated:
            self.allocator.restore(site_id, reading.granted_power_watts, now=now)
            self._restored.add(site_id)

    def _is_waiting(self, claims: Sequence[SiteClaim], now: float) -> bool:
        assert self._began_at is not None, "set by read"
        if self._has_allocated or len(claims) == 1 or now - self._began_at >= START_WAIT_SECONDS:
            return False
        return any(claim.heard_at is None and claim.site_id not in self._restored for claim in claims)

    def _shareable_watts(self, verdict: Verdict, now: float) -> float:
        """A measurement that is not good may lower what is shared out, never raise it; and without a new good
        one it walks down to 0, from 3 to 10 periods: as the caps do, so that servers go off with them.

        The first counts whatever it is: to share out 0 W would break off what runs, and by one that is not
        good no site raises its cap.
        """
        self._shareable.observe(
            granted_watts=self.farm.deliverable_watts(verdict.watts),
            period_seconds=self.source.period_seconds,
            quality=verdict.quality if self._has_allocated else "good",
            observed_at_unix_seconds=verdict.observed_at_unix_seconds,
            now=now,
        )
        return self._shareable.cap_watts(now)

    def _forecasts(
        self, verdict: Verdict, claims: Sequence[SiteClaim]
    ) -> dict[str, tuple[ForecastPoint, ...]]:
        if self._forecast_at != verdict.observed_at_unix_seconds or not self._forecast:
            self._forecast_at = verdict.observed_at_unix_seconds
            self._forecast = self.forecaster.quantiles()
        return site_forecasts(
            self._forecast,
            self.allocator.in_order(claims),
            deliverable_watts=self.farm.deliverable_watts,
            speed=self.source.speed,
        )

    def _next_sequence(self, site_id: str, unix_seconds: float) -> int:
        sequence = next_sequence(
            self._sequences.get(site_id), self._highest_seen.get(site_id), int(unix_seconds * 1000)
        )
        self._sequences[site_id] = sequence
        return sequence
