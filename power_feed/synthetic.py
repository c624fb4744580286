"""Synthetic wind for machines without a wind file: a speed, a power curve, correlated farms. Pure, seeded.

Speed: a Gaussian process z with unit variance is mapped to Weibull-distributed speed, and by a turbine's
power curve to a share of nameplate. z is the sum of a part common to all farms of a seed and a part of the
farm's own; each is a fast and a slow Ornstein–Uhlenbeck process behind a short low-pass (a farm is larger
than a gust). Rare fronts add jumps that fade, so that the worst steps are as bad as measured ones.

The coefficients were fitted here to the statistics in FACTS.md ("Wind"), which `PUBLISHED` repeats; a test
holds a generated year against them. Nothing of the measured files themselves is in here.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

WindPreset = Literal["near", "far"]

CUT_IN_METRES_PER_SECOND = 3.0
RATED_METRES_PER_SECOND = 12.0
"""Of a common 3-MW turbine; between them power grows with the cube of speed."""
BLOCK_STEPS = 4096
"""Generated at a time."""
MAX_STEPS = 4_000_000
"""38 years of 5-minute steps."""
_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWind:
    """What FACTS.md states of a measured set; ranges over its sites or pairs."""

    capacity_factor: tuple[float, float]
    pair_correlation: tuple[float, float]
    autocorrelation_15_minutes: tuple[float, float]
    autocorrelation_1_hour: tuple[float, float]
    worst_step: tuple[float, float]


PUBLISHED: Mapping[WindPreset, PublishedWind] = {
    "near": PublishedWind(
        capacity_factor=(0.27, 0.34),
        pair_correlation=(0.62, 0.87),
        autocorrelation_15_minutes=(0.99, 0.99),
        autocorrelation_1_hour=(0.95, 0.95),
        worst_step=(0.36, 0.89),
    ),
    "far": PublishedWind(
        capacity_factor=(0.23, 0.25),
        pair_correlation=(0.00, 0.22),
        autocorrelation_15_minutes=(0.93, 0.97),
        autocorrelation_1_hour=(0.71, 0.87),
        worst_step=(0.63, 0.96),
    ),
}
"""near: RTS-GMLC, ~300 km, 5-minute steps; far: FTS-213, 15-minute steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindModel:
    """Coefficients of the generator."""

    period_seconds: float
    mean_speed_metres_per_second: float
    weibull_shape: float
    common_ratio: float
    """Share of z's variance that all farms have in common."""
    fast_ratio: float
    """Share of the variance in the fast process."""
    fast_seconds: float
    slow_seconds: float
    smoothing_seconds: float
    """Of the low-pass; 0: none."""
    fronts_per_day: float
    front_size: float
    """Largest jump of z; the smallest is half of it."""
    front_seconds: float
    """In which a front fades to 1/e."""


MODELS: Mapping[WindPreset, WindModel] = {
    "near": WindModel(
        period_seconds=300.0,
        mean_speed_metres_per_second=7.0,
        weibull_shape=1.5,
        common_ratio=0.80,
        fast_ratio=0.15,
        fast_seconds=6 * _HOUR,
        slow_seconds=40 * _HOUR,
        smoothing_seconds=0.4 * _HOUR,
        fronts_per_day=0.08,
        front_size=1.0,
        front_seconds=3 * _HOUR,
    ),
    "far": WindModel(
        period_seconds=900.0,
        mean_speed_metres_per_second=6.4,
        weibull_shape=2.0,
        common_ratio=0.10,
        fast_ratio=0.35,
        fast_seconds=3 * _HOUR,
        slow_seconds=20 * _HOUR,
        smoothing_seconds=0.0,
        fronts_per_day=0.08,
        front_size=1.8,
        front_seconds=3 * _HOUR,
    ),
}


def power_ratio(speed_metres_per_second: float) -> float:
    """The power curve: share of nameplate at a wind speed.

    A farm rides through storms here: no cut-out, since its turbines do not stop together.
    """
    if speed_metres_per_second <= CUT_IN_METRES_PER_SECOND:
        return 0.0
    if speed_metres_per_second >= RATED_METRES_PER_SECOND:
        return 1.0
    low, high = CUT_IN_METRES_PER_SECOND**3, RATED_METRES_PER_SECOND**3
    return (speed_metres_per_second**3 - low) / (high - low)


