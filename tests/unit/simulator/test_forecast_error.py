"""Forecasts that are wrong on purpose."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from power_feed.forecast import QuantileForecast
from simulator.forecast_error import ForecastError

HORIZONS = (10.0, 900.0, 3600.0, 21_600.0)
STEP_SECONDS = 10.0


def factors(error_ratio: float, steps: int, seed: int = 1) -> list[dict[float, float]]:
    """By horizon, of one forecast every ten seconds; p50 is 1 W."""
    error = ForecastError(error_ratio, random.Random(seed))
    right = tuple(
        QuantileForecast(horizon_seconds=one, p10_watts=0.5, p50_watts=1.0, p90_watts=2.0) for one in HORIZONS
    )
    found = []
    for step in range(steps):
        wrong = error.on(right, step * STEP_SECONDS)
        assert all(one.p10_watts == one.p50_watts / 2 and one.p90_watts == one.p50_watts * 2 for one in wrong)
        found.append({one.horizon_seconds: one.p50_watts for one in wrong})
    return found


def test_the_spread_grows_with_the_root_of_the_horizon_to_an_hour() -> None:
    """About 1 in the mean, from the first forecast on."""
    first = [factors(0.2, 1, seed)[0] for seed in range(4000)]
    for horizon in HORIZONS:
        values = [one[horizon] for one in first]
        assert fmean(values) == pytest.approx(1.0, abs=0.02)
        assert pstdev(values) == pytest.approx(0.2 * min(1.0, math.sqrt(horizon / 3600)), rel=0.1)


def test_what_is_wrong_stays_wrong_for_about_its_horizon() -> None:
    """Correlation e⁻¹ after the horizon, and hardly any change from one forecast to the next."""
    found = factors(0.2, 200_000)
    errors = [one[3600.0] - 1 for one in found]
    lag = round(3600 / STEP_SECONDS)
    products = fmean(one * later for one, later in zip(errors, errors[lag:], strict=False))
    assert products / pstdev(errors) ** 2 == pytest.approx(math.exp(-1), abs=0.12)
    steps = [later - one for one, later in pairwise(errors)]
    assert pstdev(steps) < 0.1 * pstdev(errors)


def test_all_horizons_are_wrong_together_and_power_is_never_negative() -> None:
    """Too much in a quarter of an hour is too much in an hour."""
    found = factors(3.0, 20_000)
    near, far = ([one[horizon] - 1 for one in found] for horizon in (900.0, 3600.0))
    assert fmean(math.copysign(1, a) == math.copysign(1, b) for a, b in zip(near, far, strict=True)) > 0.7
    assert min(min(one.values()) for one in found) == 0.0


def test_without_an_error_forecasts_are_left_alone() -> None:
    """The same objects."""
    right = (QuantileForecast(horizon_seconds=60.0, p10_watts=1.0, p50_watts=2.0, p90_watts=3.0),)
    assert ForecastError(0.0, random.Random(1)).on(right, 5.0) is right
