"""Figures that may be missing, made into weights that never are. Pure.

Rule: missing, not a number and negative are all unknown, and an unknown counts as the mean of those that are
known: neither zero nor everything. Where nothing is known all are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def known(value: float | None) -> float | None:
    """The value, or None where it is no finite figure of at least 0."""
    return None if value is None or not 0.0 <= value < math.inf else value


def with_mean(values: Sequence[float | None], default: float = 1.0) -> list[float]:
    """Every unknown replaced by the mean of the known; all `default` where none is."""
    some = [value for value in values if value is not None and 0.0 <= value < math.inf]
    if len(some) == len(values):
        return some
    if not some:
        return [default] * len(values)
    mean = sum([value / len(some) for value in some])
    return [value if value is not None and 0.0 <= value < math.inf else mean for value in values]


def or_equal(weights: Sequence[float]) -> Sequence[float]:
    """These weights, or all equal where they are all 0 or not finite: a policy that does not hold sends."""
    return weights if 0.0 < sum(weights) < math.inf else [1.0] * len(weights)
