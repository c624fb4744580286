"""Between a solver's plan and the record that goes to routers, agents and feeds."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.records import Plan, PlanTarget, SolverReport
from router.policy.planner.orders import Targets
from router.policy.planner.problem import Planned

DIGITS = 9
"""Of a fraction on the wire: 500 sites × 9 classes then stay far below the record's limit."""


def to_plan(
    planned: Planned,
    *,
    orders: Targets,
    router_id: str,
    sequence: int,
    epoch: int,
    solved_at_unix_seconds: float,
    valid_for_seconds: float,
    solver_seconds: float,
) -> Plan:
    """The record of a usable plan. `orders`: what sites are told (`orders_of`).

    Raises:
        ValueError: the plan is not usable.
    """
    if not planned.is_usable:
        raise ValueError(f"a plan that is {planned.status} is not published: {planned.explanation}")
    return Plan(
        router_id=router_id,
        sequence=sequence,
        epoch=epoch,
        solved_at_unix_seconds=solved_at_unix_seconds,
        valid_for_seconds=valid_for_seconds,
        solver=SolverReport(status=planned.status, gap_ratio=planned.gap_ratio, seconds=solver_seconds),
        weights={
            model: {name: _ratios(sites) for name, sites in by_class.items()}
            for model, by_class in planned.weights.items()
        },
        targets={
            site_id: tuple(
                PlanTarget(
                    model=target.model,
                    tensor_parallel_degree=target.tensor_parallel_degree,
                    gpu_clock_mhz=target.gpu_clock_mhz,
                    instances=target.instances,
                )
                for target in targets
            )
            for site_id, targets in orders.items()
        },
        shares={farm_id: _ratios(sites) for farm_id, sites in planned.shares.items()},
        expected_shortfall=_shortfall(planned),
    )


def _ratios(sites: Mapping[str, float]) -> dict[str, float]:
    return {site_id: min(1.0, max(0.0, round(value, DIGITS))) for site_id, value in sites.items()}


def _shortfall(planned: Planned) -> dict[str, dict[str, float]]:
    by_model: dict[str, dict[str, float]] = {}
    for (model, request_class), rate in planned.shortfall.items():
        if rate > 0:
            by_model.setdefault(model, {})[request_class] = round(rate, DIGITS)
    return by_model
