"""Playing a record of wind power against the wall clock, at any speed. Pure.

A record's step k starts at `start + (k × period − offset) ÷ speed` and holds until the next. Before its
start a replay stands at its first step (so that a fleet can come up before the wind begins to move); after
its end it has nothing, unless it repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from power_feed.sources.interface import Measurement, Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Playback:
    """A source that plays `ratio(step)`, shares of nameplate."""

    description: str
    ratio: Callable[[int], float | None]
    """Share of nameplate at a step from 0; None: not measured."""
    steps: int | None
    """Length of the record; None: endless."""
    record_period_seconds: float
    nameplate_watts: float
    start_unix_seconds: float | None
    """None: not started yet."""
    speed: float = 1.0
    offset_seconds: float = 0.0
    """Where in the record to begin, in its own time."""
    repeat: bool = False
    measures: Measures = "available"

    @property
    def period_seconds(self) -> float:
        return self.record_period_seconds / self.speed

    def measurement(self, at_unix_seconds: float) -> Measurement:
        """The step that holds at that instant, None where the record has nothing."""
        step = self._step(at_unix_seconds)
        observed = self._starts_at(step)
        is_held = self.start_unix_seconds is None or step < self._first_step
        position = self._first_step if is_held else step
        if self.steps is not None and position >= self.steps:
            if not self.repeat:
                return Measurement(observed_at_unix_seconds=self._starts_at(self.steps), watts=None)
            position %= self.steps
        ratio = self.ratio(position)
        watts = None if ratio is None else ratio * self.nameplate_watts
        return Measurement(observed_at_unix_seconds=observed, watts=watts, is_held=is_held)

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        """When the next step starts; None after the end of a record that does not repeat."""
        following = self._step(at_unix_seconds) + 1
        is_finite = self.steps is not None and not self.repeat and self.start_unix_seconds is not None
        if is_finite and following > (self.steps or 0):
            return None
        return self._starts_at(following)

    @property
    def _first_step(self) -> int:
        """Where it begins, and stands until then."""
        return math.floor(self.offset_seconds / self.record_period_seconds)

    @property
    def _origin(self) -> float:
        """Before the start is known the record stands still on a grid from 0."""
        return self.start_unix_seconds or 0.0

    def _starts_at(self, step: int) -> float:
        return self._origin + (step * self.record_period_seconds - self.offset_seconds) / self.speed

    def _step(self, at_unix_seconds: float) -> int:
        """The step s with starts_at(s) ≤ at < starts_at(s + 1), exactly, whatever rounding does."""
        seconds = (at_unix_seconds - self._origin) * self.speed + self.offset_seconds
        step = math.floor(seconds / self.record_period_seconds)
        while self._starts_at(step) > at_unix_seconds:
            step -= 1
        while self._starts_at(step + 1) <= at_unix_seconds:
            step += 1
        return step
