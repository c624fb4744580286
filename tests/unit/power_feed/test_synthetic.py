"""The generator against the statistics that FACTS.md publishes of the measured sets."""

from __future__ import annotations

import statistics
from functools import cache
from itertools import combinations, pairwise

import pytest

from power_feed.synthetic import MAX_STEPS, MODELS, PUBLISHED, SyntheticWind, WindPreset, power_ratio

SEED = 20261123
FARMS: dict[WindPreset, int] = {"near": 4, "far": 5}


@cache
def a_year(preset: WindPreset) -> list[list[float]]:
    """As many farms as the measured set has, over a year."""
    steps = int(365 * 86_400 / MODELS[preset].period_seconds)
    farms = [SyntheticWind(preset=preset, seed=SEED, farm=farm) for farm in range(FARMS[preset])]
    return [[farm.ratio(step) or 0.0 for step in range(steps)] for farm in farms]


def autocorrelation(values: list[float], lag: int) -> float:
    mean = statistics.fmean(values)
    centred = [value - mean for value in values]
    products = sum(a * b for a, b in zip(centred, centred[lag:], strict=False))
    return products / sum(value * value for value in centred)


@pytest.mark.parametrize("preset", ["near", "far"])
def test_capacity_factors_are_as_published(preset: WindPreset) -> None:
    """Every farm's year within 0.05 of the published range."""
    low, high = PUBLISHED[preset].capacity_factor
    for year in a_year(preset):
        assert low - 0.05 <= statistics.fmean(year) <= high + 0.05, f"seed {SEED}"


@pytest.mark.parametrize("preset", ["near", "far"])
def test_autocorrelation_is_as_published(preset: WindPreset) -> None:
    """15 minutes within 0.01 and one hour within 0.02 of the published range."""
    lag = round(900 / MODELS[preset].period_seconds)
    for year in a_year(preset):
        low, high = PUBLISHED[preset].autocorrelation_15_minutes
        assert low - 0.01 <= autocorrelation(year, lag) <= high + 0.01, f"seed {SEED}"
        low, high = PUBLISHED[preset].autocorrelation_1_hour
        assert low - 0.02 <= autocorrelation(year, 4 * lag) <= high + 0.02, f"seed {SEED}"


@pytest.mark.parametrize("preset", ["near", "far"])
def test_farms_blow_together_as_published(preset: WindPreset) -> None:
    """The correlation of every pair within 0.05 of the published range."""
    low, high = PUBLISHED[preset].pair_correlation
    for one, other in combinations(a_year(preset), 2):
        assert low - 0.05 <= statistics.correlation(one, other) <= high + 0.05, f"seed {SEED}"


@pytest.mark.parametrize("preset", ["near", "far"])
def test_the_worst_step_is_as_published(preset: WindPreset) -> None:
    """The largest change in one step of the year within 0.05 of the published range."""
    low, high = PUBLISHED[preset].worst_step
    for year in a_year(preset):
        worst = max(abs(after - before) for before, after in pairwise(year))
        assert low - 0.05 <= worst <= high + 0.05, f"seed {SEED}"


def test_the_same_seed_gives_the_same_wind_in_any_order() -> None:
    """A farm's value at a step does not depend on what was asked before."""
    forwards = SyntheticWind(preset="far", seed=1, farm=2)
    backwards = SyntheticWind(preset="far", seed=1, farm=2)
    steps = [0, 100, 9000]
    assert [forwards.ratio(step) for step in steps] == [backwards.ratio(step) for step in reversed(steps)][
        ::-1
    ]


def test_seeds_and_farms_differ() -> None:
    """Another seed or another farm is other wind."""
    series = {
        tuple(SyntheticWind(preset="far", seed=seed, farm=farm).ratio(step) for step in range(100))
        for seed, farm in ((1, 0), (1, 1), (2, 0))
    }
    assert len(series) == 3


def test_a_mean_speed_replaces_the_presets() -> None:
    """More wind, more power."""
    calm = SyntheticWind(preset="far", seed=1, farm=0, mean_speed_metres_per_second=4.0)
    windy = SyntheticWind(preset="far", seed=1, farm=0, mean_speed_metres_per_second=10.0)
    assert sum(calm.ratio(step) or 0 for step in range(1000)) < sum(
        windy.ratio(step) or 0 for step in range(1000)
    )


def test_beyond_its_bounds_there_is_nothing() -> None:
    """Neither before the first step nor after the last is anything invented."""
    wind = SyntheticWind(preset="far", seed=1, farm=0)
    assert wind.ratio(-1) is None
    assert wind.ratio(MAX_STEPS) is None


@pytest.mark.parametrize(("speed", "ratio"), [(0.0, 0.0), (3.0, 0.0), (12.0, 1.0), (30.0, 1.0)])
def test_the_power_curve_is_flat_at_both_ends(speed: float, ratio: float) -> None:
    """Nothing below cut-in, rated power above rated speed."""
    assert power_ratio(speed) == ratio


def test_the_power_curve_grows_with_the_cube_between() -> None:
    """Half the way in speed is far less than half the power."""
    assert power_ratio(7.5) == pytest.approx((7.5**3 - 27) / (1728 - 27))
