"""From whole instances per site to a plan: loads, weights, shares, watts. Slow and fast plans end here.

The loads are solved once more for exactly the instances that stand in the plan, so that shares and targets
always agree, whatever was rounded or did not fit on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.request import RequestClass
from router.policy.planner.model import Block, add_transport, known_demand
from router.policy.planner.problem import (
    CLASSES,
    ClassDemand,
    Configuration,
    Layout,
    Planned,
    PlanningProblem,
    PlanningSite,
    PlanStatus,
    Target,
)
from router.policy.planner.solver import LinearProblem, solve

Instances = Mapping[str, Mapping[Configuration, int]]
"""Site → instances per configuration."""
NEGLIGIBLE = 1e-9


def spread(
    block: Block, counts: Mapping[Configuration, int], servers: int
) -> dict[str, dict[Configuration, int]]:
    """Put a block's instances on its servers, where they already are as far as possible.

    Largest first; an instance that fits no server is left out (only where degrees do not divide each other).
    """
    left = sorted(
        ((entry, count) for entry, count in counts.items() if count > 0),
        key=lambda pair: (-pair[0].tensor_parallel_degree, pair[0].model, -(pair[0].gpu_clock_mhz or 0)),
    )
    order = sorted(block.sites, key=lambda site: (-sum(t.instances for t in site.present), site.site_id))
    chosen = order[: max(0, servers)]
    placed: dict[str, dict[Configuration, int]] = {site.site_id: {} for site in block.sites}
    gpus = {site.site_id: site.gpu_count for site in chosen}
    watts = {site.site_id: site.max_site_watts - site.server_idle_watts for site in chosen}
    kept = {site.site_id: _layouts(site) for site in chosen}
    for configuration, count in left:
        for _ in range(count):
            fitting = [
                site
                for site in chosen
                if gpus[site.site_id] >= configuration.tensor_parallel_degree
                and watts[site.site_id] >= site.added_watts(configuration) - NEGLIGIBLE
            ]
            if not fitting:
                break
            site = max(
                fitting,
                key=lambda each: (
                    kept[each.site_id].get(configuration.layout, 0) > 0,
                    -gpus[each.site_id],
                    -chosen.index(each),
                ),
            )
            name = site.site_id
            gpus[name] -= configuration.tensor_parallel_degree
            watts[name] -= site.added_watts(configuration)
            kept[name][configuration.layout] = kept[name].get(configuration.layout, 0) - 1
            placed[name][configuration] = placed[name].get(configuration, 0) + 1
    return placed


def _layouts(site: PlanningSite) -> dict[Layout, int]:
    counts: dict[Layout, int] = {}
    for target in site.present:
        counts[target.layout] = counts.get(target.layout, 0) + target.instances
    return counts


def finish(
    problem: PlanningProblem,
    sites: Sequence[PlanningSite],
    instances: Instances,
    *,
    status: PlanStatus,
    gap_ratio: float | None,
    nodes: int,
    objective: float,
    explanation: str = "",
) -> Planned:
    """The plan that these instances make."""
    demand = known_demand(problem)
    totals: dict[Configuration, list[tuple[int, float]] | float] = {}
    for counts in instances.values():
        for configuration, count in counts.items():
            before = totals.get(configuration, 0.0)
            assert isinstance(before, float)
            totals[configuration] = before + count
    lp = LinearProblem()
    transport = add_transport(lp, totals, demand, problem.parameters)
    solution = solve(lp)
    if solution.status != "optimal":
        return Planned(status="failed", explanation=f"loads: {solution.explanation}")
    served: dict[tuple[str, RequestClass], dict[str, float]] = {}
    for (configuration, index, _), column in transport.flows.items():
        load = float(solution.values[column])
        if load <= NEGLIGIBLE:
            continue
        key = (demand[index].model, demand[index].request_class)
        per_site = served.setdefault(key, {})
        total = totals[configuration]
        assert isinstance(total, float)
        for site_id, counts in instances.items():
            if count := counts.get(configuration, 0):
                per_site[site_id] = per_site.get(site_id, 0.0) + load * count / total
    shortfall = {
        (entry.model, entry.request_class): max(0.0, float(solution.values[column]))
        for entry, column in zip(demand, transport.shortfalls, strict=True)
        if entry.requests_per_second.p90 > 0
    }
    watts = {site.site_id: planned_watts(site, instances.get(site.site_id, {})) for site in sites}
    return Planned(
        status=status,
        explanation=explanation,
        gap_ratio=gap_ratio,
        nodes=nodes,
        objective=objective,
        targets={site.site_id: _targets(instances.get(site.site_id, {})) for site in sites},
        loads=served,
        demand={key: short + sum(served.get(key, {}).values()) for key, short in shortfall.items()},
        shortfall=shortfall,
        weights=_weights(problem.demand, instances, served, shortfall),
        shares=_shares(sites, watts),
        watts=watts,
        unplanned=tuple(site.site_id for site in problem.sites if not site.is_plannable),
    )


def planned_watts(site: PlanningSite, counts: Mapping[Configuration, int]) -> float:
    """Draw of a site that runs these instances at their full planned load."""
    is_on = any(counts.values()) or not site.can_switch_off
    added = sum(site.added_watts(configuration) * count for configuration, count in counts.items())
    return site.server_idle_watts + added if is_on else 0.0


def _targets(counts: Mapping[Configuration, int]) -> tuple[Target, ...]:
    wanted = (
        Target(
            model=entry.model,
            tensor_parallel_degree=entry.tensor_parallel_degree,
            gpu_clock_mhz=entry.gpu_clock_mhz,
            instances=count,
        )
        for entry, count in counts.items()
        if count > 0
    )
    return tuple(
        sorted(wanted, key=lambda each: (each.model, each.tensor_parallel_degree, each.gpu_clock_mhz or 0))
    )


def _weights(
    demand: Sequence[ClassDemand],
    instances: Instances,
    served: Mapping[tuple[str, RequestClass], Mapping[str, float]],
    shortfall: Mapping[tuple[str, RequestClass], float],
) -> dict[str, dict[RequestClass, dict[str, float]]]:
    """Fractions per site: what of a class is served at all, by what each site could serve of it.

    A program that divides classes gives each whole to the sites where it is a little cheaper. That is
    best for the means that it knows, and bad for a burst of one class (decision 11).
    """
    models = sorted(
        {entry.model for entry in demand}
        | {configuration.model for counts in instances.values() for configuration in counts}
    )
    weights: dict[str, dict[RequestClass, dict[str, float]]] = {}
    for model in models:
        for position, request_class in enumerate(CLASSES):
            key = (model, request_class)
            carried = sum(served.get(key, {}).values())
            whole = carried + shortfall.get(key, 0.0)
            part = carried / whole if whole > NEGLIGIBLE else 1.0
            rates = _capacities(model, position, instances)
            total = sum(rates.values())
            if total > NEGLIGIBLE and part > NEGLIGIBLE:
                weights.setdefault(model, {})[request_class] = {
                    site_id: part * rate / total for site_id, rate in sorted(rates.items())
                }
    return weights


def _capacities(model: str, position: int, instances: Instances) -> dict[str, float]:
    """Site → requests of a class per second within its SLO; however late, where no site keeps it."""
    for is_late in (False, True):
        rates: dict[str, float] = {}
        for site_id, counts in instances.items():
            rate = sum(
                count * (entry.late_requests_per_second if is_late else entry.requests_per_second)[position]
                for entry, count in counts.items()
                if entry.model == model
            )
            if rate > 0:
                rates[site_id] = rate
        if rates:
            return rates
    return {}


def _shares(sites: Sequence[PlanningSite], watts: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each site's part of what the plan draws at its farm.

    Sites that the plan does not count on have none, not 0: the allocator then gives them what is left, and
    only what is not there stops them.
    """
    shares: dict[str, dict[str, float]] = {}
    for farm_id in sorted({site.farm_id for site in sites}):
        drawn = {site.site_id: watts[site.site_id] for site in sites if site.farm_id == farm_id}
        total = sum(drawn.values())
        if total > 0:
            shares[farm_id] = {site_id: draw / total for site_id, draw in drawn.items() if draw > 0}
    return shares
