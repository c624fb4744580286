"""Power-short minutes: where some site's cap is below what its part of the load needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from support.scenes import no_file

from simulator.cell import Cell, Sample
from simulator.fleet_size import needed_watts
from simulator.inputs import Inputs, blocks_of, read_inputs, scene
from simulator.power_short import short_minutes
from simulator.world import Scene

CELL = Cell(
    wind="synthetic-far",
    first_day=2,
    last_day=2,
    trace="synthetic-conv",
    load=0.5,
    sample=Sample.parse("1d:5m:1m"),
    policy="heron",
    constant_power=True,
)


def block(**changes: Any) -> tuple[Inputs, Scene, int]:
    inputs = read_inputs(CELL.with_(**changes), no_file)
    start, seconds, warm_up = blocks_of(inputs.cell)[0]
    return inputs, scene(inputs, start, seconds, warm_up), start


def test_with_all_the_power_no_minute_is_short() -> None:
    """At the mean load and at the peak."""
    assert not short_minutes(*block()).any()
    assert not short_minutes(*block(load=0.95)).any()


def test_one_minute_at_one_site_is_enough() -> None:
    """Dark for that minute: short, and only that one, whatever the others have."""
    inputs, one, start = block()
    watts = {name: values.copy() for name, values in one.watts.items()}
    watts[inputs.sites[1].site_id][120:180] = 0.0
    found = short_minutes(inputs, replace(one, watts=watts), start)
    assert np.flatnonzero(found).tolist() == [2]


def test_the_line_is_what_its_part_of_the_expected_load_needs() -> None:
    """A watt above it: enough; a watt below: short. The margin is not the site's to use."""
    inputs, one, start = block()
    site = inputs.sites[0]
    rate = inputs.scale * inputs.load.mean_rate / len(inputs.sites)
    rates, needs = zip(*needed_watts(site, inputs.work, inputs.slo), strict=True)
    line = float(np.interp(rate, rates, needs)) / (1 - site.margin_ratio)
    for watts, is_short in ((line + 1, False), (line - 1, True)):
        given = one.watts | {site.site_id: np.full(len(one.watts[site.site_id]), watts)}
        assert bool(short_minutes(inputs, replace(one, watts=given), start).all()) is is_short


def test_sites_of_a_farm_are_taken_together() -> None:
    """What both need, against what the farm gives to both."""
    inputs, one, start = block(sites_per_farm=2)
    site, mate = inputs.sites[:2]
    rate = inputs.scale * inputs.load.mean_rate / len(inputs.sites)
    rates, needs = zip(*needed_watts(site, inputs.work, inputs.slo), strict=True)
    line = 2 * float(np.interp(rate, rates, needs)) / (1 - site.margin_ratio)
    for watts, is_short in ((line + 1, False), (line - 1, True)):
        farm = np.full(len(one.watts[site.site_id]), watts)
        given = one.watts | {site.site_id: farm, mate.site_id: farm}
        assert bool(short_minutes(inputs, replace(one, watts=given), start).all()) is is_short


def test_it_is_of_wind_and_load_and_the_same_for_every_policy() -> None:
    """Also for every site control, as its tables say."""
    given = {"constant_power": False, "load": 0.9}
    first = short_minutes(*block(**given)).tolist()
    assert short_minutes(*block(**given, policy="round_robin", control="gpu_idling")).tolist() == first
