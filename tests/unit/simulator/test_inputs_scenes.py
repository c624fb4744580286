"""From a cell to its scenes: what is the same for all policies, and what each circumstance changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measured import document_of, row_of
from support.scenes import no_file

from fleet.profile import LLAMA_70B_H100_TP4
from simulator.cell import Cell, CellError, Sample
from simulator.inputs import Inputs, blocks_of, files_of, read_inputs, scene, shifted_seconds
from simulator.weeks import DAY_SECONDS
from simulator.world import Scene

CELL = Cell(
    wind="synthetic-far", first_day=1, last_day=1, trace="synthetic-conv", sample=Sample.parse("12h:3m:1m")
)


def inputs(**changes: Any) -> Inputs:
    return read_inputs(CELL.with_(**changes), no_file)


def first(**changes: Any) -> Scene:
    given = inputs(**changes)
    return scene(given, *blocks_of(given.cell)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "round_robin"},
        {"policy": "planned"},
        {"control": "dynamo_like"},
        {"resume": False},
        {"report_delay_seconds": 5.0},
        {"length_error_ratio": 1.0},
    ],
)
def test_wind_and_requests_are_the_same_whoever_decides(changes: dict[str, Any]) -> None:
    """Common random numbers: what is drawn depends on inputs and seed only."""
    one, other = first(), first(**changes)
    assert all(np.array_equal(one.watts[site], other.watts[site]) for site in one.watts)
    for name in ("at_seconds", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one.arrivals, name), getattr(other.arrivals, name))
    assert one.seed == other.seed
    assert one.past_lengths == other.past_lengths


def test_another_seed_is_other_wind_and_other_requests() -> None:
    """Both of them."""
    one, other = first(), first(seed=2)
    assert not np.array_equal(one.watts["farm1"], other.watts["farm1"])
    assert not np.array_equal(one.arrivals.at_seconds[:50], other.arrivals.at_seconds[:50])


def test_constant_power_is_all_that_a_site_can_use() -> None:
    """At every second, and nothing that a forecast could learn from."""
    found = first(constant_power=True)
    for site_id, watts in found.watts.items():
        assert np.all(watts == found.nameplate_watts[site_id])
    assert not found.history


def test_errors_and_delays_reach_the_scene() -> None:
    """Of reports, forecasts and lengths."""
    found = first(
        report_delay_seconds=3.0,
        report_loss_ratio=0.25,
        forecast_error_ratio=0.4,
        length_error_ratio=0.5,
    )
    assert found.telemetry.report_delay_seconds == 3.0
    assert found.telemetry.report_loss_ratio == 0.25
    assert found.telemetry.forecast_error_ratio == 0.4
    assert found.router.length_error_ratio == 0.5


def test_no_turbulence_is_a_straight_line_between_samples() -> None:
    """Three minutes within one step of the record."""
    smooth, rough = first(turbulence_ratio=0.0), first()
    steps = np.diff(smooth.watts["farm1"][:180])
    assert np.allclose(steps, steps[0], atol=1e-6)
    assert np.std(np.diff(rough.watts["farm1"][:180])) > 0


def test_more_sites_than_columns_read_them_days_later() -> None:
    """Other weather, other names; at the record's end it goes round."""
    found = inputs(site_count=12)
    assert [site.site_id for site in found.sites][4:7] == ["farm5", "farm1-2", "farm2-2"]
    assert [site.wind_shift_days for site in found.sites] == [0] * 5 + [9] * 5 + [18] * 2
    made = scene(found, *blocks_of(found.cell)[0])
    assert not np.array_equal(made.watts["farm1"], made.watts["farm1-2"])
    late = inputs(site_count=12, first_day=85, last_day=85)
    record = late.series.steps * late.series.period_seconds
    for site in late.sites:
        begin = shifted_seconds(late, site, 0)
        assert 0 <= begin <= record - DAY_SECONDS
        assert (begin == 84 * DAY_SECONDS) is (site.wind_shift_days == 0)


def test_sites_of_a_farm_have_its_wind() -> None:
    """One draw for all of them, another one for the next farm, trips as well."""
    found = first(sites_per_farm=2, trips_per_day=500.0)
    assert len(found.sites) == 10
    assert found.watts["farm1"] is found.watts["farm1-2"]
    assert found.history["farm1"] is found.history["farm1-2"]
    assert not np.array_equal(found.watts["farm1"], found.watts["farm2"])
    assert np.max(found.watts["farm1"]) <= found.nameplate_watts["farm1-2"]


def test_the_interval_of_the_planners_parameters_is_its_own() -> None:
    """One number for when it plans and how far ahead."""
    planner = first(policy="planned", planner_parameters=(("interval_seconds", 300.0),)).router.planner
    assert planner is not None
    assert planner.interval_seconds == 300.0
    assert first(policy="heron").router.planner is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": 0.0}, "must be above 0"),
        ({"load": float("nan")}, "must be above 0"),
        ({"site_count": 0}, "allowed is 1 to 200"),
        ({"site_count": 2, "each_site": ((),)}, "1 sites are described, and there are 2"),
        ({"site_overrides": (("speed", 1),)}, "speed"),
        ({"site_overrides": (("profile_id", "x"),)}, "'x' is no profile"),
        ({"last_day": 91}, "has no day 91"),
        ({"report_loss_ratio": 2.0}, "allowed is 0 to 1"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    """Whoever made it."""
    with pytest.raises(CellError, match=message):
        inputs(**changes)


def test_sites_may_have_a_measured_profile(tmp_path: Path) -> None:
    """The file is one of those that a result depends on; one that cannot be used is told with its site."""
    path = tmp_path / "mine.json"
    rows = [
        row_of(LLAMA_70B_H100_TP4, batch, prompt, clock)
        for clock in (1980, 800)
        for prompt in (512, 4096)
        for batch in (1, 64)
    ]
    path.write_text(json.dumps(document_of(rows).model_dump(mode="json")))
    cell = CELL.with_(site_overrides=(("profile_id", str(path)),))
    found = read_inputs(cell, no_file)
    assert {site.profile.gpu_model for site in found.sites} == {"NVIDIA H100 80GB HBM3"}
    assert all(site.profile.clocks_mhz == (800, 1980) and not site.other_profiles for site in found.sites)
    assert files_of(cell, no_file) == (path,)
    assert files_of(CELL, no_file) == ()
    with pytest.raises(CellError, match=r"site .*: .*nothing\.json: is not there"):
        read_inputs(CELL.with_(site_overrides=(("profile_id", "nothing.json"),)), no_file)
