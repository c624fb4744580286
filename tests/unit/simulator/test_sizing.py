"""Right-sizing by hand-made wind, and the figures that FACTS.md gives for the official files."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import official_data

from power_feed.wind_files import read_wind_file
from power_feed.wind_series import WindSeries
from simulator.sizing import (
    HOURS_PER_YEAR,
    Sizing,
    SizingError,
    correlations,
    duration_curves,
    known_power,
    size_fleet,
)

GPU_WATTS = 1000.0
NAN = math.nan


def series(**farms: list[float]) -> WindSeries:
    ratios = {name: array("d", values) for name, values in farms.items()}
    return WindSeries(name="hand.csv", period_seconds=3600, ratios=ratios)


def sizing(megawatts: float = 8.0, **changes: float) -> Sizing:
    """Farms a and b; a server of eight GPUs draws 8 kW."""
    return Sizing(farm_megawatts={"a": megawatts, "b": megawatts}, gpu_watts=GPU_WATTS, **changes)


OPPOSITE = known_power(series(a=[1.0, 0.0, 0.5, 0.5], b=[0.0, 1.0, 0.5, 0.5]), ("a", "b"))
"""What one has the other lacks."""


def test_a_cluster_is_the_percentile_of_its_farms_power() -> None:
    """The median of 0, ½, ½, 1 is ½: 4 of 8 MW, 500 servers, used for (1 + 0 + 1 + 1) ÷ 4 of the time."""
    fleet = size_fleet(OPPOSITE, 50, sizing())
    first = fleet.farms[0]
    assert (first.cluster_megawatts, first.gpus) == (pytest.approx(4.0), 4000)
    assert first.use_ratio == pytest.approx(0.75)
    assert first.capacity_factor == pytest.approx(0.5)
    assert (fleet.gpus, fleet.cluster_megawatts) == (8000, pytest.approx(8.0))
    assert fleet.use_ratio == pytest.approx(0.75)


def test_farms_that_complement_each_other_have_no_shortage_together() -> None:
    """Alone each is dark a quarter of the year; together never below a half."""
    fleet = size_fleet(OPPOSITE, 50, sizing())
    assert fleet.shortage_hours_alone == pytest.approx(HOURS_PER_YEAR / 4)
    assert fleet.shortage_hours_per_year == 0
    assert fleet.firm_ratio_alone < fleet.firm_ratio
    assert correlations(OPPOSITE)[0][1] == pytest.approx(-1)
    alone, together = duration_curves(OPPOSITE, fleet)
    assert alone[0].tolist() == pytest.approx([1, 1, 1, 0])
    assert together.tolist() == pytest.approx([1, 1, 0.5, 0.5])


def test_energy_that_a_connection_cannot_take_is_used_first() -> None:
    """2 of 8 MW may be exported: of 4 MW in the mean 2.5 are left over; a 4-MW cluster takes 2 of them."""
    fleet = size_fleet(OPPOSITE, 50, sizing(export_ratio=0.25))
    assert fleet.wind_megawatt_hours == pytest.approx(8 * HOURS_PER_YEAR)
    assert fleet.used_megawatt_hours == pytest.approx(6 * HOURS_PER_YEAR)
    assert fleet.curtailed_megawatt_hours == pytest.approx(2 * (6 + 2 + 2) / 4 * HOURS_PER_YEAR)
    assert fleet.curtailed_used_megawatt_hours == pytest.approx(2 * (4 + 2 + 2) / 4 * HOURS_PER_YEAR)
    without = size_fleet(OPPOSITE, 50, sizing())
    assert without.curtailed_used_megawatt_hours == pytest.approx(without.used_megawatt_hours)


def test_a_farm_whose_percentile_is_nothing_gets_no_cluster() -> None:
    """Its figures are unknown, not 0, and the fleet is the others."""
    power = known_power(series(a=[0.0, 0.0, 0.0, 1.0], b=[0.5, 0.5, 0.5, 0.5]), ("a", "b"))
    fleet = size_fleet(power, 30, sizing())
    assert fleet.farms[0].gpus == 0
    assert math.isnan(fleet.farms[0].use_ratio)
    assert fleet.use_ratio == pytest.approx(1.0)
    assert fleet.shortage_hours_alone == 0
    assert len(duration_curves(power, fleet)[0]) == 1


def test_no_wind_at_all_is_a_fleet_without_gpus() -> None:
    """Nothing is divided by zero."""
    power = known_power(series(a=[0.0, 0.0], b=[0.0, 0.0]), ("a", "b"))
    fleet = size_fleet(power, 50, sizing())
    assert (fleet.gpus, fleet.used_megawatt_hours) == (0, 0)
    assert math.isnan(fleet.use_ratio)
    assert math.isnan(fleet.firm_ratio_alone)
    assert math.isnan(correlations(power)[0][1])
    assert duration_curves(power, fleet)[0] == []


@pytest.mark.filterwarnings("error")
def test_one_step_has_no_correlation() -> None:
    """NaN, without a warning of numpy's."""
    power = known_power(series(a=[0.1, NAN], b=[0.2, 0.3]), ("a", "b"))
    assert all(math.isnan(value) for row in correlations(power) for value in row)


