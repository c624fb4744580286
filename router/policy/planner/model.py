"""From a planning problem to the linear problem behind the slow and the fast plan.

Per block (a server, or equal servers of one farm taken together) and configuration a count of instances; per
configuration and class how much load all its instances in the fleet take together. Load is not split by
site here: two instances of one configuration are alike wherever they stand, so `finish` spreads what a
configuration serves over its instances. Nothing is lost by that, and the problem stays small (500 sites: 162
flows instead of 81,000).

Every instance that runs is counted at the watts of its full planned load, so a plan never leans on an
instance being half empty to keep a cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from router.policy.planner.problem import (
    CLASSES,
    ClassDemand,
    Configuration,
    Layout,
    PlannerParameters,
    PlanningProblem,
    PlanningSite,
)
from router.policy.planner.solver import INFINITY, LinearProblem

CROWDING_STEP = 0.1
"""Utilisation is cut into steps of this. In the middle of each a request more adds 1 / (1 - u)^2 of its own
time to all (an M/M/1 queue's derivative): convex, so a linear program can have it."""
Flow = tuple[Configuration, int, bool]
"""Configuration, index of the demand, whether it is late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Equal servers of one farm, planned as one; most blocks are one server."""

    sites: tuple[PlanningSite, ...]

    @property
    def first(self) -> PlanningSite:
        """Any of them: they are equal."""
        return self.sites[0]

    def present(self) -> dict[Layout, int]:
        """Instances that run now, by layout."""
        counts: dict[Layout, int] = {}
        for site in self.sites:
            for target in site.present:
                counts[target.layout] = counts.get(target.layout, 0) + target.instances
        return counts


def blocks_of(sites: Iterable[PlanningSite]) -> list[Block]:
    """Equal servers together, in the order of their first site."""
    groups: dict[tuple[object, ...], list[PlanningSite]] = {}
    for site in sites:
        key = (
            site.farm_id,
            site.gpu_count,
            site.server_idle_watts,
            site.overhead_ratio,
            site.max_site_watts,
            site.configurations,
            site.can_switch_off,
        )
        groups.setdefault(key, []).append(site)
    return [Block(sites=tuple(group)) for group in groups.values()]


def budget_watts(site: PlanningSite, parameters: PlannerParameters) -> float:
    """What a plan may count on at a site."""
    assert site.power is not None, "only plannable sites are planned for"
    return min(site.power.at(parameters.power_quantile), site.max_site_watts)


def farm_budgets(sites: Iterable[PlanningSite], parameters: PlannerParameters) -> dict[str, float]:
    """Farm → watts of its sites together; where servers cannot be off, never below what they draw idle."""
    given: dict[str, float] = {}
    forced: dict[str, float] = {}
    for site in sites:
        given[site.farm_id] = given.get(site.farm_id, 0.0) + budget_watts(site, parameters)
        idle = 0.0 if site.can_switch_off else site.server_idle_watts
        forced[site.farm_id] = forced.get(site.farm_id, 0.0) + idle
    return {farm: max(watts, forced[farm]) for farm, watts in given.items()}


def known_demand(problem: PlanningProblem) -> tuple[ClassDemand, ...]:
    """Demands that are numbers; a class of unknown demand is planned for as one that nobody asks for."""
    return tuple(demand for demand in problem.demand if demand.requests_per_second.is_usable)


def mix_rate(configuration: Configuration, demand: Sequence[ClassDemand]) -> tuple[float, float]:
    """Requests per second of the expected mix that a full instance serves, and the part of its SLO that one
    takes alone; zeros where it serves nothing of it.
    """
    load = seconds = ratio = 0.0
    for entry in demand:
        position = CLASSES.index(entry.request_class)
        rate = configuration.late_requests_per_second[position]
        if entry.model == configuration.model and rate > 0:
            wanted = entry.requests_per_second.p50
            load += wanted
            seconds += wanted / rate
            ratio += wanted * configuration.latency_ratio[position]
    return (load / seconds, ratio / load) if seconds > 0 else (0.0, 0.0)  # a load of 5e-324 takes none


def energy_cost_per_watt(
    sites: Sequence[PlanningSite], demand: Sequence[ClassDemand], parameters: PlannerParameters
) -> float:
    """The cost of a watt: `energy_cost` ÷ joules of a mean request on the thriftiest configuration."""
    if not parameters.energy_cost:
        return 0.0
    fewest = math.inf
    for configuration in {entry for site in sites for entry in site.configurations}:
        rate, _ = mix_rate(configuration, demand)
        if rate > 0:
            fewest = min(fewest, configuration.full_watts / rate)
    return parameters.energy_cost / fewest if 0 < fewest < math.inf else 1e-6


@dataclass(slots=True)
class Transport:
    """The load part of a problem: which configuration takes how much of which class."""

    flows: dict[Flow, int] = field(default_factory=dict)
    """Column by flow."""
    shortfalls: list[int] = field(default_factory=list)
    reserves: list[int] = field(default_factory=list)
    """Columns, one per demand."""


def add_transport(
    lp: LinearProblem,
    counts: Mapping[Configuration, list[tuple[int, float]] | float],
    demand: Sequence[ClassDemand],
    parameters: PlannerParameters,
    *,
    is_crowding_weighed: bool = True,
) -> Transport:
    """Add flows, shortfalls and the rows that bind them.

    `counts`: per configuration the terms that make up its number of instances, or that number itself.
    `is_crowding_weighed`: whether a busy instance costs more than an idle one; else only the limit holds.
    """
    transport = Transport()
    uses: dict[Configuration, list[tuple[int, float]]] = {entry: [] for entry in counts}
    for index, entry in enumerate(demand):
        position = CLASSES.index(entry.request_class)
        wanted = entry.requests_per_second
        terms: list[tuple[int, float]] = []
        for configuration in counts:
            if configuration.model != entry.model or wanted.p90 <= 0:
                continue
            rate = configuration.requests_per_second[position]
            late_rate = configuration.late_requests_per_second[position]
            latency = parameters.latency_cost * configuration.latency_ratio[position]
            for is_late, limit in ((False, rate), (True, late_rate)):
                if limit <= 0 or (is_late and late_rate <= rate * 1.0001):
                    continue
                cost = latency + (parameters.late_cost if is_late else 0.0)
                column = transport.flows[configuration, index, is_late] = lp.column(cost=cost)
                uses[configuration].append((column, 1 / limit))
                terms.append((column, 1.0))
        high = max(wanted.p50, wanted.p90)
        short = lp.column(cost=parameters.shortfall_cost, upper=wanted.p50)
        reserve = lp.column(cost=parameters.reserve_cost, upper=high - wanted.p50)
        transport.shortfalls.append(short)
        transport.reserves.append(reserve)
        terms += [(short, 1.0), (reserve, 1.0)]
        lp.row(terms, lower=high, upper=high)
    for configuration, count in counts.items():
        used = uses[configuration]
        if not used:
            continue
        rate, ratio = mix_rate(configuration, demand)
        cost = parameters.crowding_cost * parameters.latency_cost * rate * ratio
        limit = parameters.utilisation_limit
        steps = _steps(limit) if is_crowding_weighed else [(limit, 0.0)]
        for width, wait in steps:
            most = width * count if isinstance(count, float) else INFINITY
            column = lp.column(cost=cost * wait, upper=most)
            used.append((column, -1.0))
            if not isinstance(count, float):
                lp.row([(column, 1.0), *((term, -width * value) for term, value in count)], upper=0.0)
        lp.row(used, upper=0.0)
    return transport


def _steps(limit: float) -> list[tuple[float, float]]:
    """(width, waiting added per request) of each step of utilisation up to the limit."""
    count = max(1, round(limit / CROWDING_STEP))
    width = limit / count
    return [(width, 1 / (1 - min(0.99, (index + 0.5) * width)) ** 2) for index in range(count)]
