"""Which power readings are used, of all that comes by either path (DESIGN §4). Refusals are counted and said.

Rules: only this site's; each sequence once, and only upwards; one writer, until it has been silent for
`WRITER_SILENCE_SECONDS`. The writer's clock is compared, never believed.
"""

from __future__ import annotations

import logging
from collections import Counter

from fleet.records import PowerReading
from fleet.wire import RecordError

logger = logging.getLogger(__name__)

WRITER_SILENCE_SECONDS = 2.0
"""A feed that is restarted writes under a new id: it is heard after this, before any cap walks down."""
MAX_AHEAD_MILLISECONDS = 10 * 365 * 86_400 * 1000
"""Sequences begin at a writer's Unix milliseconds. One of ten years ahead would shut every later one out."""
SAY_AGAIN_SECONDS = 60.0
"""The same kind of refusal is logged no more often."""


class IntakeJudge:
    """Implements `site_agent.power_follow.ReadingJudge`."""

    def __init__(self, *, site_id: str, max_clock_skew_seconds: float) -> None:
        self.refused: Counter[str] = Counter()
        self.clock_skew_seconds: float | None = None
        """Clock here less the writer's at the last new measurement, transport included."""
        self._site_id = site_id
        self._max_clock_skew_seconds = max_clock_skew_seconds
        self._writer_id: str | None = None
        self._heard_at = float("-inf")
        self._sequence = -1
        self._observed_at_unix_seconds: float | None = None
        self._said_at: dict[str, float] = {}

    def take(self, raw: bytes, *, now: float, unix_now: float) -> PowerReading | None:
        """The reading, if it is new and may be used."""
        try:
            reading = PowerReading.from_json(raw)
        except RecordError as error:
            self._refuse(error.reason, str(error), now)
            return None
        if reading.site_id != self._site_id:
            self._refuse("wrong_site", f"a reading of site {reading.site_id}", now)
            return None
        if reading.sequence > unix_now * 1000 + MAX_AHEAD_MILLISECONDS:
            self._refuse("far_sequence", f"sequence {reading.sequence} is from no clock", now)
            return None
        is_other = self._writer_id is not None and reading.writer_id != self._writer_id
        if is_other and now - self._heard_at < WRITER_SILENCE_SECONDS:
            message = f"feed {reading.writer_id} writes while {self._writer_id} does: stop one of them"
            self._refuse("second_writer", message, now)
            return None
        if reading.sequence <= self._sequence:
            if is_other or reading.sequence < self._sequence:
                self._refuse("stale", f"sequence {reading.sequence} after {self._sequence}", now)
            return None  # the same one by the other path is no refusal
        self._writer_id, self._sequence, self._heard_at = reading.writer_id, reading.sequence, now
        if reading.observed_at_unix_seconds != self._observed_at_unix_seconds:
            self._observed_at_unix_seconds = reading.observed_at_unix_seconds
            self.clock_skew_seconds = unix_now - reading.observed_at_unix_seconds
            if abs(self.clock_skew_seconds) > self._max_clock_skew_seconds:
                self._say("clock_skew", f"the feed's clock is off by {self.clock_skew_seconds:.1f} s", now)
        return reading

    def _refuse(self, reason: str, message: str, now: float) -> None:
        self.refused[reason] += 1
        self._say(reason, message, now)

    def _say(self, reason: str, message: str, now: float) -> None:
        if now - self._said_at.get(reason, float("-inf")) >= SAY_AGAIN_SECONDS:
            self._said_at[reason] = now
            logger.warning("power reading: %s", message, extra={"reason": reason})
