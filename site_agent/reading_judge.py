"""Which power readings are used, of all that comes by either path (DESIGN §4). Refusals are counted and said.

Rules: only this site's, by a feed that is believed, and what `fleet.intake` lets through. The writer's clock
is compared, never believed.
"""

from __future__ import annotations

import logging
from collections import Counter

from fleet.intake import RecordJudge
from fleet.records import PowerReading
from fleet.signing import BELIEVES_ALL, RecordTrust
from fleet.wire import RecordError

logger = logging.getLogger(__name__)

SAY_AGAIN_SECONDS = 60.0
"""The same kind of refusal is logged no more often."""


class IntakeJudge:
    """Implements `site_agent.power_follow.ReadingJudge`."""

    def __init__(
        self, *, site_id: str, max_clock_skew_seconds: float, trust: RecordTrust = BELIEVES_ALL
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.clock_skew_seconds: float | None = None
        """Clock here less the writer's at the last new measurement, transport included, as far as it is sure:
        one may be heard up to a period after it was made, as when the agent starts in between."""
        self._site_id = site_id
        self._trust = trust
        self._max_clock_skew_seconds = max_clock_skew_seconds
        self._records = RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds)
        self._observed_at_unix_seconds: float | None = None
        self._said_at: dict[str, float] = {}

    def take(self, raw: bytes, *, now: float, unix_now: float) -> PowerReading | None:
        """The reading, if it is new and may be used."""
        try:
            reading = self._trust.read(PowerReading, raw, unix_now=unix_now)
        except RecordError as error:
            self._refuse(error.reason, str(error), now)
            return None
        if reading.site_id != self._site_id:
            self._refuse("wrong_site", f"a reading of site {reading.site_id}", now)
            return None
        refusal = self._records.judge(reading, now=now, unix_now=unix_now)
        if refusal is not None:
            if refusal.is_worth_saying:
                self._refuse(refusal.reason, refusal.message, now)
            return None
        if reading.observed_at_unix_seconds != self._observed_at_unix_seconds:
            self._observed_at_unix_seconds = reading.observed_at_unix_seconds
            age = unix_now - reading.observed_at_unix_seconds
            self.clock_skew_seconds = min(age, max(0.0, age - reading.period_seconds))
            if abs(self.clock_skew_seconds) > self._max_clock_skew_seconds:
                self._say("clock_skew", f"the feed's clock is off by {self.clock_skew_seconds:.1f} s", now)
        return reading

    def sequence_of(self, raw: bytes) -> int | None:
        """Of a reading that the feed wrote, whenever that was; None: it did not."""
        try:
            return self._trust.read(PowerReading, raw, unix_now=None).sequence
        except RecordError:
            return None

    def _refuse(self, reason: str, message: str, now: float) -> None:
        self.refused[reason] += 1
        self._say(reason, message, now)

    def _say(self, reason: str, message: str, now: float) -> None:
        if now - self._said_at.get(reason, float("-inf")) >= SAY_AGAIN_SECONDS:
            self._said_at[reason] = now
            logger.warning("power reading: %s", message, extra={"reason": reason})
