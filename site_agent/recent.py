"""The most of a value within the last seconds, in constant time per sample. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MAX_SAMPLES = 4096
"""At ten samples a second, and more on events, far beyond any hold that needs its full resolution."""


@dataclass(slots=True, kw_only=True)
class RecentMost:
    """Feeds on a value at every decision."""

    hold_seconds: float
    _highs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    """(last seen at, value): ascending by time, descending by value; the first is the most."""

    def observe(self, value: float, now: float) -> float:
        """Take the value at `now`; return the most since `now - hold_seconds`."""
        highs = self._highs
        while highs and highs[-1][1] <= value:
            highs.pop()
        highs.append((now, value))
        oldest = now - self.hold_seconds
        while highs[0][0] < oldest:
            highs.popleft()
        return highs[0][1]

    @property
    def most(self) -> float:
        """As of the last sample; 0 before the first."""
        return self._highs[0][1] if self._highs else 0.0

    def forget(self) -> None:
        """Start anew."""
        self._highs.clear()
