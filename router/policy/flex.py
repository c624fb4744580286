"""When `flex` work may run: on what is left over, and not all at once. Pure.

Rule: it goes only to a site that has just said how much room it has, and only where at least `ratio` of the
site's capacity stays free after it, for work that cannot wait. Where the capacity is unknown, what this
router has there and the room left are taken for it.
"""

from __future__ import annotations

import math

from router.policy.load import Load
from router.policy.snapshot import Freshness, ModelView


def surplus_room(view: ModelView, load: Load, room: float, ratio: float, now: float) -> float:
    """Of `room`, what flex may use; below 1 means none."""
    if view.freshness(now) is not Freshness.FRESH:
        return 0.0
    capacity = view.capacity_requests
    if capacity is None:
        capacity = load.in_flight + room
    return room - math.ceil(ratio * capacity)


CREDIT_SECONDS = 0.1
"""Whoever waits is looked at ten times a second, so the pace may catch up for as long."""


class Pace:
    """So many a second, evenly. `now` is monotonic."""

    __slots__ = ("_next_at", "_seconds")

    def __init__(self, per_second: float) -> None:
        self._seconds = 1.0 / per_second
        self._next_at = float("-inf")

    def is_ready(self, now: float) -> bool:
        """Whether one may start."""
        return now >= self._next_at

    def take(self, now: float) -> None:
        """One starts."""
        self._next_at = max(self._next_at, now - CREDIT_SECONDS) + self._seconds
