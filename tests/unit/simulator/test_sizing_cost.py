"""What a GPU-hour costs, by hand, and where both sides are even."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from simulator.sizing import HOURS_PER_YEAR, FleetSize, Sizing, size_fleet
from simulator.sizing_cost import GPUS, SOURCES, GpuKind, Prices, capital_recovery, cost, fixed_usd_per_hour

GPU = GpuKind(
    name="g",
    serving_watts=800,
    host_watts=200,
    usd=8760.0,
    tokens_per_second=1000,
    source="by hand",
    price_source="by hand",
)
PRICES = Prices(
    gpu_usd=8760.0,
    server_years=1.0,
    facility_usd_per_watt=8.76,
    wind_facility_usd_per_watt=8.76,
    facility_years=10.0,
    interest_ratio=0.0,
    maintenance_ratio=0.0,
    wind_site_usd_per_year=0.0,
    grid_usd_per_megawatt_hour=100.0,
    wind_usd_per_megawatt_hour=20.0,
)
"""Per GPU-hour: server $1, building $0.10, energy $0.10 on the grid and $0.02 at the farm."""


def fleet(use: float) -> FleetSize:
    """One farm of 8 MW whose cluster of 4 MW has its full power for `use` of the time, else none."""
    steps = np.array([[0.5] * round(use * 100) + [0.0] * round((1 - use) * 100)])
    return size_fleet(steps, 100, Sizing(farm_megawatts={"a": 8.0}, gpu_watts=1000.0))


def test_fixed_costs_are_shared_by_the_hours_that_there_is_power() -> None:
    """$1.10 of them at half the hours is $2.20, and 2 ¢ of energy."""
    found = cost(fleet(0.5), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    assert found is not None
    assert found.wind_usd_per_gpu_hour == pytest.approx(2.22)
    assert found.grid_usd_per_gpu_hour == pytest.approx(1.20)
    assert found.wind_usd_per_million_tokens == pytest.approx(2.22 / 3.6)


def test_at_the_use_said_to_be_even_both_cost_the_same() -> None:
    """1.10 ÷ (1.20 − 0.02)."""
    found = cost(fleet(0.5), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    assert found is not None
    assert found.even_use_ratio == pytest.approx(1.10 / 1.18)
    even = replace(fleet(0.5), use_ratio=found.even_use_ratio)
    again = cost(even, GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    assert again is not None
    assert again.wind_usd_per_gpu_hour == pytest.approx(again.grid_usd_per_gpu_hour)


def test_at_the_prices_said_to_be_even_both_cost_the_same() -> None:
    """The grid's energy dearer, or (with a cheaper building at the farm) the GPU cheaper."""
    found = cost(fleet(0.8), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    assert found is not None
    assert found.even_gpu_usd is not None
    for even in (
        replace(PRICES, grid_usd_per_megawatt_hour=found.even_grid_usd_per_megawatt_hour),
        replace(PRICES, gpu_usd=found.even_gpu_usd),
    ):
        again = cost(fleet(0.8), GPU, even, gpu_watts=1000, overhead_ratio=1.0)
        assert again is not None
        assert again.wind_usd_per_gpu_hour == pytest.approx(again.grid_usd_per_gpu_hour)


def test_a_building_is_paid_by_its_it_watts() -> None:
    """$0.10 an hour for 1,000 W; 8 ¢ where 800 W of them are IT."""
    plain = cost(fleet(1.0), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    cooled = cost(fleet(1.0), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.25)
    assert plain is not None
    assert cooled is not None
    assert plain.grid_usd_per_gpu_hour - cooled.grid_usd_per_gpu_hour == pytest.approx(0.02)
    assert plain.wind_usd_per_gpu_hour - cooled.wind_usd_per_gpu_hour == pytest.approx(0.02)
    one = {"gpus": 1, "gpu_watts": 1100.0, "wind_sites": 0}
    assert fixed_usd_per_hour(PRICES, **one) == fixed_usd_per_hour(PRICES, **one, overhead_ratio=1.1)


def test_where_no_gpu_is_cheap_enough_there_is_no_even_price() -> None:
    """Dearer energy and dearer buildings cannot be outweighed."""
    found = cost(
        fleet(0.5), GPU, replace(PRICES, wind_facility_usd_per_watt=100.0), gpu_watts=1000, overhead_ratio=1.0
    )
    assert found is not None
    assert found.even_gpu_usd is None
    assert found.even_use_ratio > 1


def test_every_site_costs_something_more() -> None:
    """$4,000 a year over 4,000 GPUs."""
    sited = cost(
        fleet(1.0), GPU, replace(PRICES, wind_site_usd_per_year=4000.0), gpu_watts=1000, overhead_ratio=1.0
    )
    plain = cost(fleet(1.0), GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0)
    assert sited is not None
    assert plain is not None
    assert sited.wind_usd_per_gpu_hour - plain.wind_usd_per_gpu_hour == pytest.approx(1 / HOURS_PER_YEAR)


def test_a_fleet_without_gpus_costs_nothing_that_could_be_said() -> None:
    """None, not a division by zero."""
    nothing = size_fleet(np.zeros((1, 4)), 50, Sizing(farm_megawatts={"a": 8.0}, gpu_watts=1000.0))
    assert cost(nothing, GPU, PRICES, gpu_watts=1000, overhead_ratio=1.0) is None


def test_capital_recovery_is_the_annuity() -> None:
    """A tenth a year without interest; 10 % over two years is 0.5762 by the textbook."""
    assert capital_recovery(10, 0.0) == pytest.approx(0.1)
    assert capital_recovery(2, 0.10) == pytest.approx(0.57619, abs=1e-5)
    assert capital_recovery(10, 1e-17) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="years must be above 0"):
        capital_recovery(0, 0.1)


def test_every_price_says_where_it_comes_from() -> None:
    """Or that it is assumed."""
    assert set(SOURCES) == {field.name for field in fields(Prices)}
    assert all(kind.source and kind.price_source for kind in GPUS.values())
