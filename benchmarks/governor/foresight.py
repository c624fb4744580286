"""What a governor that knows the wind would draw, second by second, within the same margin. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from site_agent.site_model import SiteModel


def foresight_joules(
    model: SiteModel,
    caps_watts: Sequence[float],
    *,
    guard_ratio: float,
    start_seconds: float,
    boot_seconds: float,
    ride_through_seconds: float,
) -> tuple[float, float]:
    """(without any lag, with the same lags) under these caps, one per second; a cap of 0: no power at all.

    With lags it begins as the governor does, the server on and its engines stopped; starting engines draw
    what idle ones do.
    """
    guarded = 1 - guard_ratio
    idle = model.server_idle_watts
    levels = [_levels(model, awake) for awake in range(model.instances + 1)]
    starting = [
        model.modelled_watts([0] * awake, model.full_clock_mhz) for awake in range(model.instances + 1)
    ]
    server = _Lasting(boot_seconds, ride_through_seconds, begins_at=math.ceil(boot_seconds))
    engines = [_Lasting(start_seconds, ride_through_seconds) for _ in range(model.instances + 1)]
    ideal = lagging = 0.0
    for cap in caps_watts:
        budget = cap * guarded
        ideal += _most_under(levels[-1], budget)
        is_up = server.second(cap >= idle)
        up = begun = 0
        for awake in range(1, model.instances + 1):
            if engines[awake].second(is_up and cap >= starting[awake]):
                up = awake
            if engines[awake].seconds:
                begun = awake
        if is_up:
            drawn = _most_under(levels[up], budget)
            extra = starting[begun] - starting[up]
            lagging += max(drawn, min(drawn + extra, budget)) if drawn else 0.0
    return ideal, lagging


class _Lasting:
    """Has something held for so long? What is bridged does not count as an end."""

    def __init__(self, needed_seconds: float, bridged_seconds: float, *, begins_at: int = 0) -> None:
        self._needed = needed_seconds
        self._bridged = bridged_seconds
        self.seconds = begins_at
        self._missing = 0

    def second(self, holds: bool) -> bool:
        """One more; whether it has lasted."""
        if holds:
            self.seconds += 1
            self._missing = 0
        elif self.seconds:
            self._missing += 1
            if self._missing > self._bridged:
                self.seconds = 0
        return self.seconds > self._needed


def _levels(model: SiteModel, most_awake: int) -> list[float]:
    """What the site can draw under saturating load with so many instances at most, ascending."""
    found = {model.server_idle_watts}
    for awake in range(1, most_awake + 1):
        for clock in model.steps_mhz:
            found.add(model.worst_watts(model.uniform(awake), clock))
    return sorted(found)


def _most_under(levels: Sequence[float], watts: float) -> float:
    position = bisect_right(levels, watts)
    return levels[position - 1] if position else 0.0
