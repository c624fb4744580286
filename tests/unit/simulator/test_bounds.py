"""Bounds: of a sample, of the very requests and watts that policies meet there; of days, of the record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.scenes import no_file

from router.policy.planner.problem import CLASSES
from simulator.bounds import OLD_POWER, Steps, _drawn, _expected, _Fluid, _kinds, _sites, bounds
from simulator.cell import Cell, Sample
from simulator.inputs import CUTOFFS, Inputs, blocks_of, read_inputs, scene
from simulator.power_short import short_minutes
from simulator.summary import Summary
from simulator.world import simulate

CELL = Cell(
    wind="synthetic-far",
    first_day=2,
    last_day=3,
    trace="synthetic-conv",
    load=0.5,
    sample=Sample.parse("30h:3m:1m"),
    policy="heron",
)


def inputs_of(**changes: Any) -> Inputs:
    return read_inputs(CELL.with_(**changes), no_file)


def bound_of(inputs: Inputs, load: float = 0.5) -> float:
    found: float = bounds(inputs, [load], kinds=["within_slo"])["within_slo"]["by_load"][0]["bound"]
    return found


def test_a_samples_steps_are_the_requests_and_watts_of_its_counted_minutes() -> None:
    """Counted one at a time from the scenes: by minute and class, and each second's cap."""
    inputs = inputs_of(trips_per_day=500.0, seed=3)
    kinds = _kinds(inputs)
    steps = _drawn(inputs, kinds)
    row = 0
    for start, seconds, warm_up in blocks_of(inputs.cell):
        one = scene(inputs, start, seconds, warm_up)
        for minute in range(warm_up, seconds, 60):
            counts = dict.fromkeys(CLASSES, 0)
            for at, prompt, output in zip(
                one.arrivals.at_seconds, one.arrivals.prompt_tokens, one.arrivals.output_tokens, strict=True
            ):
                if minute <= at < minute + 60:
                    counts[CUTOFFS.classify(int(prompt), int(output))] += 1
            by_class = dict.fromkeys(CLASSES, 0.0)
            for kind, rate in enumerate(steps.offered[row]):
                by_class[kinds.class_of(kind)] += rate * 60
            assert by_class == pytest.approx(counts)
            for index, site in enumerate(inputs.sites):
                caps = one.watts[site.site_id][minute : minute + 60] * (1 - site.margin_ratio)
                assert np.array_equal(steps.watts[row, index], caps)
            row += 1
    assert row == len(steps.offered) == 4


def test_each_seed_and_load_has_its_own_bound() -> None:
    """Of its own draw; the load that came stands beside the nominal one."""
    first, again, other = (bounds(inputs_of(seed=seed), [0.5, 0.9]) for seed in (1, 1, 2))
    assert first == again
    assert first["offered_ratios"] != other["offered_ratios"]
    low, high = first["within_slo"]["by_load"]
    assert high["bound"] <= low["bound"] <= 1 + 1e-9
    assert len(high["bound_by_block"]) == 2
    assert sum(high["bound_by_block"]) / sum(high["offered_by_block"]) == pytest.approx(high["bound"])
    assert first["offered_ratios"]["0.9"] > 1.5 * first["offered_ratios"]["0.5"]


def test_no_policy_serves_more_than_the_bound() -> None:
    """`heron` on the same blocks; the means of kinds leave the bound a per cent."""
    inputs = inputs_of()
    summary = Summary(inputs.class_slos)
    for start, seconds, warm_up in blocks_of(inputs.cell):
        one = scene(inputs, start, seconds, warm_up)
        summary.take(simulate(one), short_minutes(inputs, one, start))
    part = summary.as_dict()["all"]
    assert part["offered"] == round(_drawn(inputs, _kinds(inputs)).offered.sum() * 60)
    assert 0 < part["slo_attainment_ratio"] <= bound_of(inputs) * 1.01


def test_trips_lower_the_bound_and_constant_power_makes_it_whole() -> None:
    """Of the same requests."""
    calm, tripped = inputs_of(), inputs_of(trips_per_day=3000.0)
    assert bound_of(tripped, 0.9) < bound_of(calm, 0.9)
    assert bound_of(inputs_of(constant_power=True)) == pytest.approx(1.0)


def test_a_server_that_is_on_for_half_a_minute_counts_half() -> None:
    """Neither nothing, as the minute's mean below the idle draw would say, nor the whole."""
    inputs = inputs_of(site_count=1)
    kinds = _kinds(inputs)
    sites = _sites(inputs, kinds)
    fluid = _Fluid(sites, kinds.shares, is_within_slo=True)
    wanted = 1e6 * np.array([kinds.shares])
    idle, most = sites[0].server_idle_watts, sites[0].max_site_watts

    def served(watts: list[float]) -> float:
        steps = Steps(
            watts=np.array([[watts]]), old_watts=np.array([[most]]), offered=wanted, block_steps=(1,)
        )
        found: float = fluid.at_load(1.0, steps)["bound"] * 1e6
        return found

    whole = served([most] * 60)
    assert whole > 0
    assert served([most] * 30 + [0.0] * 30) == pytest.approx(whole / 2)
    assert served([idle * 1.9] + [0.0] * 59) < whole / 60
    assert served([idle * 0.99] * 60) == 0.0


def test_whole_days_have_the_expected_load_and_every_baseline() -> None:
    """In the record's steps: all kinds in their shares, no seed."""
    inputs = inputs_of(sample=None)
    steps = _expected(inputs, _kinds(inputs))
    assert len(steps.offered) == round(2 * 86_400 / inputs.series.period_seconds)
    mean = steps.offered.sum(axis=1).mean()
    assert mean == pytest.approx(0.5 * inputs.peak_requests_per_second, rel=1e-6)
    found = bounds(inputs, [0.5])
    assert found["seed"] is None
    row = found["within_slo"]["by_load"][0]
    assert list(row["baselines"]) == [
        *("round_robin", "static_weighted", "power_weighted", "least_loaded", "selective_push", OLD_POWER)
    ]
    assert all(value <= row["bound"] + 1e-9 for value in row["baselines"].values())


def test_columns_that_are_read_days_later_go_round_at_the_records_end() -> None:
    """Sixty sites on five columns of ninety days, on the last days."""
    inputs = inputs_of(sample=None, site_count=60, first_day=89, last_day=89)
    assert _expected(inputs, _kinds(inputs)).watts.shape[1] == 60
    sampled = inputs_of(site_count=60, first_day=89, last_day=89)
    assert _drawn(sampled, _kinds(sampled)).watts.shape[1] == 60
