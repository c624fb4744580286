"""How much of each class is coming, learnt online from what came. Pure: no oracle, time is an argument.

What every router counted of late is added up once a minute or so (`DemandForecast.observe`). The forecast is
persistence: the median is the mean of the last minutes, and the quantiles around it are those by which such a
mean was wrong before, over the horizon that a plan covers. Until enough is known they are ±`FIRST_RATIO`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleet.request import RequestClass
from router.policy.planner.problem import CLASSES, ClassDemand, Quantiles

Key = tuple[str, RequestClass]

LEVEL_SECONDS = 300.0
"""The level is the mean over so long: shorter than the plan's interval, longer than a burst."""
HISTORY_SECONDS = 6 * 3600.0
MIN_GAP_SECONDS = 5.0
"""Observations closer together than this are one."""
MAX_GAP_SECONDS = 900.0
"""After a longer silence what was learnt of errors stays, but the level begins anew."""
MIN_ERRORS = 12
FIRST_RATIO = 1.3
"""p90 ÷ p50 (and p50 ÷ p10) before any error is known."""
MAX_KEYS = 256 * len(CLASSES)
"""Models × classes: of further models nothing is planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoad:
    """What came of one class of one model: a rate, and mean sizes."""

    requests_per_second: float
    prompt_tokens: float
    output_tokens: float

    @property
    def is_usable(self) -> bool:
        """Whether all are numbers that a load can have."""
        figures = (self.requests_per_second, self.prompt_tokens, self.output_tokens)
        return all(math.isfinite(value) and value >= 0 for value in figures)


def add_loads(parts: Iterable[Mapping[Key, ClassLoad]]) -> dict[Key, ClassLoad]:
    """Several routers' loads as one: rates add up, sizes are weighed by rate. Unusable ones are left out."""
    sums: dict[Key, list[float]] = {}
    for part in parts:
        for key, load in part.items():
            if load.is_usable:
                entry = sums.setdefault(key, [0.0, 0.0, 0.0])
                rate = load.requests_per_second
                for index, value in enumerate((rate, rate * load.prompt_tokens, rate * load.output_tokens)):
                    entry[index] += value
    return {
        key: ClassLoad(
            requests_per_second=rate,
            prompt_tokens=prompt / rate if rate else 0.0,
            output_tokens=output / rate if rate else 0.0,
        )
        for key, (rate, prompt, output) in sorted(sums.items())
    }


@dataclass(slots=True)
class _Series:
    rates: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, requests per second), oldest first."""
    levels: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, level that was then forecast) still to be compared with what came."""
    ratios: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, what came ÷ what was forecast)."""
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0

    def level(self, now: float) -> float:
        recent = [rate for at, rate in self.rates if at > now - LEVEL_SECONDS]
        return sum(recent) / len(recent) if recent else 0.0


class DemandForecast:
    """Mutable, one per planner. Instants are monotonic; one that goes back is ignored."""

    def __init__(self, *, horizon_seconds: float = 900.0) -> None:
        """`horizon_seconds`: how far ahead a plan looks."""
        self._horizon_seconds = horizon_seconds
        self._series: dict[Key, _Series] = {}
        self._at: float | None = None
        self._since: float | None = None

    def known_seconds(self) -> float:
        """For how long the load has been watched without a longer pause."""
        return 0.0 if self._at is None or self._since is None else self._at - self._since

    def observe(self, loads: Mapping[Key, ClassLoad], now: float) -> None:
        """What came between the last call and now, of all routers together. Absent: none came."""
        if self._at is not None and now - self._at < MIN_GAP_SECONDS:
            return
        if self._at is not None and now - self._at > MAX_GAP_SECONDS:
            for series in self._series.values():
                series.rates.clear()
                series.levels.clear()
            self._since = None
        self._at = now
        self._since = now if self._since is None else self._since
        for key, load in loads.items():
            if key not in self._series and load.is_usable and len(self._series) < MAX_KEYS:
                self._series[key] = _Series()
        for key, series in self._series.items():
            found = loads.get(key)
            if found is not None and not found.is_usable:
                continue
            self._take(series, found, now)

    def _take(self, series: _Series, load: ClassLoad | None, now: float) -> None:
        rate = 0.0 if load is None else load.requests_per_second
        series.rates.append((now, rate))
        if load is not None and rate > 0:
            series.prompt_tokens, series.output_tokens = load.prompt_tokens, load.output_tokens
        while series.rates[0][0] <= now - LEVEL_SECONDS:
            series.rates.popleft()
        level = series.level(now)
        while series.levels and series.levels[0][0] <= now - self._horizon_seconds:
            at, forecast = series.levels.popleft()
            if forecast > 0 and at > now - self._horizon_seconds - LEVEL_SECONDS:
                series.ratios.append((now, level / forecast))
        series.levels.append((now, level))
        while series.ratios and series.ratios[0][0] < now - HISTORY_SECONDS:
            series.ratios.popleft()

    def works(self) -> dict[Key, tuple[float, float]]:
        """Mean prompt and output tokens of each class that ever came."""
        return {
            key: (series.prompt_tokens, series.output_tokens)
            for key, series in self._series.items()
            if series.prompt_tokens > 0
        }

    def demand(self, now: float) -> tuple[ClassDemand, ...]:
        """What is coming over the horizon, in order of model and class."""
        found = []
        for (model, request_class), series in sorted(
            self._series.items(), key=lambda item: (item[0][0], CLASSES.index(item[0][1]))
        ):
            level = series.level(now)
            low, high = _error_quantiles(series)
            found.append(
                ClassDemand(
                    model=model,
                    request_class=request_class,
                    requests_per_second=Quantiles(p10=level * low, p50=level, p90=level * high),
                )
            )
        return tuple(found)


def _error_quantiles(series: _Series) -> tuple[float, float]:
    ratios = sorted(ratio for _, ratio in series.ratios)
    if len(ratios) < MIN_ERRORS:
        return 1 / FIRST_RATIO, FIRST_RATIO
    last = len(ratios) - 1
    return min(1.0, ratios[round(0.1 * last)]), max(1.0, ratios[round(0.9 * last)])
