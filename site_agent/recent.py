"""The most of a value, and its mean, within the last seconds, in constant time per sample. Pure."""

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


@dataclass(slots=True, kw_only=True)
class RecentMean:
    """Mean over time: each sample counts for as long as since the one before. Values must be finite."""

    hold_seconds: float
    _samples: deque[tuple[float, float, float]] = field(default_factory=deque)
    """(at, elapsed, value × elapsed), ascending by time."""
    _elapsed: float = 0.0
    _area: float = 0.0

    def observe(self, value: float, now: float) -> float:
        """Take the value at `now`; return the mean of the samples since `now - hold_seconds`."""
        samples = self._samples
        elapsed = max(0.0, now - samples[-1][0]) if samples else 0.0
        if elapsed >= self.hold_seconds or not samples:
            samples.clear()
            samples.append((now, 0.0, 0.0))
            self._elapsed = self._area = 0.0
            return value
        samples.append((now, elapsed, value * elapsed))
        self._elapsed += elapsed
        self._area += value * elapsed
        oldest = now - self.hold_seconds
        while samples[0][0] <= oldest or len(samples) > MAX_SAMPLES:
            _, gone, area = samples.popleft()
            self._elapsed -= gone
            self._area -= area
        return self._area / self._elapsed if self._elapsed > 0 else value
