"""One farm's way from its source to its site's readings, and when the next one is due. Pure.

A reading is due `interval` after the last one, and at once when there is a newer measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.records import PowerReading, next_sequence
from power_feed.quality import QualityChecker, Verdict
from power_feed.readings import Farm, power_reading
from power_feed.sources.interface import Source

MIN_SPACING_SECONDS = 0.02
"""Between two readings of a site: a source that changes faster is sampled."""
LOG_SECONDS = 60.0
"""Between two entries of the power log (DESIGN §4: one a minute)."""


@dataclass(slots=True, kw_only=True)
class FarmFeed:
    """The state that a farm's readings depend on."""

    farm: Farm
    source: Source
    checker: QualityChecker
    feed_id: str
    interval_seconds: float = 1.0
    verdict: Verdict | None = None
    """Of the last `read`."""
    reading: PowerReading | None = None
    """The last one made; None before anything was measured."""
    _sequence: int | None = None
    _highest_seen: int | None = None
    _read_at: float | None = None
    _sampled_at_unix_seconds: float = 0.0
    _logged_at: float | None = None

    def read(self, *, now: float, unix_seconds: float) -> PowerReading | None:
        """Measure and judge; None as long as nothing usable was ever measured.

        `now` is monotonic and paces; `unix_seconds` is the wall's, for the source and a first sequence.
        """
        self._read_at = now
        self._sampled_at_unix_seconds = unix_seconds
        self.verdict = self.checker.judge(self.source.measurement(unix_seconds), unix_seconds)
        if self.verdict is None:
            return None
        self._sequence = next_sequence(self._sequence, self._highest_seen, int(unix_seconds * 1000))
        self.reading = power_reading(
            self.farm,
            self.verdict,
            feed_id=self.feed_id,
            sequence=self._sequence,
            period_seconds=self.source.period_seconds,
            source=self.source.description,
        )
        return self.reading

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

    def is_log_due(self, now: float) -> bool:
        """Whether the reading made at `now` belongs in the power log; saying so once a minute."""
        if self._logged_at is not None and now - self._logged_at < LOG_SECONDS:
            return False
        self._logged_at = now
        return True

    def restart(self, source: Source) -> None:
        """Go on with the same record, now that its start is known."""
        self.source = source
        self._read_at = None

    def note_sequence(self, sequence: int) -> None:
        """A reading of this site was seen with that sequence, whoever wrote it: the next one is higher."""
        self._highest_seen = max(sequence, self._highest_seen or 0)
