"""What a farm's power will be: persistence, with quantiles of how far it was off so far. Pure.

For each horizon the errors `later − now` of the farm's own past are kept, by level of power: near 0 and near
rated it moves little, in between much. Their empirical quantiles, added to what is measured now, are the
forecast. Where there is too little history the errors are taken to be as wide as `WIDE_ERRORS` says, so that
no decision fails and none is made on a false certainty; below the source's period, where nothing can be
observed, they grow with the root of time.

All times are seconds of the source; who replays at speed X divides horizons (`power_feed.outlook`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

STANDARD_HORIZONS_SECONDS = (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0)
QUANTILES = (0.1, 0.5, 0.9)
LEVEL_EDGES = (0.03, 0.12, 0.25, 0.4, 0.55, 0.7, 0.85, 0.97)
"""Bounds of the levels, in shares of nameplate: narrow where the power curve bends."""
MAX_ERRORS = 400
"""Kept per horizon and level: at 15 minutes' steps some weeks, so that the seasons change the spread."""
MIN_SAMPLING_SECONDS = 30.0
"""Between two errors of a horizon: a source of 1-s values is remembered for hours, not for minutes."""
MIN_ERRORS = 30
"""Fewer say nothing about a tenth: they are pooled over all levels, and below that the spread is assumed."""
CHANGE_SECONDS = 900.0
"""Over which the recent change is taken (`Moods`); the source's period where that is longer."""
UNREST_SECONDS = 3600.0
"""Memory of the mean size of changes."""
MAX_WAITING = 48
"""Forecasts per horizon that wait for their hour; hence errors are sampled at this part of the horizon."""
WIDE_ERRORS = (
    (1.0, 0.03),
    (10.0, 0.06),
    (60.0, 0.10),
    (300.0, 0.15),
    (900.0, 0.20),
    (3600.0, 0.35),
    (21_600.0, 0.60),
)
"""(horizon, distance of p10 and p90 from now in shares of nameplate) where there is no history. About twice
what holds 80 % of all changes in the two wind sets of FACTS.md (their sites: 15 min 0.03 … 0.09, 1 h 0.09 …
0.20, 6 h 0.27 … 0.43), so that it errs to the safe side; below 5 minutes, where they are silent, it is an
assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileForecast:
    """A farm's power `horizon_seconds` from now; p10 ≤ p50 ≤ p90."""

    horizon_seconds: float
    p10_watts: float
    p50_watts: float
    p90_watts: float


Situation = tuple[int, ...]
"""What errors are told apart by: the level, and where that is wanted the recent change and unrest."""


class PowerForecaster(Protocol):
    """What a forecast must be able to do."""

    def observe(self, watts: float, at: float) -> None:
        """Take a good measurement made at `at` seconds (of the source's time)."""

    def quantiles(self, horizons_seconds: Sequence[float] = ()) -> tuple[QuantileForecast, ...]:
        """From the last measurement on, at its own horizons where none are given; empty before the first."""


def wide_error_ratio(horizon_seconds: float) -> float:
    """`WIDE_ERRORS`, interpolated over the logarithm of the horizon."""
    horizons = [horizon for horizon, _ in WIDE_ERRORS]
    position = bisect_left(horizons, horizon_seconds)
    if position == 0:
        return WIDE_ERRORS[0][1] * math.sqrt(max(0.0, horizon_seconds) / WIDE_ERRORS[0][0])
    if position == len(WIDE_ERRORS):
        return WIDE_ERRORS[-1][1]
    (low, narrow), (high, wide) = WIDE_ERRORS[position - 1], WIDE_ERRORS[position]
    part = math.log(horizon_seconds / low) / math.log(high / low)
    return narrow + part * (wide - narrow)


@dataclass(slots=True)
class ErrorWindow:
    """The last MAX_ERRORS errors, sorted as well, so that a quantile costs nothing."""

    _in_time: deque[float] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, error: float) -> None:
        """Take one in, drop the oldest where there are too many."""
        if len(self._in_time) >= MAX_ERRORS:
            del self._sorted[bisect_left(self._sorted, self._in_time.popleft())]
        self._in_time.append(error)
        insort(self._sorted, error)

    def quantile(self, probability: float) -> float:
        """Interpolated between order statistics at p × (n + 1), so that a tenth falls below p10. Not
        empty.
        """
        position = probability * (len(self._sorted) + 1) - 1
        position = min(max(position, 0.0), len(self._sorted) - 1.0)
        low = math.floor(position)
        high = min(low + 1, len(self._sorted) - 1)
        return self._sorted[low] + (position - low) * (self._sorted[high] - self._sorted[low])


