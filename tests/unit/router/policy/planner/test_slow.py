"""The slow plan: what it may never do, and its answer to bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from support.planning import MODEL, check_planned, configuration, demand, fleet, problems, site

from router.policy.planner.problem import (
    CLASSES,
    Configuration,
    Planned,
    PlannerParameters,
    PlanningProblem,
    PlanningSite,
    ProblemError,
    Quantiles,
    Target,
)
from router.policy.planner.slow import solve_slow


def instances(planned: Planned, site_id: str) -> dict[tuple[int, int | None], int]:
    """(degree, clock) → how many."""
    return {
        (target.tensor_parallel_degree, target.gpu_clock_mhz): target.instances
        for target in planned.targets[site_id]
    }


@given(problem=problems())
def test_no_plan_breaks_a_cap_a_gpu_count_or_a_balance(problem: PlanningProblem) -> None:
    """Caps, GPUs, shares ≤ 1, shortfall + served = demand: whatever the fleet and the load."""
    planned = solve_slow(problem)
    if not any(each.is_plannable for each in problem.sites):
        assert planned.status == "infeasible"
        return
    assert planned.status == "optimal", planned.explanation
    check_planned(problem, planned)


def test_the_same_problem_has_the_same_plan() -> None:
    """A plan is a function of its problem: simulated runs repeat."""
    assert solve_slow(fleet(12, seed=3)) == solve_slow(fleet(12, seed=3))


def test_enough_power_serves_everything_within_the_slo() -> None:
    """Two servers with full power and a light load: no shortfall, and no configuration that is too slow."""
    planned = solve_slow(PlanningProblem(sites=(site("a", 7000.0), site("b", 7000.0)), demand=demand(0.1)))
    assert planned.status == "optimal"
    assert sum(planned.shortfall.values()) == pytest.approx(0.0)
    assert all(sum(planned.weights[MODEL][name].values()) == pytest.approx(1.0) for name in CLASSES)


def test_load_goes_where_watts_can_do_something() -> None:
    """A site below its idle draw gets nothing, however many watts are there."""
    planned = solve_slow(PlanningProblem(sites=(site("a", 7000.0), site("b", 850.0)), demand=demand(0.3)))
    assert planned.targets["b"] == ()
    assert planned.watts["b"] == 0.0
    assert set(planned.weights[MODEL]["SS"]) == {"a"}


def test_a_light_load_leaves_all_awake_that_has_power() -> None:
    """Wind that nobody draws is curtailed, and bursts meet what is awake: spare instances cost nothing."""
    planned = solve_slow(PlanningProblem(sites=(site("a"), site("b")), demand=demand(0.02)))
    gpus = [
        sum(t.instances * t.tensor_parallel_degree for t in targets) for targets in planned.targets.values()
    ]
    assert gpus == [8, 8]


def test_where_energy_has_a_price_a_light_load_is_packed_on_one_server() -> None:
    """A second server that is on costs its idle draw for nothing."""
    bought = PlannerParameters(energy_cost=0.1, spare_cost=0.0, crowding_cost=0.0)
    sites = (site("a"), site("b"))
    planned = solve_slow(PlanningProblem(sites=sites, demand=demand(0.02), parameters=bought))
    assert sorted(bool(targets) for targets in planned.targets.values()) == [False, True]


def test_load_is_spread_by_what_each_site_can_do() -> None:
    """An M/M/1 queue's wait grows with utilisation: half the instances get about half, not all or nothing."""
    one = (configuration(4, 1980),)
    sites = (site("a", configurations=one), site("b", configurations=one, gpu_count=4, max_site_watts=3600.0))
    planned = solve_slow(PlanningProblem(sites=sites, demand=demand(0.3)))
    assert planned.weights[MODEL]["MM"]["a"] == pytest.approx(2 / 3)


def test_no_power_anywhere_is_a_plan_of_nothing() -> None:
    """The whole load is stated as shortfall, and nobody is told to run anything."""
    planned = solve_slow(PlanningProblem(sites=(site("a", 0.0), site("b", 0.0)), demand=demand(1.0)))
    assert planned.status == "optimal"
    assert planned.targets == {"a": (), "b": ()}
    assert sum(planned.shortfall.values()) == pytest.approx(9.0)
    assert planned.weights == {}
    assert planned.shares == {}


@pytest.mark.parametrize(
    "sites",
    [
        (),
        (site("a", None),),
        (site("a", Quantiles(p10=math.nan, p50=1.0, p90=2.0)),),
        (site("a", Quantiles(p10=-1.0, p50=1.0, p90=2.0)),),
        (site("a", configurations=()),),
    ],
    ids=["empty-fleet", "power-unknown", "power-nan", "power-negative", "no-profile"],
)
def test_a_fleet_that_cannot_be_planned_for_is_infeasible(sites: tuple[PlanningSite, ...]) -> None:
    """Unknown is neither none nor all: such a site is left out, and stays reactive."""
    planned = solve_slow(PlanningProblem(sites=sites, demand=demand(1.0)))
    assert planned.status == "infeasible"
    assert not planned.is_usable
    assert planned.unplanned == tuple(each.site_id for each in sites)


def test_a_site_of_unknown_power_is_left_out_of_a_plan_for_the_others() -> None:
    """NaN in one forecast costs that site, not the plan."""
    broken = site("b", Quantiles(p10=math.nan, p50=math.nan, p90=math.nan))
    planned = solve_slow(PlanningProblem(sites=(site("a"), broken), demand=demand(0.2)))
    assert planned.status == "optimal"
    assert planned.unplanned == ("b",)
    assert set(planned.targets) == {"a"}


