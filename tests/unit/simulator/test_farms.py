"""Farms of several sites: their power is shared out by the live allocator, and counted once."""

from __future__ import annotations

import numpy as np
import pytest
from support.scenes import no_file, scene

from fleet.records import Plan, SolverReport
from simulator.bounds import bounds
from simulator.cell import Cell, CellError
from simulator.inputs import read_inputs
from simulator.request import Outcome
from simulator.settings import Fault, PlannerSettings, RouterSettings
from simulator.summary import Summary
from simulator.world import Block, Scene, World, simulate

TWO = 0.6
"""Of the nameplate: enough for both sites of a farm (some 6 kW each at most)."""


def nothing_counted_is_open(block: Block) -> bool:
    """What came in the tail may be under way when a block ends."""
    counted = block.record.arrived_at < block.scene.seconds
    return not np.any(block.record.outcome[counted] == Outcome.IN_FLIGHT)


def grants(given: Scene) -> list[dict[str, float]]:
    """What each site was granted, second by second of the block."""
    world = World(given)
    found: list[dict[str, float]] = []
    tick = world.feed.tick

    def noted(second: int) -> object:
        readings = tick(second)
        found.append({one.site_id: one.granted_power_watts for one in readings})
        return readings

    world.feed.tick = noted  # type: ignore[method-assign,assignment]
    world.run()
    return found


def test_grants_never_sum_to_more_than_the_farm_gives() -> None:
    """Over a fall and a rise; the first site is filled first, as there is not enough for two."""
    given = scene(winds=((TWO, TWO, 0.2, 0.2, TWO), (0.3,)), per_farm=2, rate=8, seconds=150)
    found = grants(given)
    for second, granted in enumerate(found[:150]):
        assert granted["s0"] + granted["s1"] <= given.watts["s0"][second] + 1e-6
        assert granted["s2"] + granted["s3"] <= given.watts["s2"][second] + 1e-6
    assert min(found[20]["s0"], found[20]["s1"]) > 0
    short = found[65:85]
    assert max(granted["s1"] for granted in short) == 0 < min(granted["s0"] for granted in short)


def test_the_caps_of_both_sites_hold_when_their_farm_trips() -> None:
    """A trip named by either of them is the farm's; requests go to the other farm."""
    fault = Fault(kind="trip", site_id="s1", at_seconds=60.0, seconds=20.0)
    block = simulate(scene(winds=((0.9,), (0.9,)), per_farm=2, rate=6, faults=(fault,)))
    assert block.sites["s0"].awake[70] == block.sites["s1"].awake[70] == 0
    assert block.sites["s2"].awake[70] + block.sites["s3"].awake[70] > 0
    assert sum(block.exceeded_seconds.values()) == 0
    assert nothing_counted_is_open(block)


def test_the_wind_of_a_farm_is_counted_once() -> None:
    """Two sites can use no more than there is, and together more than half of it."""
    given = scene(winds=((TWO,),), per_farm=2, rate=20)
    block = simulate(given)
    summary = Summary({})
    summary.take(block, np.zeros(2, dtype=np.bool_))
    found = summary.as_dict()
    counted = slice(given.warm_up_seconds, given.seconds)
    available = float(given.watts["s0"][counted].sum()) / 3.6e6
    assert found["wind_available_kilowatt_hours"] == pytest.approx(available, rel=1e-3)
    drawn = sum(float(row.draw_watts[counted].sum()) for row in block.sites.values()) / 3.6e6
    assert found["wind_used_kilowatt_hours"] == pytest.approx(drawn, rel=1e-3)
    assert drawn > available / 2


def test_a_plan_shares_the_farms_power_out() -> None:
    """As the live feed does, for as long as the plan is valid: another site than the first is filled."""
    given = scene(winds=((0.2,),), per_farm=2)
    world = World(given)
    world.begin()
    plan = Plan(
        router_id="r",
        sequence=1,
        epoch=1,
        solved_at_unix_seconds=0.0,
        valid_for_seconds=30.0,
        solver=SolverReport(status="by hand", seconds=0.1),
        shares={"farm-s0": {"s0": 0.0, "s1": 1.0}},
    )
    world.feed.all_farms[0].take_plan(plan)
    world.events.run(10.5)
    first = {one.site_id: one.granted_power_watts for one in world.feed.tick(11)}
    assert first["s0"] == 0 < first["s1"]
    assert world.feed.all_farms[0]._share("s1", 20.0) == 1.0
    assert world.feed.all_farms[0]._share("s1", 31.0) is None


def test_a_planner_sees_that_sites_share_a_farm() -> None:
    """Its plans name the farm's shares, and nothing is lost with them."""
    planner = PlannerSettings(learn_seconds=15.0)
    given = scene(
        winds=((TWO,), (0.3,)), per_farm=2, rate=6, router=RouterSettings(policy="heron", planner=planner)
    )
    world = World(given)
    plans: list[Plan] = []
    publish = world._publish_plan
    assert world.planner is not None
    world.planner._publish = lambda plan: (plans.append(plan), publish(plan))[1]
    block = world.run()
    assert plans
    assert set(plans[-1].shares) <= {"farm-s0", "farm-s2"}
    assert any(plan.shares for plan in plans)
    assert nothing_counted_is_open(block)


def test_the_bound_says_that_it_is_not_of_such_fleets() -> None:
    """Rather than to count their wind twice."""
    cell = Cell(wind="synthetic-far", first_day=1, last_day=1, trace="synthetic-conv", sites_per_farm=2)

    with pytest.raises(CellError, match="one site a farm only"):
        bounds(read_inputs(cell, no_file), [0.5])
