"""The cap that the governor plans with: the lowest of late, and less where it falls or trembles. Pure.

Four cases apart from the plain "follow it down at once":

* a rise counts only when it has lasted `hold_seconds`;
* a ramp — the cap fell in each of the last three windows of about a second — is run ahead of: each second's
  fall would otherwise put the draw above the cap again, and an episode is not restarted by a further fall
  (DESIGN §7). A single drop, even one spread over two readings, touches two windows at most;
* turbulence — the root mean square of the small falls of the last minutes — is kept as headroom, so that it
  starts no episode;
* a fall that the forecast expects (its median) counts before it comes, for what takes long: see `soon_watts`.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from site_agent.recent import RecentMost
from site_agent.situation import CapForecast

WINDOW_SECONDS = 1.05
"""A little more than the feed's interval, so that each window sees at least one reading."""
WINDOWS = 3
RAMP_SECONDS = WINDOWS * WINDOW_SECONDS
MAX_SAMPLES = 4096
"""At ten decisions a second, and more on events, far beyond the longest hold."""
TURBULENCE_SECONDS = 120.0
"""How long a small fall is remembered (time constant)."""
MAX_TURBULENT_FALL_RATIO = 0.05
"""A larger fall in one reading is no turbulence: the ladder is for that."""
LATER_SECONDS = (180.0, 1800.0)
"""What lies between is looked at to choose what to start, or to re-shard: sooner it is not there, and later
neither the forecast is sure of much nor the choice bound."""
MAX_TURBULENCE_RATIO = 0.10
"""Headroom for turbulence is at most this share of the cap."""


@dataclass(slots=True, kw_only=True)
class CapOutlook:
    """Feeds on the cap at every decision."""

    hold_seconds: float
    horizon_seconds: float
    """How far ahead of a ramp: the time that a whole drain takes."""
    floor_watts: float = 0.0
    """Firm power: no ramp goes further than this."""
    _changes: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    """(since, cap): one entry for each value in turn."""
    _lows: RecentMost = field(init=False)
    """Of the outlook below zero: its most is the lowest outlook of the hold."""
    _turbulence: float = 0.0
    """Mean square of the small falls, per second."""
    _seen_at: float | None = None

    def __post_init__(self) -> None:
        self._lows = RecentMost(hold_seconds=self.hold_seconds)

    def observe(self, cap_watts: float, now: float) -> tuple[float, float]:
        """Take the cap at `now`; return (what to expect within the horizon, that held for `hold_seconds`)."""
        changes = self._changes
        elapsed = 0.0 if self._seen_at is None else max(0.0, now - self._seen_at)
        self._seen_at = now
        if self._turbulence:
            self._turbulence *= math.exp(-elapsed / TURBULENCE_SECONDS)
        if not changes or changes[-1][1] != cap_watts:
            if changes:
                fall = changes[-1][1] - cap_watts
                if 0 < fall <= MAX_TURBULENT_FALL_RATIO * changes[-1][1]:
                    self._turbulence += fall * fall / TURBULENCE_SECONDS
            changes.append((now, cap_watts))
        while len(changes) > 1 and changes[1][0] <= now - RAMP_SECONDS:
            changes.popleft()
        expected = cap_watts
        if len(changes) > 1:
            ahead = cap_watts - self.fall_watts_per_second(now) * self.horizon_seconds
            expected = max(ahead, min(cap_watts, self.floor_watts))
        return expected, -self._lows.observe(-expected, now)

    def headroom_watts(self, held_watts: float, guard_ratio: float, turbulence_factor: float) -> float:
        """What the worst case leaves free below the cap: for the meter's noise and for turbulence.

        The two are independent, so their squares add up.
        """
        guard = guard_ratio * held_watts
        if not self._turbulence or math.isinf(held_watts):
            return guard
        trembling = turbulence_factor * math.sqrt(self._turbulence)
        return math.hypot(guard, min(trembling, MAX_TURBULENCE_RATIO * held_watts))

    def forget(self) -> None:
        """Start anew: nothing of the past is held."""
        self._lows.forget()

    def fall_watts_per_second(self, now: float) -> float:
        """The fall that each of the last windows saw at least; 0 unless all of them saw one."""
        if self._changes[0][0] > now - RAMP_SECONDS:
            return 0.0
        edges = [self._cap_at(now - count * WINDOW_SECONDS) for count in range(WINDOWS + 1)]
        return max(0.0, min(earlier - later for later, earlier in itertools.pairwise(edges))) / WINDOW_SECONDS

    def _cap_at(self, at: float) -> float:
        found = self._changes[0][1]
        for seen_at, cap in self._changes:
            if seen_at > at:
                break
            found = cap
        return found


def soon_watts(
    cap_watts: float, forecast: Sequence[CapForecast], *, age_seconds: float, within_seconds: float
) -> float:
    """The lowest of the cap and its expected values (medians) within the next `within_seconds`.

    Between two horizons, and from now to the first, the value is interpolated.
    """
    lowest, before_at, before = cap_watts, 0.0, cap_watts
    for point in forecast:
        at = point.horizon_seconds - age_seconds
        if at <= 0 or math.isnan(point.p50_watts):
            continue
        if at > within_seconds:
            share = (within_seconds - before_at) / (at - before_at)
            return min(lowest, before + share * (point.p50_watts - before))
        lowest = min(lowest, point.p50_watts)
        before_at, before = at, point.p50_watts
    return lowest


def sure_watts(
    watts: float, forecast: Sequence[CapForecast], *, age_seconds: float, within_seconds: float
) -> float:
    """The lowest of `watts` and the forecast's low quantiles within the next `within_seconds`."""
    for point in forecast:
        at = point.horizon_seconds - age_seconds
        if 0 < at <= within_seconds and point.p10_watts < watts:
            watts = point.p10_watts
    return watts


def later_watts(forecast: Sequence[CapForecast], *, age_seconds: float, share: float) -> tuple[float, ...]:
    """This share of the forecast's three quantiles within `LATER_SECONDS`: each as likely as the others."""
    found: list[float] = []
    for point in forecast:
        if LATER_SECONDS[0] <= point.horizon_seconds - age_seconds <= LATER_SECONDS[1]:
            found += [watts * share for watts in (point.p10_watts, point.p50_watts, point.p90_watts)]
    return tuple(watts for watts in found if not math.isnan(watts))