def test_steps_that_some_farm_did_not_measure_are_left_out() -> None:
    """An aggregate needs all of them; above nameplate counts as nameplate."""
    power = known_power(series(a=[0.1, NAN, 1.1], b=[0.2, 0.3, 0.4]), ("a", "b"))
    assert power.tolist() == [[0.1, 1.0], [0.2, 0.4]]


@pytest.mark.parametrize(
    ("farms", "message"),
    [
        (("c",), "no farm called c; it has a, b"),
        ((), "none given"),
        (("a", "b"), "no step"),
        (("a", "a"), "once"),
    ],
)
def test_power_that_is_not_there_is_refused(farms: tuple[str, ...], message: str) -> None:
    """With the names that there are."""
    with pytest.raises(SizingError, match=message):
        known_power(series(a=[NAN, 0.1], b=[0.2, NAN]), farms)


@pytest.mark.parametrize(
    ("percent", "given", "message"),
    [
        (101, sizing(), "percentile 101"),
        (50, sizing(megawatts=0), "a: 0"),
        (50, sizing(shortage_ratio=1.0), "shortage_ratio"),
        (50, sizing(export_ratio=-0.1), "export_ratio"),
    ],
)
def test_a_sizing_that_makes_no_sense_is_refused(percent: float, given: Sizing, message: str) -> None:
    """What, and what is allowed."""
    with pytest.raises(SizingError, match=message):
        size_fleet(OPPOSITE, percent, given)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40),
    st.floats(0, 100),
    st.floats(0, 1),
)
def test_a_fleet_never_uses_more_than_there_is(
    steps: list[tuple[float, float]], percent: float, export: float
) -> None:
    """Neither wind nor clusters nor what would be curtailed; a lower percentile is used no less."""
    power = np.array(steps).T
    given = sizing(export_ratio=export)
    fleet = size_fleet(power, percent, given)
    slack = 1e-6
    assert fleet.used_megawatt_hours <= fleet.wind_megawatt_hours + slack
    assert fleet.used_megawatt_hours <= fleet.cluster_megawatts * HOURS_PER_YEAR + slack
    assert fleet.curtailed_used_megawatt_hours <= fleet.curtailed_megawatt_hours + slack
    assert fleet.curtailed_used_megawatt_hours <= fleet.used_megawatt_hours + slack
    smaller = size_fleet(power, percent / 2, given)
    assert smaller.gpus <= fleet.gpus
    for less, more in zip(smaller.farms, fleet.farms, strict=True):
        if less.gpus:
            assert less.use_ratio >= more.use_ratio - 1e-9


FACTS = [
    ("rts_gmlc_REAL_TIME_wind.csv", {20: 0.93, 30: 0.83, 40: 0.72, 50: 0.62}),
    ("fts213_Wind_data.csv", {30: 0.77, 40: 0.71, 50: 0.64}),
]


@pytest.mark.official_data
@pytest.mark.parametrize(("name", "uses"), FACTS)
def test_the_use_of_right_sized_fleets_is_what_facts_says(name: str, uses: dict[int, float]) -> None:
    """FACTS.md, Wind: aggregate use of the cluster, equal farms."""
    wind = read_wind_file(official_data.path(name))
    power = known_power(wind, wind.sites)
    equal = Sizing(farm_megawatts=dict.fromkeys(wind.sites, 1000.0), gpu_watts=923.0)
    for percent, use in uses.items():
        assert size_fleet(power, percent, equal).use_ratio == pytest.approx(use, abs=0.0051)


@pytest.mark.official_data
def test_far_farms_halve_deep_shortages_and_near_ones_hardly_change_them() -> None:
    """FACTS.md: by a third to a half on FTS-213, hardly on RTS-GMLC."""
    cuts = {}
    for name, percents in (("fts213_Wind_data.csv", (30, 40)), ("rts_gmlc_REAL_TIME_wind.csv", (40, 50))):
        wind = read_wind_file(official_data.path(name))
        power = known_power(wind, wind.sites)
        equal = Sizing(farm_megawatts=dict.fromkeys(wind.sites, 1000.0), gpu_watts=923.0)
        fleets = [size_fleet(power, percent, equal) for percent in percents]
        cuts[name] = [1 - one.shortage_hours_per_year / one.shortage_hours_alone for one in fleets]
    assert all(0.33 < cut < 0.6 for cut in cuts["fts213_Wind_data.csv"])
    assert all(cut < 0.2 for cut in cuts["rts_gmlc_REAL_TIME_wind.csv"])