def test_zero_load_weights_by_capacity() -> None:
    """The first request must neither wait for a start nor be without a share."""
    planned = solve_slow(PlanningProblem(sites=(site("a"), site("b")), demand=demand(0.0)))
    assert planned.status == "optimal"
    assert all(planned.targets.values())
    assert sum(planned.weights[MODEL]["LL"].values()) == pytest.approx(1.0)
    assert planned.shortfall == {}


def test_nothing_known_of_the_demand_keeps_all_awake() -> None:
    """A planner that has just started has no class at all."""
    planned = solve_slow(PlanningProblem(sites=(site("a"),), demand=()))
    assert planned.status == "optimal"
    assert sum(target.instances * target.tensor_parallel_degree for target in planned.targets["a"]) == 8
    assert planned.shortfall == {}


def test_an_unknown_demand_is_one_that_nobody_asks_for() -> None:
    """NaN of one class spoils nothing of the others."""
    wanted = list(demand(0.2))
    wanted[0] = replace(wanted[0], requests_per_second=Quantiles(p10=0.0, p50=math.nan, p90=1.0))
    planned = solve_slow(PlanningProblem(sites=(site("a"),), demand=tuple(wanted)))
    assert planned.status == "optimal"
    assert (MODEL, "SS") not in planned.shortfall
    assert sum(planned.weights[MODEL]["SS"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "broken",
    [
        replace(site("a"), server_idle_watts=math.nan),
        replace(site("a"), overhead_ratio=-1.0),
        replace(site("a"), gpu_count=-8),
        site("a", configurations=(replace(configuration(), full_watts=math.inf),)),
        site("a", configurations=(replace(configuration(), latency_ratio=(1.0,)),)),
        site("a", configurations=(replace(configuration(), tensor_parallel_degree=0),)),
    ],
)
def test_figures_that_cannot_be_meant_are_an_error(broken: PlanningSite) -> None:
    """It names the site."""
    with pytest.raises(ProblemError, match="site a: "):
        solve_slow(PlanningProblem(sites=(broken,), demand=()))


def test_a_site_listed_twice_is_an_error() -> None:
    """Its power would count twice."""
    with pytest.raises(ProblemError, match="site a is listed twice"):
        solve_slow(PlanningProblem(sites=(site("a"), site("a")), demand=()))


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_flows_by_site_gain_nothing_over_flows_by_configuration(load: float) -> None:
    """The program that has a flow per site, configuration and class ends at the same objective."""
    small = fleet(4, seed=2, load=load, parameters=PlannerParameters(gap_ratio=1e-6))
    apart = replace(
        small,
        sites=tuple(
            replace(
                each,
                configurations=tuple(
                    replace(entry, start_seconds=entry.start_seconds + 1e-6 * index)
                    for entry in each.configurations
                ),
            )
            for index, each in enumerate(small.sites)
        ),
    )
    assert solve_slow(apart).objective == pytest.approx(solve_slow(small).objective, rel=1e-4)


def test_a_running_layout_is_kept_where_another_gains_too_little() -> None:
    """Splitting GPUs anew costs what they do not serve while they drain and start."""
    running = (Target(model=MODEL, tensor_parallel_degree=8, gpu_clock_mhz=1980, instances=1),)
    one = PlanningProblem(sites=(site("a", present=running),), demand=demand(0.02))
    assert instances(solve_slow(one), "a") == {(8, 1980): 1}


def test_where_power_is_short_gpus_are_split_anew_if_that_pays_within_the_interval() -> None:
    """Half the power carries no instance of eight GPUs: smaller ones serve the load that nobody would."""
    running = (Target(model=MODEL, tensor_parallel_degree=8, gpu_clock_mhz=1980, instances=1),)
    short = site("a", 1900.0, present=running)
    planned = solve_slow(PlanningProblem(sites=(short,), demand=demand(0.3)))
    assert all(degree < 8 for degree, _ in instances(planned, "a"))
    assert instances(planned, "a")


def test_reconfiguration_is_bounded() -> None:
    """Of a serving fleet at most half the GPUs change their layout in one plan, whatever would be better."""
    running = (Target(model=MODEL, tensor_parallel_degree=8, gpu_clock_mhz=1980, instances=1),)
    sites = tuple(
        site(name, 7000.0, farm_id=f"farm-{name}", present=running, max_site_watts=8000.0 + index)
        for index, name in enumerate("abcd")
    )
    cheap = PlannerParameters(churn_ratio=0.0)
    planned = solve_slow(PlanningProblem(sites=sites, demand=demand(2.0), parameters=cheap))
    moved = [name for name in "abcd" if any(degree != 8 for degree, _ in instances(planned, name))]
    assert len(moved) == 2


def test_equal_servers_of_a_farm_are_filled_one_after_the_other() -> None:
    """Power for one and a half servers runs one of them, not two at half."""
    sites = tuple(site(f"s{index}", 2600.0, farm_id="one") for index in range(3))
    planned = solve_slow(
        PlanningProblem(sites=sites, demand=demand(5.0), parameters=PlannerParameters(gap_ratio=0.0))
    )
    lit = [name for name, targets in planned.targets.items() if targets]
    assert len(lit) == 2
    assert sum(planned.shares["one"].values()) == pytest.approx(1.0)


def late_only(entry: Configuration) -> Configuration:
    """A configuration that never keeps the SLO."""
    return replace(entry, requests_per_second=(0.0,) * len(CLASSES))


def test_a_late_answer_is_better_than_none() -> None:
    """Shortfall ≫ SLO misses: what cannot be in time is served all the same."""
    slow_site = site("a", configurations=(late_only(configuration(4, 1980)),))
    planned = solve_slow(PlanningProblem(sites=(slow_site,), demand=demand(0.01)))
    assert sum(planned.shortfall.values()) == pytest.approx(0.0, abs=1e-6)
