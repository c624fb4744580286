"""Requests drawn from the published statistics of the Azure 2023 traces, for runs without the trace files.

Pure: the caller gives the random source. Whatever uses it says so: `SyntheticSpec.describe()` begins with
"synthetic trace".

Sizes: piecewise linear between the quantiles of the files (CC-BY 4.0, Azure/AzurePublicDataset; FACTS.md
prints seven of them). Prompt and output are drawn apart: their rank correlation in the files is -0.02 (code)
and 0.07 (conv).

Arrivals: `poisson` has a constant rate. `bursty` lets the rate itself vary, as the product of the mean and
independent processes of mean 1: each holds a gamma-distributed level of variance v for a time that is
exponential with mean T, so that its autocovariance is v·exp(-t/T). The index of dispersion of counts in bins
of w seconds is then 1 + rate · Σ v·2(T - T²/w·(1 - exp(-w/T))), the sum over all products of the processes
(`dispersion`). The (v, T) below give, at the files' own rates, 13 / 73 / 163 for code and 1.3 / 4.0 / 19 for
conv at 1 s / 10 s / 1 min; published are 13 / 72 / 164 and 1.4 / 3.9 / 16.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Literal

from replay.trace import MAX_TOKENS, TraceError, TraceRequest

Shape = Literal["code", "conv"]
Arrivals = Literal["bursty", "poisson"]

QUANTILE_LEVELS: tuple[float, ...] = (
    *(step / 20 for step in range(20)),
    *(0.96, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0),
)
MIN_GAP_SECONDS = 1e-7
"""The resolution of the files' timestamps."""
MAX_REQUESTS_PER_SECOND = 100_000.0
"""Ten times what one load generator can send; above it the number is a mistake."""
MAX_REQUESTS = 100_000_000
"""Of one run, with what is passed over before its start: twice the published week of 2024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeStatistics:
    """What is known of one published trace."""

    requests_per_second: float
    prompt_quantiles: tuple[int, ...]
    """Tokens at QUANTILE_LEVELS."""
    output_quantiles: tuple[int, ...]
    rate_processes: tuple[tuple[float, float], ...]
    """(variance, mean holding time in seconds) of each process that the rate is multiplied by."""


SHAPES: dict[Shape, ShapeStatistics] = {
    "code": ShapeStatistics(
        requests_per_second=2.57,
        prompt_quantiles=(
            *(3, 75, 147, 232, 386, 578, 770, 939, 1075, 1261, 1469, 1690, 1909, 2164, 2433, 2744),
            *(3192, 3920, 5188, 7303, 7430, 7435, 7436, 7436, 7436, 7437, 7437),
        ),
        output_quantiles=(
            *(6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 105, 128, 171, 251),
            *(359, 825, 1899),
        ),
        rate_processes=((2.75, 4.0), (0.6, 120.0)),
    ),
    "conv": ShapeStatistics(
        requests_per_second=5.53,
        prompt_quantiles=(
            *(2, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097, 1130, 1189),
            *(1315, 1876, 2734, 4083, 4086, 4090, 4098, 4142, 4831, 6179, 14050),
        ),
        output_quantiles=(
            *(7, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395, 400, 411, 424, 451),
            *(468, 509, 540, 601, 643, 954, 1000),
        ),
        rate_processes=((0.055, 600.0),),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSpec:
    """What to draw. Sizes keep the shape of the published distribution and are scaled to a mean."""

    shape: Shape = "conv"
    requests_per_second: float | None = None
    """None: the published rate."""
    arrivals: Arrivals = "bursty"
    mean_prompt_tokens: float | None = None
    """None: as published."""
    mean_output_tokens: float | None = None
    max_prompt_tokens: int | None = None
    """Larger draws are cut to this (an engine's limit); it lowers the mean."""
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless every number is positive, and rate and sizes are those of a trace."""
        for name in (
            "requests_per_second",
            "mean_prompt_tokens",
            "mean_output_tokens",
            "max_prompt_tokens",
            "max_output_tokens",
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value}: must be above 0")
        if self.rate > MAX_REQUESTS_PER_SECOND:
            raise ValueError(
                f"requests_per_second = {self.rate:g}: must be at most {MAX_REQUESTS_PER_SECOND:g}"
            )
        statistics = SHAPES[self.shape]
        for name, quantiles, mean in (
            ("prompt", statistics.prompt_quantiles, self.mean_prompt_tokens),
            ("output", statistics.output_quantiles, self.mean_output_tokens),
        ):
            limit = MAX_TOKENS * mean_of(quantiles) / quantiles[-1]
            if mean is not None and mean > limit:
                raise ValueError(
                    f"mean_{name}_tokens = {mean:g}: must be at most {limit:.0f}, "
                    f"for the largest has then {MAX_TOKENS}"
                )

    @property
    def rate(self) -> float:
        """Mean requests per second."""
        return self.requests_per_second or SHAPES[self.shape].requests_per_second

    def describe(self) -> str:
        """One line for every output that rests on these requests."""
        scaled = [
            f"mean {name} {value:g} tokens"
            for name, value in (("prompt", self.mean_prompt_tokens), ("output", self.mean_output_tokens))
            if value is not None
        ]
        limits = [
            f"{name} at most {value} tokens"
            for name, value in (("prompt", self.max_prompt_tokens), ("output", self.max_output_tokens))
            if value is not None
        ]
        parts = [f"{self.rate:g} requests/s", f"{self.arrivals} arrivals", *scaled, *limits]
        return f"synthetic trace (statistics of Azure 2023 {self.shape}; {', '.join(parts)})"


def check_count(spec: SyntheticSpec, seconds: float) -> None:
    """Raise TraceError where so much time has more requests than MAX_REQUESTS, on average."""
    if spec.rate * seconds > MAX_REQUESTS:
        raise TraceError(
            f"{spec.rate:g} requests/s for {seconds:g} s of the load are more than {MAX_REQUESTS} requests: "
            "lower one of them"
        )


def generate(spec: SyntheticSpec, rng: Random) -> Iterator[TraceRequest]:
    """Requests in order of time, without end. The same spec and seed give the same requests."""
    statistics = SHAPES[spec.shape]
    prompts = _scaled(statistics.prompt_quantiles, spec.mean_prompt_tokens)
    outputs = _scaled(statistics.output_quantiles, spec.mean_output_tokens)
    times = (
        _bursty(spec.rate, statistics.rate_processes, rng)
        if spec.arrivals == "bursty"
        else _poisson(spec.rate, rng)
    )
    for at_seconds in times:
        yield TraceRequest(
            at_seconds=at_seconds,
            prompt_tokens=_draw(prompts, spec.max_prompt_tokens, rng),
            output_tokens=_draw(outputs, spec.max_output_tokens, rng),
        )


def mean_of(quantiles: tuple[int, ...]) -> float:
    """Mean of the piecewise linear distribution through these quantiles."""
    levels = QUANTILE_LEVELS
    return sum(
        (quantiles[i] + quantiles[i + 1]) / 2 * (levels[i + 1] - levels[i]) for i in range(len(levels) - 1)
    )


def dispersion(rate: float, processes: tuple[tuple[float, float], ...], bin_seconds: float) -> float:
    """Index of dispersion (variance ÷ mean) of counts per bin in `bursty` mode; the formula is above."""
    total = 0.0
    for count in range(1, len(processes) + 1):
        for chosen in combinations(processes, count):
            variance = math.prod(v for v, _ in chosen)
            hold = 1 / sum(1 / t for _, t in chosen)
            total += variance * 2 * (hold - hold**2 / bin_seconds * (1 - math.exp(-bin_seconds / hold)))
    return 1 + rate * total


def _scaled(quantiles: tuple[int, ...], mean: float | None) -> tuple[float, ...]:
    factor = 1.0 if mean is None else mean / mean_of(quantiles)
    return tuple(value * factor for value in quantiles)


def _draw(quantiles: tuple[float, ...], limit: int | None, rng: Random) -> int:
    level = rng.random()
    position = bisect_right(QUANTILE_LEVELS, level) - 1
    low, high = QUANTILE_LEVELS[position], QUANTILE_LEVELS[position + 1]
    share = (level - low) / (high - low)
    tokens = max(1, round(quantiles[position] + share * (quantiles[position + 1] - quantiles[position])))
    return tokens if limit is None else min(tokens, limit)


def _poisson(rate: float, rng: Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += max(MIN_GAP_SECONDS, rng.expovariate(rate))
        yield now


def _bursty(rate: float, processes: tuple[tuple[float, float], ...], rng: Random) -> Iterator[float]:
    """Poisson arrivals at a rate that is constant between changes of level; exact, nothing is thinned."""
    levels = [rng.gammavariate(1 / v, v) for v, _ in processes]
    changes = [(rng.expovariate(1 / hold), index) for index, (_, hold) in enumerate(processes)]
    heapq.heapify(changes)
    now = 0.0
    while True:
        until, index = changes[0]
        current = rate * math.prod(levels)
        gap = rng.expovariate(current) if current > 0 else math.inf
        if now + gap < until:
            now += max(MIN_GAP_SECONDS, gap)
            yield now
            continue
        now = max(now, until)  # memoryless: draw anew at the new rate
        variance, hold = processes[index]
        levels[index] = rng.gammavariate(1 / variance, variance)
        heapq.heapreplace(changes, (until + rng.expovariate(1 / hold), index))
