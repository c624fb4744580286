"""How a forecast is scored."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from power_feed.backtest import BacktestError, PointPersistence, Score, backtest


def walk(steps: int, seed: int = 1) -> list[float]:
    """A random walk between 0 and 1."""
    rng = random.Random(seed)
    value, values = 0.5, []
    for _ in range(steps):
        value = min(1.0, max(0.0, value + rng.gauss(0.0, 0.05)))
        values.append(value)
    return values


def test_the_pinball_loss_is_that_of_its_definition() -> None:
    """q × (truth − quantile) above it, (1 − q) × (quantile − truth) below; the mean of three."""
    score = Score()
    score.add(0.5, (0.4, 0.5, 0.7))
    assert score.mean_loss_ratio == pytest.approx((0.1 * 0.1 + 0.0 + 0.1 * 0.2) / 3)
    score.add(0.3, (0.4, 0.5, 0.7))
    assert score.coverage_ratio(0) == 0.5
    assert score.coverage_ratio(2) == 1.0
    assert score.merged(score).mean_loss_ratio == pytest.approx(score.mean_loss_ratio)
    assert math.isnan(Score().mean_loss_ratio)


def test_point_persistence_has_the_quantiles_of_its_own_errors() -> None:
    """A tenth of the training errors lies below p10; values are clamped."""
    ratios = walk(5000)
    reference = PointPersistence.fit(ratios, 1)
    errors = [later - now for now, later in itertools.pairwise(ratios)]
    assert sum(error < reference.low for error in errors) / len(errors) == pytest.approx(0.1, abs=0.005)
    assert reference.quantiles(0.0)[0] == 0.0
    assert reference.quantiles(1.0)[2] == 1.0


def test_the_last_quarter_is_scored_and_nothing_is_fitted_from_it() -> None:
    """Another last quarter leaves the reference as it was, and the horizons are multiples of the step."""
    ratios = walk(8000)
    one = backtest(ratios, 900.0)
    assert list(one) == [900.0, 3600.0, 10_800.0, 21_600.0]
    assert one[900.0]["point"].forecasts == 2000 - 1
    assert one[21_600.0]["level"].forecasts == 2000 - 24
    for scores in one.values():
        assert 0.05 < scores["point"].coverage_ratio(0) < 0.15
        assert 0.05 < scores["level"].coverage_ratio(0) < 0.15
    calm = [*ratios[:6000], *[ratios[5999]] * 2000]
    [low, *_] = PointPersistence.fit(calm[:6000], 1).quantiles(0.5)
    assert low == PointPersistence.fit(ratios[:6000], 1).quantiles(0.5)[0]


def test_gaps_are_neither_forecast_from_nor_scored() -> None:
    """And a record that has too little says what it needs."""
    ratios = walk(8000)
    ratios[7000] = math.nan
    assert backtest(ratios, 900.0)[900.0]["point"].forecasts == 2000 - 1 - 2
    with pytest.raises(BacktestError, match="1000 are needed"):
        backtest(walk(500), 900.0)
