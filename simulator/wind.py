"""The wind of a simulated block: a record's samples, joined by straight lines, with turbulence on top. Pure.

A record has a value every 5 or 15 minutes; a turbine has one every second. Between two samples the mean is
taken as linear. On it lies an Ornstein–Uhlenbeck process z of unit variance,

    dz = −z / τ · dt + √(2 / τ) · dW,    watts = mean · (1 + σ · z), cut to 0 … nameplate

so the turbulence's intensity is proportional to the power. σ = 3 % and τ = 30 s are assumed (a farm of some
ten turbines averages most of a single one's 10 % out); both are parameters. Every site has its own z. The
same seed gives the same wind to every policy.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Watts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turbulence:
    """Second-scale movement of a farm's power."""

    intensity_ratio: float = 0.03
    """Standard deviation as a share of the mean power; 0: none."""
    correlation_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a farm's feed had measured before the block; times are negative, the last just before 0."""

    at_seconds: Watts
    watts: Watts


def before(
    samples: Sequence[float],
    *,
    period_seconds: float,
    start_seconds: float,
    seconds: float,
    nameplate_watts: float,
) -> History:
    """The record's own samples of the `seconds` before a block, as far as it has them."""
    values = np.asarray(samples, dtype=np.float64)
    first = max(0, math.ceil((start_seconds - seconds) / period_seconds))
    last = min(len(values), math.ceil(start_seconds / period_seconds))
    at = np.arange(first, last, dtype=np.float64) * period_seconds - start_seconds
    known = ~np.isnan(values[first:last])
    watts = values[first:last][known] * nameplate_watts
    return History(at_seconds=np.asarray(at[known], dtype=np.float64), watts=watts)


def per_second(
    samples: Sequence[float],
    *,
    period_seconds: float,
    start_seconds: float,
    seconds: int,
    nameplate_watts: float,
    turbulence: Turbulence,
    seed: str,
) -> Watts:
    """Watts at each whole second of a block that begins `start_seconds` into the record.

    `samples` are shares of nameplate; one that was not measured (NaN) takes its neighbours' line. Beyond the
    record's ends its first and last values hold.
    """
    values = np.asarray(samples, dtype=np.float64)
    at = np.arange(len(values)) * period_seconds
    known = ~np.isnan(values)
    if not known.any():
        raise ValueError("the wind record has no measured value")
    times = start_seconds + np.arange(seconds, dtype=np.float64)
    mean = np.interp(times, at[known], values[known]) * nameplate_watts
    if turbulence.intensity_ratio > 0:
        mean = mean * (1 + turbulence.intensity_ratio * _unit_process(seconds, turbulence, seed))
    return np.clip(mean, 0.0, nameplate_watts)


def _unit_process(seconds: int, turbulence: Turbulence, seed: str) -> Watts:
    """z at each second; exact for the process at whole seconds."""
    rng = np.random.Generator(np.random.PCG64(random.Random(seed).getrandbits(64)))
    keep = math.exp(-1 / turbulence.correlation_seconds)
    noise = rng.standard_normal(seconds) * math.sqrt(1 - keep * keep)
    noise[0] = noise[0] / math.sqrt(1 - keep * keep)
    level = 0.0
    values = np.empty(seconds)
    for index, step in enumerate(noise.tolist()):
        level = keep * level + step
        values[index] = level
    return values
