"""A forecast that is worse than it says: errors on purpose, as a weather model's are. Pure.

Each horizon h is off by a factor 1 + e, for its three quantiles alike. e is an Ornstein–Uhlenbeck process (a
first-order autoregression over the seconds that go by) of mean 0 with

    σ(h) = error_ratio · √(h ÷ 1 h), from an hour on error_ratio
    time constant h, 60 s at the least

so what is wrong stays wrong for about as long as it looks ahead, what is near is known better than what is
far, and all horizons are driven by the same noise: too much now is too much in an hour. Root of time and time
constant are assumed; error_ratio is the experiment's.
"""

from __future__ import annotations

import math
import random

from power_feed.forecast import QuantileForecast

FULL_AT_SECONDS = 3600.0
LEAST_MEMORY_SECONDS = 60.0


class ForecastError:
    """Of one farm."""

    def __init__(self, error_ratio: float, rng: random.Random) -> None:
        """`error_ratio`: σ of the factor an hour ahead and further; 0: forecasts stay as they are."""
        self._error_ratio = error_ratio
        self._rng = rng
        self._at: float | None = None
        self._states: dict[float, float] = {}
        """Horizon → its error in σ."""

    def on(self, forecasts: tuple[QuantileForecast, ...], now: float) -> tuple[QuantileForecast, ...]:
        """The forecasts made at `now`, wrong; times must not go back."""
        if not self._error_ratio:
            return forecasts
        elapsed = math.inf if self._at is None else now - self._at
        self._at = now
        noise = self._rng.gauss(0.0, 1.0)
        return tuple(self._off(one, elapsed, noise) for one in forecasts)

    def _off(self, one: QuantileForecast, elapsed: float, noise: float) -> QuantileForecast:
        horizon = one.horizon_seconds
        kept = math.exp(-elapsed / max(LEAST_MEMORY_SECONDS, horizon))
        state = kept * self._states.get(horizon, 0.0) + math.sqrt(1 - kept * kept) * noise
        self._states[horizon] = state
        factor = max(0.0, 1 + self._error_ratio * math.sqrt(min(1.0, horizon / FULL_AT_SECONDS)) * state)
        return QuantileForecast(
            horizon_seconds=horizon,
            p10_watts=factor * one.p10_watts,
            p50_watts=factor * one.p50_watts,
            p90_watts=factor * one.p90_watts,
        )
