"""Judges a farm's measurements (DESIGN §8): good, suspect or fallback. Pure.

Rule: marked, never mended. A suspicious fall is obeyed at once; a suspicious rise stays suspect until two
further measurements agree with it, and readers do not raise a cap on a suspect reading.

    missing, not_a_number, stale   nothing usable: fallback, the last good value repeated
    negative                       suspect, as a fall to 0 (a record cannot hold less)
    above_nameplate                suspect for as long as it lasts
    stuck                          the same value, not at 0 or rated, so many times: suspect
    ramp                           faster than a farm can change: suspect; a fall for one measurement, a rise
                                   until it is confirmed
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from fleet.records import PowerQuality
from power_feed.sources.interface import Measurement

Check = Literal["missing", "not_a_number", "stale", "negative", "above_nameplate", "stuck", "ramp"]

CHECKS: tuple[Check, ...] = (
    "missing",
    "not_a_number",
    "stale",
    "negative",
    "above_nameplate",
    "stuck",
    "ramp",
)
CONFIRMATIONS = 2
"""Further measurements that must agree with a suspicious rise (DESIGN §8)."""
SHORTEST_RAMP_SECONDS = 1.0
"""Measurements closer together are judged as if a second apart: their difference is noise, not a ramp."""
MAX_WATTS = 1e12
"""More than all turbines of the world; what a register that is "not implemented" often reads as."""
STILL_RATIO = 0.005
RATED_RATIO = 0.98
"""Of nameplate: at or beyond these a farm may well stand at one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimits:
    """What is plausible for one farm."""

    nameplate_watts: float
    period_seconds: float
    """Wall seconds between two measurements."""
    speed: float = 1.0
    """Seconds of the source in a wall second."""
    nameplate_tolerance_ratio: float = 0.02
    """Meters at rated power read a little above it."""
    max_ramp_ratio_per_second: float = 0.1
    """Of nameplate, in the source's own time. 10 %/s is what a turbine's pitch allows; a farm is slower. A
    step of ten seconds or more can thus be anything, which real 5- and 15-minute records need."""
    agreement_ratio: float = 0.1
    """Of nameplate: how near a measurement must come to confirm a rise."""
    stuck_measurements: int = 12
    """FTS-213 has 9 runs of that length in its worst area's year, RTS-GMLC none; 0: never stuck."""
    stale_periods: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A measurement and what it is worth."""

    watts: float
    """As measured; the last good value where `quality` is fallback; 0 where it was negative."""
    quality: PowerQuality
    observed_at_unix_seconds: float
    failed: tuple[Check, ...] = ()


@dataclass(slots=True, kw_only=True)
class QualityChecker:
    """Judges one farm's measurements as they come."""

    limits: QualityLimits
    _verdict: Verdict | None = None
    """Of the latest measurement that was one."""
    _last_good: Verdict | None = None
    _seen_at: float = float("-inf")
    """Observation time of the latest measurement."""
    _judged_watts: float = math.nan
    """What was measured when it was judged last."""
    _accepted_watts: float | None = None
    """What ramps are measured from: the last value that was believed or obeyed."""
    _accepted_at: float = 0.0
    _rise_watts: float | None = None
    """A suspicious rise that waits for confirmation."""
    _confirmations: int = 0
    _run_watts: float = field(default=math.nan)
    _run: int = 0

    def judge(self, measurement: Measurement, at_unix_seconds: float) -> Verdict | None:
        """What is known at that instant; None before anything usable was ever measured.

        The same measurement may be shown again and again: it is judged once, also where the clock is set
        back meanwhile, and counts as stale after `stale_periods`. A repeat of the value that was judged last
        is only newer.
        """
        watts = measurement.watts
        if watts is None:
            return self._fallback("missing")
        if not abs(watts) <= MAX_WATTS:
            return self._fallback("not_a_number")
        is_known = measurement.observed_at_unix_seconds == self._seen_at
        if at_unix_seconds < self._seen_at and not is_known:
            # the clock was set back: a period has passed, as far as is known
            self._seen_at = float("-inf")
            before = measurement.observed_at_unix_seconds - self.limits.period_seconds
            self._accepted_at = min(self._accepted_at, before)
        if measurement.observed_at_unix_seconds > self._seen_at:
            self._seen_at = measurement.observed_at_unix_seconds
            if measurement.is_repeat and watts == self._judged_watts and self._verdict is not None:
                self._verdict = replace(self._verdict, observed_at_unix_seconds=self._seen_at)
            else:
                self._verdict = self._judge_new(watts, self._seen_at, is_held=measurement.is_held)
                self._judged_watts = watts
            if self._verdict.quality == "good":
                self._last_good = self._verdict
        if at_unix_seconds - self._seen_at > self.limits.stale_periods * self.limits.period_seconds:
            return self._fallback("stale")
        return self._verdict

    def _fallback(self, check: Check) -> Verdict | None:
        known = self._last_good or self._verdict
        if known is None:
            return None
        return Verdict(
            watts=known.watts,
            quality="fallback",
            observed_at_unix_seconds=known.observed_at_unix_seconds,
            failed=(check,),
        )

    def _judge_new(self, measured: float, at: float, *, is_held: bool) -> Verdict:
        limits = self.limits
        failed: list[Check] = []
        watts = measured
        if measured < 0:
            failed.append("negative")
            watts = 0.0
        above = watts > limits.nameplate_watts * (1 + limits.nameplate_tolerance_ratio)
        if above:
            failed.append("above_nameplate")
        if self._is_stuck(watts) and not is_held:
            failed.append("stuck")
        if self._is_impossible(watts, at) and not self._is_confirmed(watts):
            failed.append("ramp")
        if not above and ("ramp" not in failed or watts < (self._accepted_watts or 0.0)):
            self._accept(watts, at)
        return Verdict(
            watts=watts,
            quality="suspect" if failed else "good",
            observed_at_unix_seconds=at,
            failed=tuple(failed),
        )

    def _accept(self, watts: float, at: float) -> None:
        self._accepted_watts = watts
        self._accepted_at = at
        self._rise_watts = None
        self._confirmations = 0

    def _is_stuck(self, watts: float) -> bool:
        if watts == self._run_watts:
            self._run += 1
        else:
            self._run_watts, self._run = watts, 1
        ratio = watts / self.limits.nameplate_watts
        enough = 0 < self.limits.stuck_measurements <= self._run
        return enough and STILL_RATIO < ratio < RATED_RATIO

    def _allowed_watts(self, since: float, at: float) -> float:
        """How far a farm's power can move between two instants."""
        seconds = max((at - since) * self.limits.speed, SHORTEST_RAMP_SECONDS)
        return self.limits.max_ramp_ratio_per_second * seconds * self.limits.nameplate_watts

    def _is_impossible(self, watts: float, at: float) -> bool:
        if self._accepted_watts is None:
            return False
        return abs(watts - self._accepted_watts) > self._allowed_watts(self._accepted_at, at)

    def _is_confirmed(self, watts: float) -> bool:
        """Count this measurement for or against the rise that waits; a fall never waits."""
        if watts <= (self._accepted_watts or 0.0):
            return False
        near = self.limits.agreement_ratio * self.limits.nameplate_watts
        if self._rise_watts is not None and abs(watts - self._rise_watts) <= near:
            self._confirmations += 1
        else:
            self._confirmations = 0
        self._rise_watts = watts
        return self._confirmations >= CONFIRMATIONS
