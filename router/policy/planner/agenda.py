"""When to plan, and how: slowly on the clock and as sites come or go, fast all the time and as power moves.

Pure.

Rule: nothing is solved twice at a time, and no kind of event can make the planner run without a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PlanKind = Literal["slow", "fast"]

POWER_STEP_RATIO = 0.15
"""A site's power that moved by this part of what it may draw at most, since it was last planned for."""
LOAD_STEP_RATIO, LOAD_STEP = 1.1, 0.5
"""Load beyond this times what was planned for, and half a request a second: then plan anew."""
FAST_GAP_SECONDS = 1.0
FAST_SECONDS = 15.0
"""Between two fast plans where nothing moves much: fractions follow load and power as they drift."""
SLOW_GAP_SECONDS = 60.0
"""At least so long between two slow plans, whatever comes and goes."""
SETTLE_SECONDS = 3.0
"""After a site came or went, or power moved: more may follow."""
RETRY_SECONDS = 30.0
"""After a plan that failed."""


class Agenda:
    """Mutable, one per leader. Instants are monotonic."""

    def __init__(self, *, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._slow_at: float | None = None
        """When the last slow plan was begun; None: never."""
        self._fast_at = float("-inf")
        self._not_before = float("-inf")
        self._changed_at: float | None = None
        self._is_power_moved = False
        self._planned_watts: dict[str, float] = {}
        self._watts: dict[str, float] = {}
        self._sites: frozenset[str] = frozenset()
        self._planned_load: float | None = None

    def look(self, watts: Mapping[str, float], max_watts: Mapping[str, float], now: float) -> None:
        """The fleet as it is: `max_watts` of sites that can be planned for, and all power that is known."""
        sites = frozenset(max_watts)
        if sites != self._sites:
            self._sites = sites
            self._changed_at = now
        self._watts = {site_id: power for site_id, power in watts.items() if site_id in max_watts}
        for site_id, power in self._watts.items():
            before = self._planned_watts.get(site_id)
            if before is None:
                self._planned_watts[site_id] = power
            elif abs(power - before) > max(POWER_STEP_RATIO * max_watts[site_id], 1.0):
                self._is_power_moved = True

    def look_at_load(self, requests_per_second: float, now: float) -> None:
        """The load of the last minute, of all classes. More than what was planned for is an event."""
        planned = self._planned_load
        if planned is not None and requests_per_second > LOAD_STEP_RATIO * planned + LOAD_STEP:
            self._changed_at = now if self._changed_at is None else self._changed_at

    def planned_for(self, requests_per_second: float) -> None:
        """What the plan in use was made to carry."""
        self._planned_load = requests_per_second

    def due(self, now: float) -> PlanKind | None:
        """What to plan now. Nothing while a failure is fresh, but power events break that silence."""
        pause = FAST_GAP_SECONDS if self._is_power_moved else FAST_SECONDS
        is_fast_due = self._slow_at is not None and now - self._fast_at >= pause
        if is_fast_due and self._is_power_moved:
            return "fast"
        if now < self._not_before:
            return None
        if self._slow_at is None or now - self._slow_at >= self._interval_seconds or now < self._slow_at:
            return "slow"
        is_settled = self._changed_at is not None and now - self._changed_at >= SETTLE_SECONDS
        if is_settled and now - self._slow_at >= SLOW_GAP_SECONDS:
            return "slow"
        return "fast" if is_fast_due else None

    def begun(self, kind: PlanKind, now: float) -> None:
        """A plan is made of what `look` saw last."""
        self._planned_watts = dict(self._watts)
        is_power_moved, self._is_power_moved = self._is_power_moved, False
        if kind == "fast":
            self._fast_at = now
            if is_power_moved and self._changed_at is None:
                self._changed_at = now  # a slow plan follows: it may split what is there in another way
            return
        self._slow_at = self._fast_at = now  # a fast one follows when it is solved
        self._changed_at = None

    def solved(self, kind: PlanKind) -> None:
        """It is published. After a slow one a fast one is due: it knows what runs and what power is now."""
        if kind == "slow":
            self._fast_at = float("-inf")

    def failed(self, kind: PlanKind, now: float) -> None:
        """It came to nothing: a slow one is tried again after a pause."""
        if kind == "slow":
            self._not_before = now + RETRY_SECONDS
            self._slow_at = None if self._slow_at is None else self._slow_at - self._interval_seconds
