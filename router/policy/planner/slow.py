"""The slow plan: how many instances of which configuration run where (DESIGN §6). Every quarter of an hour.

A mixed-integer problem: instances are whole, loads are not. Objective: shortfall ≫ SLO misses > reserve >
latency > spare GPUs unused > energy (`PlannerParameters`). A start in another layout costs what its GPUs do
not serve meanwhile, so it must gain that within one interval. Small fleets are solved to the gap asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.policy.planner.finish import finish, spread
from router.policy.planner.model import (
    Block,
    add_transport,
    blocks_of,
    energy_cost_per_watt,
    farm_budgets,
    known_demand,
    mix_rate,
)
from router.policy.planner.orders import own_layout
from router.policy.planner.problem import (
    ClassDemand,
    Configuration,
    Layout,
    Planned,
    PlannerParameters,
    PlanningProblem,
    PlanningSite,
    check_problem,
)
from router.policy.planner.solver import LinearProblem, solve

Counts = dict[tuple[int, Configuration], int]
"""(block, configuration) → column."""


def solve_slow(problem: PlanningProblem) -> Planned:
    """The plan for a problem.

    A fleet without a site that can be planned for is `infeasible`. Without power anywhere the plan is
    `optimal`, runs nothing and states the whole load as shortfall.

    Raises:
        ProblemError: a figure of a site that cannot be meant.
    """
    check_problem(problem)
    sites = [site for site in problem.sites if site.is_plannable]
    if not sites:
        why = "no site can be planned for: none has power and a configuration that a profile describes"
        return Planned(
            status="infeasible", explanation=why, unplanned=tuple(site.site_id for site in problem.sites)
        )
    blocks = blocks_of(sites)
    lp, columns, servers, shortfalls = slow_problem(blocks, known_demand(problem), problem.parameters)
    gap = _allowed_gap(lp, shortfalls, problem)
    solution = solve(lp, gap=gap, max_nodes=problem.parameters.max_nodes)
    if solution.status in ("infeasible", "failed"):
        return Planned(status=solution.status, explanation=solution.explanation)
    instances: dict[str, dict[Configuration, int]] = {}
    for index, block in enumerate(blocks):
        counts = {
            configuration: round(float(solution.values[columns[index, configuration]]))
            for configuration in block.first.configurations
        }
        instances |= spread(block, counts, round(float(solution.values[servers[index]])))
    return finish(
        problem,
        sites,
        instances,
        status=solution.status,
        gap_ratio=solution.gap_ratio,
        nodes=solution.nodes,
        objective=solution.objective,
        explanation=solution.explanation,
    )


def _allowed_gap(lp: LinearProblem, shortfalls: Sequence[int], problem: PlanningProblem) -> float:
    """`gap_ratio` of the objective or of what serving is worth, whichever is less.

    Where little power is there, most of the objective is load that nobody can serve: one per cent of that
    would be a large part of what can be served.
    """
    relaxed = solve(lp, is_relaxed=True)
    if relaxed.status != "optimal":
        return 0.0
    wanted = sum(entry.requests_per_second.p50 for entry in known_demand(problem))
    served = wanted - sum(float(relaxed.values[column]) for column in shortfalls)
    worth = problem.parameters.shortfall_cost * max(0.0, served)
    return problem.parameters.gap_ratio * (min(relaxed.objective, worth) if wanted else relaxed.objective)


def slow_problem(
    blocks: Sequence[Block], demand: Sequence[ClassDemand], parameters: PlannerParameters
) -> tuple[LinearProblem, Counts, list[int], list[int]]:
    """The linear problem; the columns of its counts, of each block's servers that are on, of shortfalls."""
    lp = LinearProblem()
    sites = [site for block in blocks for site in block.sites]
    watt_cost = energy_cost_per_watt(sites, demand, parameters)
    columns: Counts = {}
    servers: list[int] = []
    starts: list[tuple[int, float]] = []
    farms: dict[str, list[tuple[int, float]]] = {site.farm_id: [] for site in sites}
    for index, block in enumerate(blocks):
        site = block.first
        costs = _start_costs(block.first, demand, parameters)
        terms, draw = _add_block(lp, index, block, columns, costs, watt_cost, parameters)
        servers.append(draw[0][0])
        farms[site.farm_id] += draw
        starts += terms
    budgets = farm_budgets(sites, parameters)
    for farm_id, draw in farms.items():
        lp.row(draw, upper=budgets[farm_id])
    if starts:
        gpus = sum(site.gpu_count for site in sites)
        largest = max(site.gpu_count for site in sites)
        lp.row(starts, upper=max(largest, parameters.reconfigured_gpu_ratio * gpus))
    by_configuration: dict[Configuration, list[tuple[int, float]] | float] = {}
    for (_, configuration), column in columns.items():
        terms = by_configuration.setdefault(configuration, [])  # type: ignore[assignment]
        terms.append((column, 1.0))
    transport = add_transport(lp, by_configuration, demand, parameters, is_crowding_weighed=False)
    for model in sorted({configuration.model for configuration in by_configuration}):
        present = [(column, 1.0) for (_, entry), column in columns.items() if entry.model == model]
        missing = lp.column(cost=parameters.late_cost)
        lp.row([*present, (missing, 1.0)], lower=float(parameters.minimum_instances))
    return lp, columns, servers, transport.shortfalls


