"""Faults of a run: what stops, what goes on, and how it mends."""

from __future__ import annotations

import numpy as np
import pytest
from support.scenes import scene

from router.policy.snapshot import SiteView
from simulator.request import Outcome
from simulator.settings import Fault, PlannerSettings, RouterSettings
from simulator.world import World

PLANNED = RouterSettings(policy="planned", planner=PlannerSettings(learn_seconds=0.0))


def fault(kind: str, site_id: str | None, at: float, seconds: float) -> Fault:
    return Fault(kind=kind, site_id=site_id, at_seconds=at, seconds=seconds)


def at(world: World, seconds: float) -> World:
    """Run on until then."""
    world.events.run(seconds)
    return world


def started(*faults: Fault, router: RouterSettings | None = None) -> World:
    """Three sites with power and some load, from the beginning."""
    world = World(scene(rate=6, seconds=200, faults=faults, router=router))
    world.begin()
    return world


def seen(world: World, site_id: str = "s0") -> SiteView:
    return world.router.view.snapshot.sites[site_id]


def test_in_silence_the_router_asks_the_sites_themselves() -> None:
    """After three seconds without word of a site, once a second; changes are not told at once any more."""
    world = started(fault("silence", "s0", 60.0, 30.0))
    at(world, 59.9)
    assert world.events.now - seen(world).arrived_at < 1.1
    at(world, 62.9)
    assert seen(world).arrived_at < 60.1
    assert world.events.now - seen(world, "s1").arrived_at < 1.1
    heard = []
    for second in range(64, 90):
        at(world, float(second))
        heard.append(seen(world).arrived_at)
    assert len(set(heard)) == len(heard)
    assert all(second - one < 1.1 for second, one in zip(range(64, 90), heard, strict=True))


def test_in_silence_no_plan_reaches_an_agent_and_after_it_the_last_one_does() -> None:
    """A site that cannot reach Redis keeps the plan it has; the others go on as planned."""
    world = started(fault("silence", "s0", 20.0, 60.0), router=PLANNED)
    at(world, 79.0)
    plans = {site_id: site.plans for site_id, site in world.sites.items()}
    assert plans["s1"].plans_taken >= plans["s0"].plans_taken + 2
    taken = plans["s0"].plans_taken
    at(world, 86.0)
    assert plans["s0"].plans_taken > taken


def test_a_planner_without_redis_loses_its_lease_and_takes_it_anew() -> None:
    """It goes on for what is left of the lease, then plans nothing; with Redis it leads in a new epoch."""
    world = started(fault("silence", None, 60.0, 60.0), router=PLANNED)
    planner = world.planner
    assert planner is not None
    at(world, 59.0)
    assert planner.solves.get("slow ok") == 1
    at(world, 72.0)
    before = dict(planner.solves)
    at(world, 119.0)
    assert planner.solves == before
    plans = {site_id: site.plans.plans_taken for site_id, site in world.sites.items()}
    epochs = {site.plans.epoch for site in world.sites.values()}
    at(world, 150.0)
    assert sum(planner.solves.values()) > sum(before.values())
    assert all(site.plans.plans_taken > plans[site_id] for site_id, site in world.sites.items())
    assert epochs == {1}
    assert {site.plans.epoch for site in world.sites.values()} == {2}


def test_the_end_of_a_crash_wakes_no_agent_whose_server_is_off() -> None:
    """It stays down until it has power and is booted: an agent cannot serve at 0 W."""
    dark = (0.9, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0)
    given = scene(winds=(dark, (0.8,)), rate=4, seconds=200, faults=(fault("crash", "s0", 50.0, 60.0),))
    world = World(given)
    world.begin()
    site = world.sites["s0"]
    at(world, 55.0)
    assert site.is_down
    assert site.plant.is_on
    at(world, 130.0)
    assert not site.plant.is_on
    assert site.is_down
    assert site.plant.draw_watts() == 0
    at(world, 260.0)
    assert site.is_down
    assert site.slots.total_in_flight == 0


def test_a_server_that_comes_back_runs_at_the_clock_that_its_new_governor_believes_in() -> None:
    """What the agent before it locked, in the fall, is unlocked: else its engines stay slow for good."""
    given = scene(winds=((1.0,),), rate=12, seconds=500, faults=(fault("trip", "s0", 60.0, 30.0),))
    world = World(given)
    world.begin()
    site = world.sites["s0"]
    at(world, 75.0)
    assert not site.plant.is_on
    at(world, 400.0)
    assert site.governor.clock_mhz == max(site.model.clocks_mhz)
    assert {one.engine.clock_mhz for one in site.instances} == {site.governor.clock_mhz}


def test_a_server_that_boots_while_its_agent_is_kept_down_stays_down() -> None:
    """Until the fault is over."""
    world = started(fault("crash", "s0", 10.0, 100.0))
    site = world.sites["s0"]
    at(world, 20.0)
    site.crash("server")
    site.recover("server")
    assert site.is_down
    at(world, 111.0)
    assert not site.is_down


@pytest.mark.parametrize("kind", ["crash", "trip", "silence"])
def test_faults_that_overlap_end_with_the_last_of_them(kind: str) -> None:
    """Whatever their order."""
    first, all_of_them, short = (
        fault(kind, "s0", 20.0, 40.0),
        fault(kind, None, 40.0, 40.0),
        fault(kind, "s0", 50.0, 5.0),
    )
    world = started(first, all_of_them, short)

    def holds(site_id: str) -> bool:
        if kind == "crash":
            return world.sites[site_id].is_down
        if kind == "trip":
            return world.feed.farms[site_id].is_tripped
        return site_id in world.faults.silent_since

    at(world, 30.0)
    assert (holds("s0"), holds("s1")) == (True, False)
    for second in (45.0, 57.0, 65.0, 79.0):
        at(world, second)
        assert (holds("s0"), holds("s1")) == (True, True)
    at(world, 81.0)
    assert (holds("s0"), holds("s1")) == (False, False)


def test_an_agent_that_starts_again_finds_the_plan_that_lies_there() -> None:
    """As after a restart of its process."""
    world = started(fault("crash", "s0", 40.0, 20.0), router=PLANNED)
    at(world, 39.0)
    assert world.sites["s0"].plans.epoch == 1
    at(world, 60.05)
    assert not world.sites["s0"].is_down
    assert world.sites["s0"].plans.epoch == 1


def test_nothing_is_lost_in_silence() -> None:
    """All that came is served: routing goes on by what the sites say when they are asked."""
    block = World(scene(rate=4, faults=(fault("silence", None, 30.0, 60.0),))).run()
    counted = (block.record.arrived_at >= 30) & (block.record.arrived_at < 120)
    assert np.all(block.record.outcome[counted] == Outcome.SERVED)
