"""How many requests the site must be ready for: the most of late. Pure.

Rule: load rises at once and falls only when it has stayed low for `hold_seconds`, so that engines do not
come and go with every lull.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

RESOLUTION_SECONDS = 1.0
"""Counts within a second are one sample: their largest."""


@dataclass(slots=True, kw_only=True)
class LoadWatch:
    """Feeds on the running requests at every decision."""

    hold_seconds: float
    turned_away_at: float = float("-inf")
    """When a request was last refused for want of a slot."""
    _since: float | None = None
    _highs: deque[tuple[float, int]] = field(default_factory=deque)
    """(last seen at, requests), descending by requests: the first is the most of the hold."""

    def observe(self, running_requests: int, turned_away: int, now: float) -> None:
        """Take the counts at `now`."""
        if self._since is None:
            self._since = now
        if turned_away:
            self.turned_away_at = now
        highs = self._highs
        while highs and highs[-1][1] <= running_requests:
            highs.pop()
        if not highs or now - highs[-1][0] >= RESOLUTION_SECONDS or highs[-1][1] > running_requests:
            highs.append((now, running_requests))
        while len(highs) > 1 and highs[0][0] < now - self.hold_seconds:
            highs.popleft()

    @property
    def most(self) -> int:
        """Requests at once, the most within the hold."""
        return self._highs[0][1] if self._highs else 0

    def is_known(self, now: float) -> bool:
        """Whether a whole hold has been seen: before, the load may yet come."""
        return self._since is not None and now - self._since >= self.hold_seconds

    def is_overrun(self, now: float) -> bool:
        """Whether requests were turned away within the hold."""
        return now - self.turned_away_at < self.hold_seconds