def _add_block(
    lp: LinearProblem,
    index: int,
    block: Block,
    columns: Counts,
    costs: Mapping[Layout, float],
    watt_cost: float,
    parameters: PlannerParameters,
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Add one block; returns its starts at servers that serve now (in GPUs), and what it draws."""
    site, count = block.first, len(block.sites)
    is_fixed = not site.can_switch_off
    on = lp.column(
        cost=0.0 if is_fixed else watt_cost * site.server_idle_watts,
        lower=float(count) if is_fixed else 0.0,
        upper=float(count),
        is_integer=True,
    )
    draw = [(on, site.server_idle_watts)]
    gpus = [(on, -float(site.gpu_count))]
    by_layout: dict[Layout, list[tuple[int, float]]] = {}
    for configuration in site.configurations:
        degree, watts = configuration.tensor_parallel_degree, site.added_watts(configuration)
        most = count * (site.gpu_count // degree)
        column = lp.column(cost=watt_cost * watts, upper=float(most), is_integer=True)
        columns[index, configuration] = column
        draw.append((column, watts))
        gpus.append((column, float(degree)))
        by_layout.setdefault(configuration.layout, []).append((column, 1.0))
    unused = lp.column(cost=parameters.spare_cost)
    lp.row([*gpus[1:], (unused, 1.0)], lower=float(count * site.gpu_count))
    lp.row(gpus, upper=0.0)
    spare = site.max_site_watts - site.server_idle_watts
    lp.row([*draw[1:], (on, -max(0.0, spare))], upper=0.0)
    present = block.present()
    started: list[tuple[int, float]] = []
    moved: list[tuple[int, float]] = []
    for layout, terms in by_layout.items():
        start = lp.column(cost=costs[layout])
        lp.row([*terms, (start, -1.0)], upper=float(present.get(layout, 0)))
        started.append((start, 1.0))
        if present:
            moved.append((start, float(layout[1])))
    lp.row(started, upper=float(parameters.max_starts_per_site * count))
    return moved, draw


def _start_costs(
    site: PlanningSite, demand: Sequence[ClassDemand], parameters: PlannerParameters
) -> dict[Layout, float]:
    """Per start by layout: nothing in the one that the site starts by itself."""
    costs: dict[Layout, float] = {}
    own = own_layout(site)
    for configuration in site.configurations:
        rate, _ = mix_rate(configuration, demand)
        seconds = configuration.start_seconds + parameters.drain_seconds
        lost = rate * min(1.0, seconds / parameters.interval_seconds)
        if configuration.layout == own:
            lost = 0.0
        cost = parameters.churn_ratio * parameters.shortfall_cost * lost
        costs[configuration.layout] = max(costs.get(configuration.layout, 0.0), cost)
    return costs
