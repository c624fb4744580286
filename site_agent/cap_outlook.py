"""The cap that the governor plans with: the lowest of late, and less where it keeps falling. Pure.

Two cases apart from the plain "follow it down at once":

* a rise counts only when it has lasted `hold_seconds`;
* a ramp — the cap fell in each of the last three windows of about a second — is run ahead of: each second's
  fall would otherwise put the draw above the cap again, and an episode is not restarted by a further fall
  (DESIGN §7). A single drop, even one spread over two readings, touches two windows at most.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 1.05
"""A little more than the feed's interval, so that each window sees at least one reading."""
WINDOWS = 3
MAX_SAMPLES = 4096
"""At ten decisions a second, and more on events, far beyond the longest hold."""


@dataclass(slots=True, kw_only=True)
class CapOutlook:
    """Feeds on the cap at every decision."""

    hold_seconds: float
    horizon_seconds: float
    """How far ahead of a ramp: the time that a whole drain takes."""
    _caps: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    _outlooks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    def observe(self, cap_watts: float, now: float) -> tuple[float, float]:
        """Take the cap at `now`; return (what to expect within the horizon, that held for `hold_seconds`)."""
        self._caps.append((now, cap_watts))
        while self._caps[0][0] < now - WINDOWS * WINDOW_SECONDS - 1.0:
            self._caps.popleft()
        expected = max(0.0, cap_watts - self.fall_watts_per_second(now) * self.horizon_seconds)
        self._outlooks.append((now, expected))
        while self._outlooks[0][0] < now - self.hold_seconds:
            self._outlooks.popleft()
        return expected, min(value for _, value in self._outlooks)

    def forget(self) -> None:
        """Start anew: nothing of the past is held."""
        self._outlooks.clear()

    def fall_watts_per_second(self, now: float) -> float:
        """The fall that each of the last windows saw at least; 0 unless all of them saw one."""
        edges = [self._cap_at(now - count * WINDOW_SECONDS) for count in range(WINDOWS + 1)]
        falls: list[float] = []
        for later, earlier in itertools.pairwise(edges):
            if later is None or earlier is None:
                return 0.0
            falls.append(earlier - later)
        return max(0.0, min(falls)) / WINDOW_SECONDS

    def _cap_at(self, at: float) -> float | None:
        found = None
        for seen_at, cap in self._caps:
            if seen_at > at:
                break
            found = cap
        return found
