"""A mean over seeds and how sure it is, for the tables of `heron simulate` and of the experiments. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_T95 = (
    *(12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13),
    *(2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04),
)
"""Student's t for a two-sided 95 % interval, by degrees of freedom from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean, and half its 95 % interval; 0 with one value, of which nothing can be said."""

    mean: float
    half: float

    def text(self, form: str = "{:.1%}") -> str:
        """`97.1% ± 0.3%`; one seed: `97.1%`."""
        if math.isnan(self.mean):
            return "–"
        if math.isinf(self.mean):
            return "∞"
        return form.format(self.mean) + (f" ± {form.format(self.half).lstrip('+')}" if self.half else "")

    def is_sure(self, bar: float) -> bool:
        """Whether the whole interval is on one side of a bar; of one value there is none."""
        return 0.0 < self.half <= abs(self.mean - bar)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval by Student's t; an infinite value makes the mean infinite.

    A value that is not a number (a seed in which nothing came) is left out; with no other the mean is none.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("no value to take a mean of")
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Estimate(mean=math.nan, half=0.0)
    mean = sum(known) / len(known)
    if len(known) < 2 or not math.isfinite(mean):
        return Estimate(mean=mean, half=0.0)
    return Estimate(mean=mean, half=half_width([value - mean for value in known]))


def half_width(residuals: Sequence[float]) -> float:
    """Half the 95 % interval of a mean, of what each of two or more values is off by."""
    count = len(residuals)
    variance = sum(one * one for one in residuals) / (count - 1)
    return _T95[min(count - 2, len(_T95) - 1)] * math.sqrt(variance / count)
