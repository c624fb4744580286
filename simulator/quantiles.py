"""Quantiles that survive a file: a distribution as its values at fixed levels, infinite ones too. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVELS: tuple[float, ...] = (
    *(index / 200 for index in range(190)),
    *(0.95 + index / 1000 for index in range(40)),
    *(0.99 + index / 10_000 for index in range(101)),
)
"""Finer towards the top."""


def sketch(values: npt.NDArray[np.float32]) -> list[float | None]:
    """Values at LEVELS (each the smallest that so many are at or below); None is infinite."""
    if not len(values):
        return []
    ordered = np.sort(values)
    ranks = np.ceil(np.array(LEVELS) * len(ordered)).astype(np.int64) - 1
    found = ordered[np.clip(ranks, 0, len(ordered) - 1)]
    return [round(float(value), 5) if math.isfinite(value) else None for value in found]


def at(sketched: Sequence[float | None], level: float) -> float:
    """The value at a level, infinite where it is; NaN of nothing."""
    if not sketched:
        return math.nan
    position = min(bisect_left(LEVELS, level - 1e-12), len(LEVELS) - 1)
    value = sketched[position]
    return math.inf if value is None else value
