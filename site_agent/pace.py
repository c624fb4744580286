"""How fast a site goes up, and down where nothing forces it: steps, ramp limit, starts per hour. Pure.

Rule: only starts after a stop that the governor ordered count against the hour. What ends by itself has its
own bound, each instance for itself (`site_agent.instance.RestartRule`), and takes no start from the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from site_agent.reshaping import HOUR_SECONDS
from site_agent.situation import GovernorRule


@dataclass(slots=True, kw_only=True)
class Pace:
    """Remembers the last steps."""

    rule: GovernorRule
    is_cold: bool = field(init=False)
    """Nothing was ever taken down: what fits is started all at once, without a hold (but within a ramp)."""
    _up_at: float = float("-inf")
    _down_at: float = float("-inf")
    """Of the last step down that nothing forced."""
    _starts: deque[float] = field(default_factory=deque)
    _stopped: set[str] = field(default_factory=set)
    """By order, and not started since. Only asked for members, never iterated."""

    def __post_init__(self) -> None:
        self.is_cold = self.rule.max_ramp_watts_per_second is None

    def may_step_up(self, watts: float, now: float) -> bool:
        """One step a time, and no faster than the ramp limit allows so many watts more."""
        if self.is_cold:
            return True
        wait = self.rule.rise_step_seconds
        if self.rule.max_ramp_watts_per_second is not None:
            wait = max(wait, watts / self.rule.max_ramp_watts_per_second)
        return now - self._up_at >= wait

    def stepped_up(self, now: float) -> None:
        """A step was made; while cold they all come at once."""
        if not self.is_cold:
            self._up_at = now

    def may_step_down(self, watts: float, now: float) -> bool:
        """Whether the ramp limit allows so many watts less that nothing forces."""
        limit = self.rule.max_ramp_watts_per_second
        return limit is None or now - self._down_at >= watts / limit

    def stepped_down(self, now: float) -> None:
        """By wish."""
        self._down_at = now

    def may_start(self, instance_id: str, now: float) -> bool:
        """Whether the hour has room for its start; one that nobody ordered to stop needs none."""
        while self._starts and self._starts[0] <= now - HOUR_SECONDS:
            self._starts.popleft()
        return instance_id not in self._stopped or len(self._starts) < self.rule.max_starts_per_hour

    def started(self, instance_id: str, now: float) -> None:
        """An engine was started."""
        if instance_id in self._stopped:
            self._stopped.remove(instance_id)
            self._starts.append(now)

    def stopped(self, instance_ids: Iterable[str]) -> None:
        """These were ordered to stop."""
        self._stopped.update(instance_ids)
