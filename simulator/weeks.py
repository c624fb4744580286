"""Which weeks of wind experiments report, and how a site is sized to its farm. Fixed before any run. Pure.

Rule: these are the only places where a data set has a name. No policy, planner or governor knows them.

* Training, never reported: FTS-213 days 1–90, RTS-GMLC January to March.
* Reported: FTS days 127–133, 148–154 and its median week; the RTS median week and 2020-06-24..30.
* Median week: of the 39 whole weeks counted from the day after training, the one with the median mean
  capacity factor over all sites (each site counts alike); ties: the earlier.
* Right-sizing: a site's cluster draws at its peak what its farm gives at the p-th percentile of the whole
  record: p40 (FTS), p50 (RTS), p30 as sensitivity (FACTS.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from power_feed.wind_series import WindSeries

DAY_SECONDS = 86_400
DAYS_PER_WEEK = 7
MEDIAN_WEEKS = 39


class WeekError(ValueError):
    """A stretch of days that a record does not have; says which it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Whole days of a wind record, counted from 1; both ends belong to it."""

    name: str
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise WeekError(f"days {self.first}:{self.last}: days count from 1, the first not after the last")

    @property
    def count(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WindSet:
    """How experiments use one wind record."""

    name: str
    """As in `heron data list`."""
    is_far: bool
    """Its farms lie far from each other."""
    training: Days
    size_percentile: float
    reported: tuple[Days, ...]
    has_median_week: bool = True


FTS = WindSet(
    name="fts-213-wind",
    is_far=True,
    training=Days(name="fts-training", first=1, last=90),
    size_percentile=40.0,
    reported=(Days(name="fts-127", first=127, last=133), Days(name="fts-148", first=148, last=154)),
)
RTS = WindSet(
    name="rts-gmlc-wind",
    is_far=False,
    training=Days(name="rts-training", first=1, last=91),
    size_percentile=50.0,
    reported=(Days(name="rts-06-24", first=176, last=182),),
)
"""2020 is a leap year: 31 March is day 91, 24 June day 176."""
WIND_SETS: dict[str, WindSet] = {wind.name: wind for wind in (FTS, RTS)}
SENSITIVITY_PERCENTILE = 30.0


def week_names(wind: WindSet) -> tuple[str, ...]:
    """What `named_days` takes for this set, the median week last."""
    names = tuple(days.name for days in wind.reported)
    return (*names, median_name(wind)) if wind.has_median_week else names


def median_name(wind: WindSet) -> str:
    """`fts-median`, `rts-median`."""
    return f"{wind.training.name.removesuffix('-training')}-median"


def named_days(wind: WindSet, series: WindSeries, name: str) -> Days:
    """The days of a name: a reported week, the median week, or the training days.

    Raises:
        WeekError: no such name in this set.
    """
    for days in (*wind.reported, wind.training):
        if days.name == name:
            return days
    if wind.has_median_week and name == median_name(wind):
        return median_week(series, first_day=wind.training.last + 1, name=name)
    raise WeekError(f"{name}: no such week of {wind.name}; known are {', '.join(week_names(wind))}")


def steps_per_day(series: WindSeries) -> int:
    """Steps of the record in a day.

    Raises:
        WeekError: its period does not divide a day.
    """
    steps = DAY_SECONDS / series.period_seconds
    if steps < 1 or abs(steps - round(steps)) > 1e-6:
        raise WeekError(f"{series.name}: a step of {series.period_seconds:g} s does not divide a day")
    return round(steps)


def steps_of(series: WindSeries, days: Days) -> range:
    """The record's steps on these days; the record begins with day 1.

    Raises:
        WeekError: the record ends earlier.
    """
    per_day = steps_per_day(series)
    steps = range((days.first - 1) * per_day, days.last * per_day)
    if steps.stop > series.steps:
        raise WeekError(
            f"{series.name}: days {days.first}:{days.last}: it has {series.steps // per_day} whole days"
        )
    return steps


def mean_capacity_factor(series: WindSeries, steps: range) -> float:
    """Mean share of nameplate over all sites, each site alike, steps without a measurement left out.

    NaN where nothing was measured at all.
    """
    means = []
    for ratios in series.ratios.values():
        found = [value for value in ratios[steps.start : steps.stop] if not math.isnan(value)]
        if found:
            means.append(math.fsum(found) / len(found))
    return math.fsum(means) / len(means) if means else math.nan


def median_week(
    series: WindSeries, *, first_day: int, weeks: int = MEDIAN_WEEKS, name: str = "median"
) -> Days:
    """Of `weeks` whole weeks from `first_day`, the one with the median mean capacity factor.

    With an even number the lower of the two middle ones; of equal ones the earlier.

    Raises:
        WeekError: the record is too short.
    """
    found: list[tuple[float, int]] = []
    for week in range(weeks):
        first = first_day + week * DAYS_PER_WEEK
        days = Days(name=name, first=first, last=first + DAYS_PER_WEEK - 1)
        factor = mean_capacity_factor(series, steps_of(series, days))
        if math.isnan(factor):
            raise WeekError(f"{series.name}: days {days.first}:{days.last}: nothing was measured")
        found.append((factor, first))
    found.sort()
    median = found[(len(found) - 1) // 2][0]
    first = min(day for factor, day in found if factor == median)
    return Days(name=name, first=first, last=first + DAYS_PER_WEEK - 1)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks, as numpy's default; NaN values are left out.

    Raises:
        WeekError: no value, or a percentage outside 0–100.
    """
    if not 0 <= percent <= 100:
        raise WeekError(f"percentile {percent:g}: allowed is 0 to 100")
    ordered = sorted(value for value in values if not math.isnan(value))
    if not ordered:
        raise WeekError("no measured value to take a percentile of")
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def peak_ratios(series: WindSeries, percent: float) -> dict[str, float]:
    """Site → the share of its farm's nameplate that its cluster draws at its peak (right-sizing).

    Raises:
        WeekError: a site whose percentile is 0: no cluster is that small.
    """
    sized = {site: percentile(ratios, percent) for site, ratios in series.ratios.items()}
    for site, ratio in sized.items():
        if ratio <= 0:
            raise WeekError(
                f"{series.name}: {site}: percentile {percent:g} of its power is 0; take a higher one"
            )
    return sized
