"""How long an engine takes to start at this site: as configured, until it has been seen. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

REMEMBERED_STARTS = 5
"""The slowest of so many counts: engines that start together take longer, and one that reads its model from a
cold disk will again. A start that was slow once is forgotten after these."""


@dataclass(slots=True, kw_only=True)
class StartTimes:
    """One per site."""

    configured_seconds: float
    most_seconds: float
    """A start that takes longer is given up."""
    _seen: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_STARTS))

    def observe(self, seconds: float) -> None:
        """One start that ended well took so long."""
        self._seen.append(min(max(0.0, seconds), self.most_seconds))

    @property
    def learnt_seconds(self) -> float | None:
        """None: no start was seen."""
        return max(self._seen, default=None)

    @property
    def seconds(self) -> float:
        """What to reckon with."""
        return max(self._seen, default=self.configured_seconds)
