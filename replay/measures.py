"""Percentiles of many values in bounded memory. Pure.

`LogHistogram` for what comes per token: equal steps of the logarithm, so the error is a fixed ratio.
`Quantiles` for what comes per request: exact up to a number of values, then the histogram.
"""

from __future__ import annotations

import math
from array import array

LOWEST_SECONDS = 1e-5
HIGHEST_SECONDS = 1e4
STEP_RATIO = 1.02
"""Bucket width: a quantile is off by at most 1 %."""
_PER_LOG = 1 / math.log(STEP_RATIO)
_OFFSET = -math.log(LOWEST_SECONDS) * _PER_LOG
_BUCKETS = math.ceil(math.log(HIGHEST_SECONDS / LOWEST_SECONDS) * _PER_LOG) + 1
MAX_EXACT_VALUES = 200_000
"""1.6 MB each; beyond it the histogram answers."""


class LogHistogram:
    """Counts of positive values (seconds), each within 1 %; what lies outside counts at the edge."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.count = 0

    def add(self, value: float) -> None:
        """Take one value; called per token, so it is kept short."""
        index = int(math.log(value) * _PER_LOG + _OFFSET) if value > LOWEST_SECONDS else 0
        self._buckets[index if index < _BUCKETS else _BUCKETS - 1] += 1
        self.count += 1

    def merge(self, other: LogHistogram) -> None:
        """Take all values of another one."""
        if other.count:
            self._buckets = [mine + its for mine, its in zip(self._buckets, other._buckets, strict=True)]
            self.count += other.count

    def quantile(self, level: float) -> float | None:
        """Value at `level` (0–1) by nearest rank, the geometric middle of its bucket; None when empty."""
        if self.count == 0:
            return None
        rank = max(1, math.ceil(level * self.count))
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                return math.exp((index + 0.5 - _OFFSET) / _PER_LOG)
        raise AssertionError("the buckets hold fewer values than were counted")


class Quantiles:
    """Exact percentiles up to MAX_EXACT_VALUES values, within 1 % beyond."""

    __slots__ = ("_exact", "_histogram", "_max_exact")

    def __init__(self, max_exact: int = MAX_EXACT_VALUES) -> None:
        self._exact = array("d")
        self._histogram = LogHistogram()
        self._max_exact = max_exact

    @property
    def count(self) -> int:
        """Values taken."""
        return self._histogram.count

    def add(self, value: float) -> None:
        """Take one value."""
        self._histogram.add(value)
        if len(self._exact) < self._max_exact:
            self._exact.append(value)

    def quantile(self, level: float) -> float | None:
        """Value at `level` (0–1) by nearest rank; None when empty."""
        if self.count == 0 or self.count > self._max_exact:
            return self._histogram.quantile(level)
        ordered = sorted(self._exact)
        return ordered[max(1, math.ceil(level * len(ordered))) - 1]
