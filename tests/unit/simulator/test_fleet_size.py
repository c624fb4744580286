"""How large a simulated fleet is: right-sized farms, the cluster's peak, the SLO, watts that a load needs."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from support.scenes import no_file

from fleet import capacity
from fleet.capacity import Work
from power_feed.wind_series import WindSeries
from simulator.cell import Cell, CellError
from simulator.fleet_size import (
    SHIFT_DAYS,
    _watts,
    model_of,
    nameplates_of,
    needed_watts,
    peak_requests_per_second,
    profiles_of,
    sites_of,
    slo_of,
)
from simulator.inputs import read_inputs

SERIES = WindSeries(
    name="made-up",
    period_seconds=3600.0,
    ratios={"North Sea": array("d", [0.1, 0.2, 0.3, 0.4, 0.5]), "b": array("d", [0.2, 0.4, 0.6, 0.8, 1.0])},
)
CELL = Cell(wind="made-up", first_day=1, last_day=1, size_percentile=50.0, trace="synthetic-conv", load=0.5)
WORK = Work(prompt_tokens=1154, output_tokens=211)


def test_a_cluster_draws_at_its_peak_what_its_farm_gives_at_the_percentile() -> None:
    """Half of the time the farm has more: nameplate = peak draw ÷ the median share."""
    sites = sites_of(CELL, SERIES)
    peak = model_of(sites[0]).full_watts
    assert nameplates_of(CELL, SERIES, sites) == pytest.approx({"north-sea": peak / 0.3, "b": peak / 0.6})


def test_further_sites_read_the_columns_days_later() -> None:
    """In turn, with names of their own; round trips are spread over all."""
    sites = sites_of(CELL.with_(site_count=5), SERIES)
    assert [site.site_id for site in sites] == ["north-sea", "b", "north-sea-2", "b-2", "north-sea-3"]
    assert [site.wind_shift_days for site in sites] == [0, 0, SHIFT_DAYS, SHIFT_DAYS, 2 * SHIFT_DAYS]
    assert sites[0].round_trip_seconds == pytest.approx(0.01)
    assert sites[-1].round_trip_seconds == pytest.approx(0.05)
    assert {site.round_trip_seconds for site in sites_of(CELL.with_(round_trip_seconds=0.1), SERIES)} == {0.1}
    with pytest.raises(CellError, match="allowed is 1 to"):
        sites_of(CELL.with_(site_count=0), SERIES)


def test_sites_of_a_farm_share_its_column_and_a_nameplate_for_all() -> None:
    """So many in a row; their farm has the first one's name, and is as many times as large."""
    sites = sites_of(CELL.with_(sites_per_farm=2), SERIES)
    assert [site.site_id for site in sites] == ["north-sea", "north-sea-2", "b", "b-2"]
    assert [site.wind for site in sites] == ["North Sea", "North Sea", "b", "b"]
    assert [site.farm_id for site in sites] == ["farm-north-sea"] * 2 + ["farm-b"] * 2
    alone = nameplates_of(CELL, SERIES, sites_of(CELL, SERIES))
    shared = nameplates_of(CELL, SERIES, sites)
    assert shared["north-sea"] == shared["north-sea-2"] == pytest.approx(2 * alone["north-sea"])
    assert [site.farm for site in sites_of(CELL, SERIES)] == [None, None]
    six = sites_of(CELL.with_(sites_per_farm=2, site_count=6), SERIES)
    assert [site.wind_shift_days for site in six] == [0, 0, 0, 0, SHIFT_DAYS, SHIFT_DAYS]


