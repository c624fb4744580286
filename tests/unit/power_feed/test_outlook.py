"""From the farm's quantiles to its sites'."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.records import ForecastPoint
from power_feed.allocator import SiteClaim
from power_feed.forecast import QuantileForecast
from power_feed.outlook import site_forecasts


def claim(site_id: str, least: float = 1000.0, most: float = 5000.0) -> SiteClaim:
    return SiteClaim(site_id=site_id, min_grant_watts=least, max_grant_watts=most)


FARM = QuantileForecast(horizon_seconds=900.0, p10_watts=3000.0, p50_watts=5500.0, p90_watts=9000.0)


def test_each_quantile_is_filled_into_the_sites() -> None:
    """The first server keeps its power at p10; the second only has any at p90."""
    made = site_forecasts([FARM], [claim("a"), claim("b")])
    assert made["a"] == (
        ForecastPoint(horizon_seconds=900.0, p10_watts=3000.0, p50_watts=5000.0, p90_watts=5000.0),
    )
    assert made["b"] == (
        ForecastPoint(horizon_seconds=900.0, p10_watts=0.0, p50_watts=0.0, p90_watts=4000.0),
    )


def test_horizons_are_wall_seconds_and_losses_are_taken_off() -> None:
    """A replay at 60 lives through the quarter hour in 15 s."""
    made = site_forecasts([FARM], [claim("a")], deliverable_watts=lambda watts: watts / 2, speed=60.0)
    assert made["a"][0].horizon_seconds == 15.0
    assert made["a"][0].p10_watts == 1500.0


def test_without_a_forecast_there_is_none() -> None:
    """Every site has an empty one."""
    assert site_forecasts([], [claim("a")]) == {"a": ()}


@given(
    watts=st.lists(st.floats(0.0, 20_000.0), min_size=3, max_size=3),
    least=st.lists(st.floats(0.0, 4000.0), min_size=3, max_size=3),
)
def test_a_sites_quantiles_are_in_order(watts: list[float], least: list[float]) -> None:
    """Even where a server that starts takes another's power."""
    low, middle, high = sorted(watts)
    farm = QuantileForecast(horizon_seconds=1.0, p10_watts=low, p50_watts=middle, p90_watts=high)
    sites = [claim(name, least[index]) for index, name in enumerate("abc")]
    for [point] in site_forecasts([farm], sites).values():
        assert point.p10_watts <= point.p50_watts <= point.p90_watts
