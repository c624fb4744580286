"""Physics of fake GPUs: what they draw, with lag and noise, and how late a clock follows. Pure.

What an instance's GPUs aim at is the profile's watts for its state, batch and clock, and for the share of its
time that goes to prompts those of prefill. The draw follows as first-order lag,

    watts(t) = target + (watts(t₀) − target) · e^(−(t − t₀) ÷ lag)

which is integrated exactly for the energy counter. The noise is the meter's: it is in what is read and
logged, not in the energy.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from fleet.profile import PerformanceProfile

PowerState = Literal["stopped", "idle", "running"]
"""No engine; an engine that is starting or has nothing to do; an engine at work."""

CLOCK_LAG_SECONDS = 0.05
"""From the command to the new clock."""
MAX_REMEMBERED_POINTS = 65_536


class ClockError(ValueError):
    """A clock that these GPUs do not have; the message says which they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """How the fake GPUs behave."""

    lag_seconds: float = 0.3
    """Time constant of the draw; 0: none."""
    noise_ratio: float = 0.01
    """Standard deviation of one GPU's reading."""
    clock_lag_seconds: float = CLOCK_LAG_SECONDS


class FakeGpus:
    """The GPUs of one instance. Calls must not go back in time."""

    def __init__(
        self,
        profile: PerformanceProfile,
        indices: tuple[int, ...],
        options: GpuOptions,
        rng: random.Random,
        now: float,
    ) -> None:
        self.indices = indices
        self._profile = profile
        self._options = options
        self._rng = rng
        self._watts = self._target_watts = profile.stopped_watts
        self._joules = 0.0
        self._at = self._made_at = now
        self._state: PowerState = "stopped"
        self._running = 0
        self._prefill_ratio = 0.0
        self._clock_mhz = profile.full_clock_mhz
        self._next_clock: tuple[float, int] | None = None
        self._noise = [1.0] * len(indices)
        self._points: dict[tuple[int, int], float] = {}

    def set_load(self, state: PowerState, running: int, now: float, *, prefill_ratio: float = 0.0) -> None:
        """What the instance does from now on; `prefill_ratio`: the share of its time that goes to prompts."""
        if state == self._state and running == self._running and prefill_ratio == self._prefill_ratio:
            return
        self.advance(now)
        self._state = state
        self._running = running
        self._prefill_ratio = prefill_ratio
        self._aim()

    def set_clock(self, clock_mhz: int | None, now: float) -> float:
        """Lock the clock (None: full clock); returns when it takes effect.

        Raises:
            ClockError: not a clock of this GPU.
        """
        lowest, full = self._profile.clocks_mhz[0], self._profile.full_clock_mhz
        clock = full if clock_mhz is None else clock_mhz
        if not lowest <= clock <= full:
            raise ClockError(f"clock_mhz is {clock_mhz}; a fake GPU takes {lowest} to {full}")
        self.advance(now)
        effective_at = now + self._options.clock_lag_seconds
        self._next_clock = effective_at, clock
        return effective_at

    def clock_mhz(self, now: float) -> int:
        """SM clock at this instant."""
        if self._next_clock is not None and self._next_clock[0] <= now:
            return self._next_clock[1]
        return self._clock_mhz

    def advance(self, now: float) -> None:
        """Integrate up to `now`, over a clock change on the way."""
        if self._next_clock is not None and self._next_clock[0] <= now:
            at, clock = self._next_clock
            self._integrate(at)
            self._next_clock = None
            self._clock_mhz = clock
            self._aim()
        self._integrate(now)

    @property
    def watts(self) -> float:
        """The true draw of all these GPUs together, as of the last `advance`."""
        return self._watts

    def draw_noise(self) -> None:
        """New noise of the meter: once a sample."""
        sigma = self._options.noise_ratio
        self._noise = [max(0.0, 1.0 + self._rng.gauss(0.0, sigma)) for _ in self.indices]

    def readings(self, now: float) -> list[float]:
        """Watts of each GPU as its meter shows them: lag and noise in."""
        self.advance(now)
        share = self._watts / len(self.indices)
        return [share * noise for noise in self._noise]

    def joules(self, now: float) -> float:
        """Energy of all these GPUs since they were made."""
        self.advance(now)
        return self._joules

    def joules_above_stopped(self, now: float) -> float:
        """The part of `joules` that an engine caused, over what these GPUs draw stopped."""
        return self.joules(now) - self._profile.stopped_watts * (now - self._made_at)

    def stopped_joules_per_gpu(self, now: float) -> float:
        """What one of these GPUs would have drawn stopped since it was made."""
        return self._profile.stopped_watts * (now - self._made_at) / len(self.indices)

    def _integrate(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed <= 0:
            return
        self._at = now
        lag = self._options.lag_seconds
        left = math.exp(-elapsed / lag) if lag > 0 else 0.0
        above = self._watts - self._target_watts
        self._watts = self._target_watts + above * left
        self._joules += self._target_watts * elapsed + above * lag * (1.0 - left)

    def _aim(self) -> None:
        profile = self._profile
        if self._state == "stopped":
            self._target_watts = profile.stopped_watts
        elif self._state == "idle" or self._running <= 0:
            self._target_watts = profile.idle_watts
        else:
            point = self._running, self._clock_mhz
            watts = self._points.get(point)
            if watts is None:
                if len(self._points) >= MAX_REMEMBERED_POINTS:
                    self._points.clear()
                watts = self._points[point] = profile.watts(*point)
            if self._prefill_ratio > 0:
                watts += self._prefill_ratio * (profile.prefill_watts(self._clock_mhz) - watts)
            self._target_watts = watts