def test_a_column_is_known_in_upper_and_lower_case() -> None:
    """As it is written where there is one such, else whatever the case."""
    cell = CELL.with_(site_count=2, each_site=((("wind", "north sea"),), (("wind", "B"),)))
    assert [site.wind for site in sites_of(cell, SERIES)] == ["North Sea", "b"]
    both = WindSeries(
        name="w", period_seconds=300.0, ratios={"A": SERIES.ratios["b"], "a": SERIES.ratios["b"]}
    )
    assert [site.wind for site in sites_of(CELL, both)] == ["A", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites_per_farm": 0}, "must be at least 1"),
        ({"sites_per_farm": 2, "site_count": 3}, "3 sites do not make farms of 2"),
        (
            {
                "sites_per_farm": 2,
                "site_count": 2,
                "each_site": ((("wind", "North Sea"),), (("wind", "b"),)),
            },
            "b: other wind than north-sea",
        ),
    ],
)
def test_farms_that_cannot_be_meant_are_told(changes: dict[str, Any], message: str) -> None:
    """What is left over, and two winds at one farm."""
    with pytest.raises(CellError, match=message):
        sites_of(CELL.with_(**changes), SERIES)


def test_the_slo_is_five_times_one_request_alone() -> None:
    """On the fastest of the configurations, at full clock and without the network."""
    sites = sites_of(CELL, SERIES)
    alone = [capacity.reference_slo([profile], WORK, factor=1.0) for profile in profiles_of(sites[0])]
    found = slo_of(sites, WORK)
    assert found.ttft_seconds == pytest.approx(5 * min(one.ttft_seconds for one in alone))
    assert found.e2e_seconds == pytest.approx(5 * min(one.e2e_seconds for one in alone))


def test_the_peak_is_the_sum_of_the_sites_best() -> None:
    """Each GPU split as serves most within the SLO, at full clock."""
    sites = sites_of(CELL, SERIES)
    slo = slo_of(sites, WORK)
    best = max(
        8
        // profile.tensor_parallel_degree
        * capacity.requests_per_second(
            profile, profile.full_clock_mhz, WORK, max_concurrency=sites[0].max_concurrency, slo=slo
        )
        for profile in profiles_of(sites[0])
    )
    assert peak_requests_per_second(sites, WORK) == pytest.approx(2 * best)
    assert peak_requests_per_second(sites[:1], WORK) == pytest.approx(best)


def test_needed_watts_rise_with_the_rate_up_to_the_peak() -> None:
    """Nothing needs nothing; the peak's need fits into what the site can draw."""
    site = sites_of(CELL, SERIES)[0]
    slo = slo_of([site], WORK)
    table = needed_watts(site, WORK, slo)
    rates, watts = zip(*table, strict=True)
    assert table[0] == (0.0, 0.0)
    assert list(rates) == sorted(rates)
    assert list(watts) == sorted(watts)
    assert rates[-1] == pytest.approx(peak_requests_per_second([site], WORK))
    assert model_of(site).server_idle_watts < watts[1]
    assert watts[-1] <= model_of(site).full_watts * 1.001


def test_load_is_a_share_of_the_peak() -> None:
    """The trace's mean rate, scaled."""

    inputs = read_inputs(CELL.with_(wind="synthetic-far", size_percentile=40.0), no_file)
    mean = inputs.scale * inputs.load.mean_rate
    assert mean == pytest.approx(0.5 * inputs.peak_requests_per_second)


def test_needed_watts_have_the_prompts_in_them() -> None:
    """As many tokens take more watts the more of them are read."""
    site = sites_of(CELL, SERIES)[0]
    model, profile = model_of(site), site.profile
    rate = 3.0
    running = capacity.mean_running(profile, 1980, WORK, rate, max_concurrency=site.max_concurrency)
    batch = capacity.busy_watts(profile, 1980, running)
    reading = capacity.prefill_ratio(profile, 1980, WORK, rate)
    assert 0.3 < reading < 0.5
    stopped = profile.stopped_watts
    added = reading * (profile.prefill_watts(1980) - profile.watts(running, 1980))
    found = _watts(model, profile, 1980, 1, rate, WORK, site.max_concurrency)
    assert found == pytest.approx(model.power.site_watts(batch + added + stopped))