class HorizonErrors:
    """How far persistence was off at one horizon, by situation: a level, and what is finer than it."""

    def __init__(self, horizon_seconds: float) -> None:
        self.horizon_seconds = horizon_seconds
        self._waiting: deque[tuple[float, float, Situation]] = deque()
        self._windows: dict[Situation, ErrorWindow] = {}
        """By situation, by level alone, and by nothing."""

    def observe(self, ratio: float, at: float, situation: Situation, spacing_seconds: float) -> None:
        """Judge the forecasts whose time has come, and let this measurement wait for its own.

        A measurement that comes too late for a forecast (a gap) judges nothing.
        """
        late = max(0.05 * self.horizon_seconds, 0.75 * spacing_seconds)
        while self._waiting and self._waiting[0][0] + self.horizon_seconds <= at + 1e-6:
            made_at, then, situation_then = self._waiting.popleft()
            if at - made_at - self.horizon_seconds <= late:
                for key in coarser(situation_then):
                    self._windows.setdefault(key, ErrorWindow()).add(ratio - then)
        sampling = max(spacing_seconds, self.horizon_seconds / MAX_WAITING, MIN_SAMPLING_SECONDS)
        if not self._waiting or at - self._waiting[-1][0] >= sampling - 1e-6:
            self._waiting.append((at, ratio, situation))

    def quantiles(self, situation: Situation) -> tuple[float, ...] | None:
        """Errors at QUANTILES, of the finest situation that is known well enough; None: none is."""
        for key in coarser(situation):
            window = self._windows.get(key)
            if window is not None and len(window) >= MIN_ERRORS:
                return tuple(window.quantile(probability) for probability in QUANTILES)
        return None

    def forget_waiting(self) -> None:
        """The clock went back: what waits has no time any more."""
        self._waiting.clear()

    @property
    def counts(self) -> tuple[int, int]:
        """Of what waits, and of what is kept, for whoever checks the bounds."""
        return len(self._waiting), sum(len(window) for window in self._windows.values())


def coarser(situation: Situation) -> tuple[Situation, ...]:
    """The situation itself, its level, and any."""
    return (situation, situation[:1], ()) if len(situation) > 1 else (situation, ())


def level_of(ratio: float) -> int:
    """Which of the levels a share of nameplate belongs to."""
    return bisect_right(LEVEL_EDGES, ratio)


