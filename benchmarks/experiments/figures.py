"""What tables are made of: ratios with intervals, paired differences, crossings, and their text. Pure.

Policies of a seed meet the same wind and the same requests (common random numbers), so they are compared
block by block, and the interval of a difference is far narrower than that of either. Blocks are taken as
independent: those of one seed are more than a day apart, those of three nine hours.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from simulator.estimates import Estimate, estimate, half_width
from simulator.quantiles import LEVELS

Counts = tuple[Sequence[float], Sequence[float]]
"""Good and offered requests, block by block over all seeds."""
CLOSE_RATIO = 0.02
"""Where a baseline is nearer than this to the bound, the goal asks only not to be below it."""


def ratio_of(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate:
    """Ratio of two means, seed by seed in the same order, with its interval (the ratio estimator's, by its
    residuals: Cochran, Sampling Techniques, 6.3); not a number where the bottoms' mean is 0.

    Raises:
        ValueError: not as many, or none.
    """
    pairs = [
        (top, bottom)
        for top, bottom in zip(tops, bottoms, strict=True)
        if not (math.isnan(top) or math.isnan(bottom))
    ]
    if not tops:
        raise ValueError("no value to take a mean of")
    whole = sum(bottom for _, bottom in pairs)
    if not whole:
        return Estimate(mean=math.nan, half=0.0)
    mean = sum(top for top, _ in pairs) / whole
    if len(pairs) < 2 or not math.isfinite(mean) or not math.isfinite(whole):
        return Estimate(mean=mean, half=0.0)
    half = half_width([top - mean * bottom for top, bottom in pairs])
    return Estimate(mean=mean, half=half / abs(whole / len(pairs)))


def at_equal_completion(sketched: Sequence[float | None], level: float, completed_ratio: float) -> float:
    """The quantile of the best `completed_ratio` of all requests: as if the rest had not been asked.

    Between two levels of the sketch a straight line; where the upper is infinite, the lower. NaN of nothing.
    """
    if not sketched:
        return math.nan
    wanted = level * completed_ratio
    place = max(0, bisect_right(LEVELS, wanted + 1e-12) - 1)
    low = sketched[place]
    if low is None:
        return math.inf
    if place + 1 == len(LEVELS) or (high := sketched[place + 1]) is None:
        return low
    return low + (high - low) * max(0.0, wanted - LEVELS[place]) / (LEVELS[place + 1] - LEVELS[place])


def lead(ours: Counts, theirs: Counts) -> Estimate:
    """Ours less theirs, of shares of the offered requests, with the interval of the difference.

    Raises:
        ValueError: not as many blocks.
    """
    shares = [ratio_of(*ours), ratio_of(*theirs)]
    if any(math.isnan(one.mean) for one in shares):
        return Estimate(mean=math.nan, half=0.0)
    (our_share, their_share), count = shares, len(ours[0])
    means = [sum(offered) / count for _, offered in (ours, theirs)]
    residuals = [
        (good - our_share.mean * offered) / means[0] - (other - their_share.mean * asked) / means[1]
        for good, offered, other, asked in zip(*ours, *theirs, strict=True)
    ]
    half = half_width(residuals) if count > 1 else 0.0
    return Estimate(mean=our_share.mean - their_share.mean, half=half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The load at which a curve falls to a level, as far as the loads that were run say."""

    load: float
    kind: Literal["at", "above", "below"]
    """`above`: still there at the highest load; `below`: not even at the lowest."""

    def text(self) -> str:
        """`0.57`, `> 0.72`, `< 0.51`."""
        return {"at": "", "above": "> ", "below": "< "}[self.kind] + f"{self.load:.2f}"


def crossing(curve: Sequence[tuple[float, float]], level: float) -> Crossing:
    """The highest load at which so much is attained: linear between (load, attained), never beyond them."""
    if curve[0][1] < level:
        return Crossing(load=curve[0][0], kind="below")
    for (low, above), (high, below) in pairwise(curve):
        if below < level:
            return Crossing(load=low + (high - low) * (above - level) / (above - below), kind="at")
    return Crossing(load=curve[-1][0], kind="above")


def way(ours: float, best: float, bound: float) -> float | None:
    """Our part of the way from the best baseline to the bound; None: they are as good as one."""
    if bound - best <= CLOSE_RATIO * bound:
        return None
    return (ours - best) / (bound - best)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, form: str = "{:.2f}", missing: str = "∞") -> str:
    """Text of a figure; what is None or infinite is what `missing` says, what is not a number a dash."""
    if value is None or math.isinf(value):
        return missing
    return "–" if math.isnan(value) else form.format(value)


def mean_of(values: Sequence[float | None]) -> float:
    """Over seeds; a None is infinite, and makes the mean so."""
    return estimate([math.inf if value is None else value for value in values]).mean


def total(results: Sequence[dict[str, Any]], part: str, name: str) -> int:
    """A count summed over seeds."""
    return sum(one[part][name] for one in results)
