"""Between a solver's plan and its record."""

from __future__ import annotations

import pytest
from support.planning import demand, fleet, site

from fleet.records import Plan
from router.policy.planner.problem import Planned, PlanningProblem
from router.policy.planner.slow import solve_slow
from router.policy.planner.wire import to_plan


def record(planned: Planned) -> Plan:
    """The plan as this test's router writes it."""
    return to_plan(
        planned,
        orders=planned.targets,
        router_id="r",
        sequence=1,
        epoch=2,
        solved_at_unix_seconds=3.0,
        valid_for_seconds=1800.0,
        solver_seconds=0.5,
    )


def test_a_plan_survives_the_wire() -> None:
    """Targets come back as they were; the record parses."""
    planned = solve_slow(fleet(6, seed=2))
    plan = Plan.from_json(record(planned).to_json())
    assert plan.targets.keys() == planned.targets.keys()
    for site_id, targets in planned.targets.items():
        told = [(each.tensor_parallel_degree, each.instances) for each in plan.targets[site_id]]
        assert told == [(each.tensor_parallel_degree, each.instances) for each in targets]
    assert plan.weights.keys() == planned.weights.keys()
    assert plan.solver.status == "optimal"


def test_shortfall_is_on_the_record_where_there_is_any() -> None:
    """Operators see what cannot be served."""
    starved = record(solve_slow(PlanningProblem(sites=(site("a", 0.0),), demand=demand(1.0))))
    assert starved.expected_shortfall["llama-3.1-70b"]["SS"] == pytest.approx(1.0)
    assert starved.weights == {}


def test_five_hundred_sites_fit_into_a_record() -> None:
    """Nine classes of one model take a quarter of what a plan may have."""
    planned = solve_slow(fleet(500, load=0.2))
    assert len(record(planned).to_json()) < 300_000


def test_a_failed_plan_is_not_published() -> None:
    """The last valid one stays."""
    with pytest.raises(ValueError, match="infeasible"):
        record(Planned(status="infeasible", explanation="no site"))