class Moods:
    """Tells apart, within a level, how power moved of late: which third of what was seen at that level its
    last change was in, and which third its unrest. The bounds of the thirds are learnt as it goes.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()
        self._unrest = 0.0
        self._last_at = float("-inf")
        self._changes: dict[Situation, ErrorWindow] = {}
        self._unrests: dict[Situation, ErrorWindow] = {}

    def situation(self, ratio: float, at: float) -> Situation:
        """Of a new measurement; only its level while too little is known."""
        level = level_of(ratio)
        before = self._recent[-1][1] if self._recent else ratio
        if at <= self._last_at:  # the clock went back
            self._recent.clear()
        elif self._last_at > float("-inf"):
            keep = math.exp(-(at - self._last_at) / UNREST_SECONDS)
            self._unrest = keep * self._unrest + (1 - keep) * abs(ratio - before)
        self._last_at = at
        while len(self._recent) > 1 and self._recent[1][0] <= at - CHANGE_SECONDS + 1e-6:
            self._recent.popleft()
        change = ratio - self._recent[0][1] if self._recent else 0.0
        if not self._recent or at - self._recent[-1][0] >= MIN_SAMPLING_SECONDS:
            self._recent.append((at, ratio))
        third = _third(self._changes.setdefault((level,), ErrorWindow()), change)
        if third is None:
            return (level,)
        unrest = _third(self._unrests.setdefault((level, third), ErrorWindow()), self._unrest)
        return (level,) if unrest is None else (level, third, unrest)


def _third(window: ErrorWindow, value: float) -> int | None:
    """Which third of the window a value falls into; it is taken in. None: the window knows too little."""
    found = None
    if len(window) >= 3 * MIN_ERRORS:
        found = (value > window.quantile(1 / 3)) + (value > window.quantile(2 / 3))
    window.add(value)
    return found


class Forecaster:
    """Persistence with empirical quantiles, learnt as it goes. Implements `PowerForecaster`."""

    def __init__(
        self,
        nameplate_watts: float,
        *,
        horizons_seconds: Sequence[float] = STANDARD_HORIZONS_SECONDS,
        has_moods: bool = False,
    ) -> None:
        """`horizons_seconds`: where errors are learnt; in between they are interpolated. `has_moods`: told
        apart by recent change and unrest as well (`Moods`), not by level alone.
        """
        if nameplate_watts <= 0:
            raise ValueError(f"nameplate_watts = {nameplate_watts}: must be above 0")
        self._nameplate_watts = nameplate_watts
        self._errors = [HorizonErrors(horizon) for horizon in sorted(horizons_seconds)]
        self._moods = Moods() if has_moods else None
        self._ratio: float | None = None
        self._situation: Situation = ()
        self._at = float("-inf")
        self._period_seconds = 0.0
        """Between measurements, the shortest of late."""

    def observe(self, watts: float, at: float) -> None:
        """Take a good measurement made at `at`. One that is no number, or not newer, is left out.

        A step back by more than a minute is a new beginning: the clock was set, or a record starts anew.
        """
        if not math.isfinite(watts):
            return
        if at < self._at - 60.0:
            for errors in self._errors:
                errors.forget_waiting()
        elif at <= self._at:
            return
        elif self._ratio is not None:
            gap = at - self._at
            self._period_seconds = gap if not self._period_seconds else min(gap, 1.1 * self._period_seconds)
        self._ratio = min(1.0, max(0.0, watts / self._nameplate_watts))
        self._at = at
        level = (level_of(self._ratio),)
        self._situation = level if self._moods is None else self._moods.situation(self._ratio, at)
        for errors in self._errors:
            if errors.horizon_seconds >= self._period_seconds - 1e-6:
                errors.observe(self._ratio, at, self._situation, self._period_seconds)

    def quantiles(self, horizons_seconds: Sequence[float] = ()) -> tuple[QuantileForecast, ...]:
        """The forecast at these horizons (none given: those it learns); empty before a measurement."""
        ratio = self._ratio
        if ratio is None:
            return ()
        horizons = horizons_seconds or [errors.horizon_seconds for errors in self._errors]
        known: list[tuple[float, tuple[float, ...]]] = [(0.0, (0.0, 0.0, 0.0))]
        known += [
            (errors.horizon_seconds, quantiles)
            for errors in self._errors
            if (quantiles := errors.quantiles(self._situation)) is not None
        ]
        return tuple(self._forecast(ratio, horizon, known) for horizon in horizons)

    def _forecast(
        self, ratio: float, horizon: float, known: Sequence[tuple[float, tuple[float, ...]]]
    ) -> QuantileForecast:
        errors = _interpolated(horizon, known)
        if errors is None:
            wide = wide_error_ratio(horizon)
            errors = (-wide, 0.0, wide)
        low, middle, high = (
            self._nameplate_watts * min(1.0, max(0.0, ratio + error)) for error in sorted(errors)
        )
        return QuantileForecast(horizon_seconds=horizon, p10_watts=low, p50_watts=middle, p90_watts=high)


def _interpolated(
    horizon: float, known: Sequence[tuple[float, tuple[float, ...]]]
) -> tuple[float, ...] | None:
    """Errors at a horizon between two known ones, by the root of time; None beyond the last known one."""
    position = bisect_left([at for at, _ in known], horizon)
    if position == len(known):
        return None
    if position == 0:
        return known[0][1]
    (low, before), (high, after) = known[position - 1], known[position]
    part = (math.sqrt(horizon) - math.sqrt(low)) / (math.sqrt(high) - math.sqrt(low))
    return tuple(one + part * (other - one) for one, other in zip(before, after, strict=True))
