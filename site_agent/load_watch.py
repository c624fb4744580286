"""How many requests the site must be ready for: the most of late. Pure.

Rule: load rises at once and falls only when it has stayed low for `hold_seconds`, so that engines do not
come and go with every lull.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from site_agent.recent import RecentMost


@dataclass(slots=True, kw_only=True)
class LoadWatch:
    """Feeds on the running requests at every decision."""

    hold_seconds: float
    turned_away_at: float = float("-inf")
    """When a request was last refused for want of a slot."""
    _since: float | None = None
    _requests: RecentMost = field(init=False)

    def __post_init__(self) -> None:
        self._requests = RecentMost(hold_seconds=self.hold_seconds)

    def observe(self, running_requests: int, turned_away: int, now: float) -> None:
        """Take the counts at `now`."""
        if self._since is None:
            self._since = now
        if turned_away:
            self.turned_away_at = now
        self._requests.observe(running_requests, now)

    @property
    def most(self) -> int:
        """Requests at once, the most within the hold."""
        return int(self._requests.most)

    def is_known(self, now: float) -> bool:
        """Whether a whole hold has been seen: before, the load may yet come."""
        return self._since is not None and now - self._since >= self.hold_seconds

    def is_overrun(self, now: float) -> bool:
        """Whether requests were turned away within the hold."""
        return now - self.turned_away_at < self.hold_seconds
