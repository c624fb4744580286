"""A script of power: shares of nameplate, each valid until the next. For demos, tests and drills. Pure.

Its points count wall seconds from the start, whatever the replay speed: a script belongs to the run, not to
a record. Before its start it stands at its first point.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from power_feed.sources.interface import Measurement, Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Piecewise-constant power, measured every `period_seconds` and at each change."""

    points: Sequence[tuple[float, float]]
    """(wall seconds since the start, share of nameplate), strictly increasing, at least one."""
    nameplate_watts: float
    start_unix_seconds: float | None
    """None: not started yet."""
    period_seconds: float = 1.0
    description: str = "schedule"
    measures: Measures = "available"
    speed: float = 1.0
    _instants: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        start = self.start_unix_seconds or 0.0
        object.__setattr__(self, "_instants", [start + seconds for seconds, _ in self.points])

    def measurement(self, at_unix_seconds: float) -> Measurement:
        """The point that holds, seen at the last measuring instant or change."""
        point = self._point(at_unix_seconds)
        observed = self._measured_at(at_unix_seconds)
        if point > 0:
            observed = max(observed, self._instants[point])
        return Measurement(
            observed_at_unix_seconds=observed,
            watts=self.points[point][1] * self.nameplate_watts,
            is_held=True,
        )

    def next_change_after(self, at_unix_seconds: float) -> float:
        """The next measuring instant, or the next point where that comes first."""
        following = self._measured_at(at_unix_seconds) + self.period_seconds
        while following <= at_unix_seconds:
            following += self.period_seconds
        if self.start_unix_seconds is not None:
            point = bisect_right(self._instants, at_unix_seconds)
            if point < len(self._instants):
                following = min(following, self._instants[point])
        return following

    def _point(self, at_unix_seconds: float) -> int:
        if self.start_unix_seconds is None:
            return 0
        return max(0, bisect_right(self._instants, at_unix_seconds) - 1)

    def _measured_at(self, at_unix_seconds: float) -> float:
        start = self.start_unix_seconds or 0.0
        period = self.period_seconds
        instant = start + math.floor((at_unix_seconds - start) / period) * period
        return instant if instant <= at_unix_seconds else instant - period
