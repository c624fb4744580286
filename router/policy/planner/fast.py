"""The fast plan: the instances stay as they are, only their clocks and the shares change (DESIGN §6).

Made at once on a power event. A linear program; its fractions are then rounded so that no cap is passed, and
the loads are solved once more for what came out. An instance is let go only where watts do not carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from router.policy.planner.finish import finish
from router.policy.planner.model import (
    add_transport,
    energy_cost_per_watt,
    farm_budgets,
    known_demand,
)
from router.policy.planner.problem import (
    Configuration,
    Instances,
    Layout,
    Planned,
    PlanningProblem,
    PlanningSite,
    Target,
    check_problem,
)
from router.policy.planner.solver import LinearProblem, solve

LETTING_GO_RATIO = 3.0
"""Not running an instance that is there costs this many times its energy, or its GPUs unused: less than any
load unserved, more than what running it at any clock costs."""
ROUNDING = 1e-6


def solve_fast(problem: PlanningProblem, instances: Instances) -> Planned:
    """Clocks and shares for instances that exist; of those only model, degree and number count.

    `infeasible` where none of them is at a site that can be planned for.

    Raises:
        ProblemError: a figure of a site that cannot be meant.
    """
    check_problem(problem)
    sites = [site for site in problem.sites if site.is_plannable]
    layouts = {site.site_id: _layouts(site, instances.get(site.site_id, ())) for site in sites}
    if not any(layouts.values()):
        return Planned(
            status="infeasible",
            explanation="no instance runs at a site that can be planned for",
            unplanned=tuple(site.site_id for site in problem.sites if not site.is_plannable),
        )
    budgets = farm_budgets(sites, problem.parameters)
    lit = _lit_servers(sites, layouts, budgets)
    lp, columns = _fast_problem(problem, sites, layouts, lit, budgets)
    solution = solve(lp)
    if solution.status in ("infeasible", "failed"):
        return Planned(status=solution.status, explanation=solution.explanation)
    wanted = {key: float(solution.values[column]) for key, column in columns.items()}
    return finish(
        problem,
        sites,
        _round(sites, layouts, lit, budgets, wanted),
        status="optimal",
        gap_ratio=None,
        nodes=0,
        objective=solution.objective,
    )


def _layouts(site: PlanningSite, targets: Sequence[Target]) -> dict[Layout, int]:
    """Instances by layout that a configuration of the site describes, no more than its GPUs carry."""
    known = {configuration.layout for configuration in site.configurations}
    counts: dict[Layout, int] = {}
    gpus = site.gpu_count
    for target in targets:
        if target.layout in known and target.tensor_parallel_degree > 0:
            count = min(target.instances, gpus // target.tensor_parallel_degree)
            gpus -= count * target.tensor_parallel_degree
            counts[target.layout] = counts.get(target.layout, 0) + count
    return {layout: count for layout, count in counts.items() if count > 0}


def _lit_servers(
    sites: Sequence[PlanningSite],
    layouts: Mapping[str, Mapping[Layout, int]],
    budgets: Mapping[str, float],
) -> set[str]:
    """Servers with instances whose idle draw their farm carries, those with most instances first."""
    left = dict(budgets)
    for site in sites:
        if not site.can_switch_off:
            left[site.farm_id] -= site.server_idle_watts
    lit: set[str] = set()
    for site in sorted(sites, key=lambda each: (-sum(layouts[each.site_id].values()), each.site_id)):
        idle = site.server_idle_watts if site.can_switch_off else 0.0
        if layouts[site.site_id] and idle <= left[site.farm_id]:
            left[site.farm_id] -= idle
            lit.add(site.site_id)
    return lit


def _fast_problem(
    problem: PlanningProblem,
    sites: Sequence[PlanningSite],
    layouts: Mapping[str, Mapping[Layout, int]],
    lit: set[str],
    budgets: Mapping[str, float],
) -> tuple[LinearProblem, dict[tuple[str, Configuration], int]]:
    parameters, demand = problem.parameters, known_demand(problem)
    lp = LinearProblem()
    watt_cost = energy_cost_per_watt(sites, demand, parameters)
    columns: dict[tuple[str, Configuration], int] = {}
    farms: dict[str, list[tuple[int, float]]] = {}
    left = _left_watts(sites, lit, budgets)
    totals: dict[Configuration, list[tuple[int, float]] | float] = {}
    for site in sites:
        if site.site_id not in lit:
            continue
        by_layout: dict[Layout, list[tuple[int, float]]] = {}
        draw: list[tuple[int, float]] = []
        for configuration in site.configurations:
            if configuration.layout not in layouts[site.site_id]:
                continue
            watts = site.added_watts(configuration)
            column = columns[site.site_id, configuration] = lp.column(cost=watt_cost * watts)
            draw.append((column, watts))
            by_layout.setdefault(configuration.layout, []).append((column, 1.0))
            terms = totals.setdefault(configuration, [])
            assert isinstance(terms, list)
            terms.append((column, 1.0))
        for layout, terms in by_layout.items():
            most = max(site.added_watts(entry) for entry in site.configurations if entry.layout == layout)
            cost = watt_cost * most + parameters.spare_cost * layout[1]
            gone = lp.column(cost=LETTING_GO_RATIO * cost)
            count = float(layouts[site.site_id][layout])
            lp.row([*terms, (gone, 1.0)], lower=count, upper=count)
        lp.row(draw, upper=max(0.0, site.max_site_watts - site.server_idle_watts))
        farms.setdefault(site.farm_id, []).extend(draw)
    for farm_id, draw in farms.items():
        lp.row(draw, upper=left[farm_id])
    add_transport(lp, totals, demand, parameters)
    return lp, columns


def _left_watts(
    sites: Sequence[PlanningSite], lit: set[str], budgets: Mapping[str, float]
) -> dict[str, float]:
    """Farm → watts for instances, once every server that is on has its idle draw."""
    left = dict(budgets)
    for site in sites:
        if site.site_id in lit or not site.can_switch_off:
            left[site.farm_id] -= site.server_idle_watts
    return {farm_id: max(0.0, watts) for farm_id, watts in left.items()}


def _round(
    sites: Sequence[PlanningSite],
    layouts: Mapping[str, Mapping[Layout, int]],
    lit: set[str],
    budgets: Mapping[str, float],
    wanted: Mapping[tuple[str, Configuration], float],
) -> dict[str, dict[Configuration, int]]:
    """Whole instances: what the program fills whole stays, the rest at the highest clock that still fits."""
    farms = _left_watts(sites, lit, budgets)
    placed: dict[str, dict[Configuration, int]] = {site.site_id: {} for site in sites}
    own: dict[str, float] = {}
    for site in sites:
        own[site.site_id] = site.max_site_watts - site.server_idle_watts
        if site.site_id not in lit:
            continue
        for configuration in site.configurations:
            count = math.floor(wanted.get((site.site_id, configuration), 0.0) + ROUNDING)
            if count:
                placed[site.site_id][configuration] = count
                own[site.site_id] -= count * site.added_watts(configuration)
                farms[site.farm_id] -= count * site.added_watts(configuration)
    for site in sites:
        if site.site_id not in lit:
            continue
        mine = placed[site.site_id]
        for layout, count in sorted(layouts[site.site_id].items()):
            choices = sorted(
                (entry for entry in site.configurations if entry.layout == layout),
                key=lambda entry: -site.added_watts(entry),
            )
            for _ in range(count - sum(n for entry, n in mine.items() if entry.layout == layout)):
                room = min(own[site.site_id], farms[site.farm_id]) + ROUNDING
                fit = next((entry for entry in choices if site.added_watts(entry) <= room), None)
                if fit is None:
                    break
                mine[fit] = mine.get(fit, 0) + 1
                own[site.site_id] -= site.added_watts(fit)
                farms[site.farm_id] -= site.added_watts(fit)
    return placed
