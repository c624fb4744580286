"""Power curves of turbines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from power_feed.synthetic import SyntheticWind
from power_feed.turbines import GE_CURVE, TURBINES, ge_power_ratio


@pytest.mark.parametrize(
    ("speed", "ratio"),
    [(0, 0.0), (2.43, 0.0), (8.0, 742 / 1500), (10.03, 0.8), (15.0, 1.0), (24.9, 1.0), (25.0, 0.0)],
)
def test_the_measured_curve(speed: float, ratio: float) -> None:
    """Its points, nothing below cut-in, nothing beyond cut-out."""
    assert ge_power_ratio(speed) == pytest.approx(ratio)


def test_between_points_it_is_linear_and_never_falls_before_cut_out() -> None:
    """Half way between two points lies half way between their powers."""
    for (low_speed, low), (high_speed, high) in pairwise(GE_CURVE):
        assert ge_power_ratio((low_speed + high_speed) / 2) == pytest.approx((low + high) / 2 / 1500)
    ratios = [ge_power_ratio(step / 10) for step in range(250)]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("name", TURBINES)
def test_synthetic_wind_takes_any_of_them(name: str) -> None:
    """Shares of nameplate, whatever the curve."""
    wind = SyntheticWind(preset="far", seed=1, farm=0, curve=TURBINES[name])  # type: ignore[index]
    ratios = [wind.ratio(step) or 0.0 for step in range(5000)]
    assert all(0.0 <= ratio <= 1.0 for ratio in ratios)
    assert 0.15 < sum(ratios) / len(ratios) < 0.45
