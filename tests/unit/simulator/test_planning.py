"""The simulated planner: the live planner's own objects, on the virtual clock."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.measured import document_of, row_of
from support.scenes import scene

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.records import Plan
from router.config import PlannerConfig
from router.live.demand_meter import DemandMeter
from router.policy.planner.plan_maker import PlanMaker
from simulator.planning import SOLVE_SECONDS, SimulatedPlanner
from simulator.settings import PlannerSettings, RouterSettings
from simulator.world import World
from site_agent.plan_judge import PlanJudge


def world_of(rate: float = 6.0, **changes: Any) -> World:
    """With a planner that has watched the load for half a minute when it makes its first plan, at 45 s."""
    settings = PlannerSettings(**({"learn_seconds": 30.0} | changes))
    world = World(scene(rate=rate, seconds=300, router=RouterSettings(policy="planned", planner=settings)))
    world.begin()
    return world


def planner_of(world: World) -> SimulatedPlanner:
    assert world.planner is not None
    return world.planner


def test_its_parts_are_the_live_planners() -> None:
    """One maker of plans, one meter of the load, one judge at each site; and live's defaults."""
    world = world_of()
    planner = planner_of(world)
    assert isinstance(planner._maker, PlanMaker)
    assert isinstance(planner._meter, DemandMeter)
    assert all(isinstance(site.plans, PlanJudge) for site in world.sites.values())
    defaults, live = PlannerSettings(), PlannerConfig()
    for name in ("interval_seconds", "learn_seconds", "valid_for_seconds", "margin_ratio"):
        assert getattr(defaults, name) == getattr(live, name)


def test_nothing_is_planned_before_the_load_was_watched() -> None:
    """As live, `learn_seconds`."""
    world = world_of(learn_seconds=120.0)
    world.events.run(100.0)
    assert not planner_of(world).solves
    world.events.run(160.0)
    assert planner_of(world).solves["slow ok"] == 1


def test_a_plan_comes_as_late_as_its_solver_takes() -> None:
    """And is followed by router and agents alike."""
    world = world_of()
    published: list[tuple[float, Plan]] = []
    publish = planner_of(world)._publish
    planner_of(world)._publish = lambda plan: (published.append((world.events.now, plan)), publish(plan))
    world.events.run(90.0)
    at, plan = published[0]
    assert at == 45.0 + SOLVE_SECONDS["slow"]
    assert plan.valid_for_seconds == PlannerConfig().valid_for_seconds
    assert world.router.view.snapshot.plan is not None
    assert world.router.view.snapshot.plan.epoch == 1
    assert {site.plans.epoch for site in world.sites.values()} == {1}
    sequences = [one.sequence for _, one in published]
    assert sequences == sorted(set(sequences))


def test_sites_with_a_measured_profile_are_planned_for(tmp_path: Path) -> None:
    """The simulated site tells of it as a live one does."""
    path = tmp_path / "mine.json"
    points = itertools.product((1980, 800), (512, 4096), (1, 64))
    rows = [row_of(LLAMA_70B_H100_TP4, batch, prompt, clock) for clock, prompt, batch in points]
    path.write_text(document_of(rows).model_dump_json())
    settings = RouterSettings(policy="planned", planner=PlannerSettings(learn_seconds=30.0))
    shipped = scene(rate=6.0, seconds=300, router=settings)
    mine = tuple(replace(one, profile_id=str(path), other_profile_ids=()) for one in shipped.sites)
    world = World(replace(shipped, sites=mine))
    world.begin()
    world.events.run(90.0)
    plan = world.router.view.snapshot.plan
    assert plan is not None
    [shares] = {frozenset(by_site) for by_class in plan.weights.values() for by_site in by_class.values()}
    assert shares == world.sites.keys()


def test_more_load_than_was_planned_for_brings_a_slow_plan() -> None:
    """Long before the next is due: the planner looks at the load as the live one does."""
    quiet, growing = world_of(), world_of()
    planner = planner_of(growing)
    for second in range(80, 300):
        growing.events.at(float(second), lambda _: _come(planner, 40), None)
    for world in (quiet, growing):
        world.events.run(200.0)
    assert planner_of(quiet).solves["slow ok"] == 1
    assert planner.solves["slow ok"] >= 2


def _come(planner: SimulatedPlanner, times: int) -> None:
    """So many further requests of a kind that has come before."""
    entry = next(iter(planner._meter.totals.values()))
    mean = [value / entry[0] for value in entry]
    for index, value in enumerate(mean):
        entry[index] += times * value
