"""The fast plan: instances stay, clocks and shares follow the power."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.planning import MODEL, check_planned, demand, fleet, problems, site

from router.policy.planner.fast import solve_fast
from router.policy.planner.problem import PlanningProblem, Target
from router.policy.planner.slow import solve_slow

TWO = (Target(model=MODEL, tensor_parallel_degree=4, gpu_clock_mhz=1980, instances=2),)


def test_less_power_lowers_the_clocks_and_keeps_the_instances() -> None:
    """Half the power does more at low clocks than half the instances at full ones."""
    before = solve_fast(PlanningProblem(sites=(site("a", 7000.0),), demand=demand(0.5)), {"a": TWO})
    after = solve_fast(PlanningProblem(sites=(site("a", 4000.0),), demand=demand(0.5)), {"a": TWO})
    assert [target.gpu_clock_mhz for target in before.targets["a"]] == [1980]
    assert sum(target.instances for target in after.targets["a"]) == 2
    assert max(target.gpu_clock_mhz or 0 for target in after.targets["a"]) < 1980
    assert after.watts["a"] <= 4000.0


def test_load_moves_away_from_the_site_that_lost_its_power() -> None:
    """Its share goes to the other."""
    sites = (site("a", 7000.0), site("b", 500.0))
    planned = solve_fast(PlanningProblem(sites=sites, demand=demand(0.3)), {"a": TWO, "b": TWO})
    assert planned.weights[MODEL]["MM"] == {"a": pytest.approx(1.0)}
    assert planned.targets["b"] == ()


def test_where_nothing_can_be_kept_the_plan_says_so() -> None:
    """The one site with instances lost its power: an empty target for each site, not an empty plan."""
    sites = (site("a", 100.0), site("b", 7000.0))
    planned = solve_fast(PlanningProblem(sites=sites, demand=()), {"a": TWO})
    assert planned.status == "optimal"
    assert planned.targets == {"a": (), "b": ()}


def test_no_instance_is_added() -> None:
    """Starting takes minutes: that is the slow plan's."""
    planned = solve_fast(PlanningProblem(sites=(site("a"), site("b")), demand=demand(3.0)), {"a": TWO})
    assert sum(target.instances for target in planned.targets["a"]) == 2
    assert planned.targets["b"] == ()


@pytest.mark.parametrize(
    "running",
    [
        {},
        {"a": ()},
        {"b": TWO},
        {"a": (Target(model="x", tensor_parallel_degree=4, gpu_clock_mhz=None, instances=1),)},
    ],
)
def test_without_an_instance_that_is_known_there_is_no_fast_plan(
    running: dict[str, tuple[Target, ...]],
) -> None:
    """Nothing runs, it runs elsewhere, or no profile describes it."""
    assert solve_fast(PlanningProblem(sites=(site("a"),), demand=demand(1.0)), running).status == "infeasible"


@given(
    problem=problems(),
    degrees=st.lists(st.sampled_from([2, 4, 8]), min_size=4, max_size=4),
    counts=st.lists(st.integers(0, 5), min_size=4, max_size=4),
)
def test_no_fast_plan_breaks_a_cap_a_gpu_count_or_a_balance(
    problem: PlanningProblem, degrees: list[int], counts: list[int]
) -> None:
    """Whatever runs where, and whatever the power has become."""
    running = {
        each.site_id: (
            Target(model=MODEL, tensor_parallel_degree=degree, gpu_clock_mhz=None, instances=count),
        )
        for each, degree, count in zip(problem.sites, degrees, counts, strict=False)
    }
    planned = solve_fast(problem, running)
    if planned.status == "infeasible":
        return
    assert planned.status == "optimal", planned.explanation
    check_planned(problem, planned)
    for each in problem.sites:
        wanted = sum(target.instances for target in running[each.site_id])
        assert sum(target.instances for target in planned.targets.get(each.site_id, ())) <= wanted


def test_it_comes_close_to_the_slow_plan_that_it_starts_from() -> None:
    """With the same power the fast plan serves what the slow plan serves, within a per cent of the load."""
    problem = fleet(10, seed=5, load=0.7)
    slow = solve_slow(problem)
    fast = solve_fast(problem, slow.targets)
    whole = sum(slow.demand.values())
    assert sum(fast.shortfall.values()) <= sum(slow.shortfall.values()) + 0.01 * whole
    assert MODEL in fast.weights
