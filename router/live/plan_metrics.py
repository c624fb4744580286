"""What the plan in use and this router's planner tell Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from router.live.metrics import counter, gauge
from router.live.plan_intake import PlanIntake


@dataclass(slots=True)
class PlannerFigures:
    """What the metrics tell."""

    is_available: bool = False
    is_leader: bool = False
    solves: dict[tuple[str, ...], int] = field(default_factory=dict)
    """By kind and result."""
    seconds: dict[tuple[str, ...], float] = field(default_factory=dict)
    """Of the last one, by kind."""
    shortfall_requests_per_second: float = 0.0
    unplanned_sites: int = 0


def plan_families(plans: PlanIntake, figures: PlannerFigures, *, now: float) -> Iterator[Metric]:
    """The plan in use, and this router's part in making plans."""
    plan = plans.plan
    age = now - plans.arrived_at
    is_valid = plan is not None and age <= plan.valid_for_seconds
    yield gauge(
        "heron_router_plan_valid",
        "1 while a plan is in use; act on 0 where planning is meant: the events say why.",
        [],
        {(): 1.0 if is_valid else 0.0},
    )
    yield gauge(
        "heron_router_plan_epoch",
        "Epoch of the newest plan; it grows when another router begins to lead.",
        [],
        {} if plan is None else {(): float(plan.epoch)},
    )
    yield gauge(
        "heron_router_plan_age_seconds",
        "Time since the newest plan came; act above twice [router.planner] interval_seconds.",
        [],
        {} if plan is None else {(): age},
    )
    yield gauge(
        "heron_router_plan_shortfall_requests_per_second",
        "Load that the newest plan says no site can serve; act when it stays: the fleet lacks power or GPUs.",
        ["model"],
        {}
        if plan is None
        else {(model,): sum(by_class.values()) for model, by_class in plan.expected_shortfall.items()},
    )
    yield gauge(
        "heron_router_planner_available",
        "1 where this router could plan; act on 0 where it should: install the extra plan.",
        [],
        {(): 1.0 if figures.is_available else 0.0},
    )
    yield gauge(
        "heron_router_planner_leader",
        "1 while this router plans for the fleet; act when the sum over routers stays 0.",
        [],
        {(): 1.0 if figures.is_leader else 0.0},
    )
    yield counter(
        "heron_router_planner_solves",
        "Plans asked of the solver; act when failed grows: the events say why, the last plan stays.",
        ["kind", "result"],
        figures.solves,
    )
    yield gauge(
        "heron_router_planner_solve_seconds",
        "How long the last plan took, from question to record; act when near timeout_seconds.",
        ["kind"],
        figures.seconds,
    )
    yield gauge(
        "heron_router_planner_unplanned_sites",
        "Sites that the last plan left out; act above 0: no power is known, or no profile describes them.",
        [],
        {(): float(figures.unplanned_sites)},
    )