class SyntheticWind:
    """One farm's endless record; farms of one seed and preset blow together as the preset says.

    The same (preset, seed, farm) gives the same values, in whatever order they are asked for.
    """

    def __init__(
        self,
        *,
        preset: WindPreset,
        seed: int,
        farm: int,
        mean_speed_metres_per_second: float | None = None,
        curve: Callable[[float], float] = power_ratio,
    ) -> None:
        """`farm` counts the farms of a seed; a mean speed replaces the preset's, a curve the cubic one."""
        self._curve = curve
        model = MODELS[preset]
        self.period_seconds = model.period_seconds
        mean = mean_speed_metres_per_second or model.mean_speed_metres_per_second
        self._shape = model.weibull_shape
        self._scale = mean / math.gamma(1 + 1 / self._shape)
        self._common = _Process(model, random.Random(f"{preset}/{seed}/common"))
        own = random.Random(f"{preset}/{seed}/farm/{farm}")
        self._own = _Process(model, own)
        self._fronts = _Fronts(model, own)
        variance = 1 + self._fronts.variance
        self._common_weight = math.sqrt(model.common_ratio / variance)
        self._own_weight = math.sqrt((1 - model.common_ratio) / variance)
        self._front_weight = 1 / math.sqrt(variance)
        self._ratios = array("d")

    def ratio(self, index: int) -> float | None:
        """Share of nameplate at step `index`, counted from 0; None beyond MAX_STEPS."""
        if not 0 <= index < MAX_STEPS:
            return None
        while index >= len(self._ratios):
            self._ratios.extend(self._next() for _ in range(BLOCK_STEPS))
        return self._ratios[index]

    def _next(self) -> float:
        z = (
            self._common_weight * self._common.next()
            + self._own_weight * self._own.next()
            + self._front_weight * self._fronts.next()
        )
        exceedance = max(0.5 * math.erfc(z / math.sqrt(2)), 1e-12)  # of a speed as high as this one
        return self._curve(self._scale * (-math.log(exceedance)) ** (1 / self._shape))


class _Process:
    """Fast and slow Ornstein–Uhlenbeck processes behind a low-pass, unit variance together."""

    def __init__(self, model: WindModel, rng: random.Random) -> None:
        self._gauss = rng.gauss
        step = model.period_seconds
        self._fast_keep = math.exp(-step / model.fast_seconds)
        self._slow_keep = math.exp(-step / model.slow_seconds)
        smoothing = model.smoothing_seconds
        self._smooth_keep = keep = math.exp(-step / smoothing) if smoothing else 0.0
        fast, slow = model.fast_ratio, 1 - model.fast_ratio
        self._fast_noise = math.sqrt(fast * (1 - self._fast_keep**2))
        self._slow_noise = math.sqrt(slow * (1 - self._slow_keep**2))

        def passed(phi: float) -> float:
            """Variance that the low-pass leaves of a unit AR(1) process with coefficient `phi`."""
            return (1 - keep) / (1 + keep) * (1 + phi * keep) / (1 - phi * keep)

        self._scale = 1 / math.sqrt(fast * passed(self._fast_keep) + slow * passed(self._slow_keep))
        self._fast = self._gauss(0, 1) * math.sqrt(fast)
        self._slow = self._gauss(0, 1) * math.sqrt(slow)
        self._smooth = self._fast + self._slow

    def next(self) -> float:
        self._fast = self._fast_keep * self._fast + self._fast_noise * self._gauss(0, 1)
        self._slow = self._slow_keep * self._slow + self._slow_noise * self._gauss(0, 1)
        keep = self._smooth_keep
        self._smooth = keep * self._smooth + (1 - keep) * (self._fast + self._slow)
        return self._smooth * self._scale


class _Fronts:
    """Jumps at random instants, either way, that fade."""

    def __init__(self, model: WindModel, rng: random.Random) -> None:
        self._rng = rng
        self._size = model.front_size
        self._keep = math.exp(-model.period_seconds / model.front_seconds)
        self._chance = model.fronts_per_day * model.period_seconds / 86_400.0
        mean_square = self._size**2 * 7 / 12  # of a uniform between size/2 and size
        self.variance = self._chance * mean_square / (1 - self._keep**2)
        self._level = 0.0

    def next(self) -> float:
        self._level *= self._keep
        if self._rng.random() < self._chance:
            self._level += self._rng.choice((-1.0, 1.0)) * self._rng.uniform(0.5, 1.0) * self._size
        return self._level
