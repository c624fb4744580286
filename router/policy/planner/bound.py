"""How much could be served at all: the clairvoyant bound, and fluid versions of the baselines. Pure.

Perfect foresight, no queueing between sites, no start times: in each step every server runs the best mix of
configurations for the power it has then, a server below its idle draw is off, and load is divided without
loss. The distance from a fluid baseline to the bound is the ceiling of any gain over that baseline.

Rates are `fleet.capacity`'s in two readings: *within the SLO* (its estimate of waiting inside an instance is
in them, so this is what an instance can promise) and *however late*. Each kind of request is served in its
own time on an instance, at its own draw; batches that mix kinds do slightly better than that sum, which the
bound leaves out. Which kinds there are is the caller's affair: the nine classes, or finer ones.

The baselines are fluid approximations: each gives every site a share of the load, the site serves what it can
of it, and nothing that one site cannot serve is tried elsewhere. Real ones do try; real ones also queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.policy.planner.solver import LinearProblem, solve

Floats = NDArray[np.float64]
GRID_POINTS = 240
"""Of a site's capacity over its watts; it is concave, so interpolating between them is never too much."""
HALVINGS = 40
MOST_LOAD = 4.0
"""Sustained load is looked for up to so many times the cluster's peak."""


class KindFigures(NamedTuple):
    """One kind of request on one instance that does nothing else."""

    requests_per_second: float
    """0: it cannot be served."""
    busy_watts: float
    """All GPUs of the instance at that rate, overhead not included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundConfiguration:
    """One way to run an instance: what it does with each kind, in the same order everywhere."""

    tensor_parallel_degree: int
    idle_watts: float
    """Awake, with nothing to do."""
    stopped_watts: float
    """The same GPUs without an engine: they are part of the site's `server_idle_watts`."""
    within_slo: tuple[KindFigures, ...]
    any_latency: tuple[KindFigures, ...]

    def kinds(self, *, is_within_slo: bool) -> tuple[KindFigures, ...]:
        """Within the SLO or however late."""
        return self.within_slo if is_within_slo else self.any_latency

    @property
    def awake_watts(self) -> float:
        """What one that has nothing to do draws more than one that is stopped."""
        return max(0.0, self.idle_watts - self.stopped_watts)

    def request_joules(self, kind: KindFigures) -> float:
        """What a request costs beyond that."""
        return max(0.0, kind.busy_watts - self.idle_watts) / kind.requests_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSite:
    """One server, and what it can run."""

    site_id: str
    gpu_count: int
    server_idle_watts: float
    overhead_ratio: float
    max_site_watts: float
    configurations: tuple[BoundConfiguration, ...]


def capacity_at(site: BoundSite, shares: Sequence[float], watts: float, *, is_within_slo: bool) -> float:
    """The most of the mix that a site serves with this power: a linear program over its configurations, each
    kind of request in its own time, in whichever of them.
    """
    watts = min(watts, site.max_site_watts)
    if watts < site.server_idle_watts:
        return 0.0
    lp = LinearProblem()
    whole = lp.column(cost=-1.0)
    flows = [[(whole, -share)] for share in shares]
    gpus, draw = [], []
    for configuration in site.configurations:
        column = lp.column()
        gpus.append((column, float(configuration.tensor_parallel_degree)))
        draw.append((column, configuration.awake_watts))
        used = [(column, -1.0)]
        for index, kind in enumerate(configuration.kinds(is_within_slo=is_within_slo)):
            if kind.requests_per_second > 0 and shares[index] > 0:
                flow = lp.column()
                used.append((flow, 1 / kind.requests_per_second))
                draw.append((flow, configuration.request_joules(kind)))
                flows[index].append((flow, 1.0))
        lp.row(used, upper=0.0)
    for taken in flows:
        lp.row(taken, lower=0.0, upper=0.0)
    lp.row(gpus, upper=float(site.gpu_count))
    lp.row(draw, upper=(watts - site.server_idle_watts) / site.overhead_ratio)
    return max(0.0, -solve(lp).objective)


def capacity_curve(
    site: BoundSite, shares: Sequence[float], *, is_within_slo: bool
) -> Callable[[Floats], Floats]:
    """Watts → requests per second of the mix."""
    idle, most = site.server_idle_watts, site.max_site_watts
    grid = np.linspace(idle, max(idle, most), GRID_POINTS)
    values = np.array([capacity_at(site, shares, w, is_within_slo=is_within_slo) for w in grid.tolist()])

    def capacity(watts: Floats) -> Floats:
        found = np.interp(np.minimum(watts, most), grid, values)
        return np.where(watts < idle, 0.0, found)

    return capacity


def served_by_class(
    sites: Sequence[BoundSite],
    watts: Sequence[float],
    wanted: Sequence[float],
    *,
    is_within_slo: bool,
    on_ratios: Sequence[float] | None = None,
) -> float:
    """The most requests per second of any kind that the fleet serves in one step, however it chooses.

    Every request counts alike, so with too little power the cheap kinds are served first. `on_ratios`: the
    part of the step in which each server has its idle draw at least (default: all of it), `watts` then
    being the mean of that part. Which site serves which kind is left open but for what its instances can draw
    at most, which keeps the program small and the bound one.
    """
    lp = LinearProblem()
    instances: dict[BoundConfiguration, list[int]] = {}
    works: dict[BoundConfiguration, list[int]] = {}
    parts = [1.0] * len(sites) if on_ratios is None else on_ratios
    for site, given, part in zip(sites, watts, parts, strict=True):
        power = min(given, site.max_site_watts)
        if power < site.server_idle_watts or part <= 0:
            continue
        gpus, draw = [], []
        for configuration in site.configurations:
            kinds = configuration.kinds(is_within_slo=is_within_slo)
            most = max(kind.busy_watts for kind in kinds) - configuration.idle_watts
            count, work = lp.column(), lp.column()
            gpus.append((count, float(configuration.tensor_parallel_degree)))
            draw += [(count, configuration.awake_watts), (work, 1.0)]
            lp.row([(work, 1.0), (count, -max(0.0, most))], upper=0.0)
            instances.setdefault(configuration, []).append(count)
            works.setdefault(configuration, []).append(work)
        lp.row(gpus, upper=part * site.gpu_count)
        lp.row(draw, upper=part * (power - site.server_idle_watts) / site.overhead_ratio)
    if not instances:
        return 0.0
    flows: list[list[tuple[int, float]]] = [[] for _ in wanted]
    for configuration, counts in instances.items():
        used = [(count, -1.0) for count in counts]
        joules = [(work, -1.0) for work in works[configuration]]
        for index, kind in enumerate(configuration.kinds(is_within_slo=is_within_slo)):
            if kind.requests_per_second > 0 and wanted[index] > 0:
                column = lp.column(cost=-1.0)
                used.append((column, 1 / kind.requests_per_second))
                joules.append((column, configuration.request_joules(kind)))
                flows[index].append((column, 1.0))
        lp.row(used, upper=0.0)
        lp.row(joules, upper=0.0)
    for index, taken in enumerate(flows):
        if taken:
            lp.row(taken, upper=wanted[index])
    return max(0.0, -solve(lp).objective)


Share = Callable[[Floats, Floats, Floats], Floats]
"""(power, capacity, installed), each steps × sites → each site's share of the load; rows sum to ≤ 1."""


def _normalised(weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    found: Floats = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return found


def round_robin(power: Floats, capacity: Floats, installed: Floats) -> Floats:  # noqa: ARG001
    """Alike over the sites that serve at all."""
    return _normalised((capacity > 0).astype(np.float64))


def static_weights(power: Floats, capacity: Floats, installed: Floats) -> Floats:  # noqa: ARG001
    """By installed capacity, dark sites too: blind to power."""
    return _normalised(installed)


def power_weights(power: Floats, capacity: Floats, installed: Floats) -> Floats:  # noqa: ARG001
    """By watts, whatever they can do."""
    return _normalised(power)


def least_loaded(power: Floats, capacity: Floats, installed: Floats) -> Floats:  # noqa: ARG001
    """By room: in a fluid without delay, by what each site can serve."""
    return _normalised(capacity)


def selective_push(power: Floats, capacity: Floats, installed: Floats) -> Floats:
    """What finds no short queue waits at the router and goes where one ends: in a fluid, by room as well."""
    return least_loaded(power, capacity, installed)


BASELINES: Mapping[str, Share] = {
    "round_robin": round_robin,
    "static_weighted": static_weights,
    "power_weighted": power_weights,
    "least_loaded": least_loaded,
    "selective_push": selective_push,
}


def served(share: Floats, capacity: Floats, load: Floats) -> Floats:
    """Requests per second served in each step."""
    found: Floats = np.minimum(share * load[:, None], capacity).sum(axis=1)
    return found


def sustained(serve: Callable[[Floats], Floats], shape: Floats, attainment: float) -> float:
    """The largest multiple of `shape` of which `serve` still serves this part; 0 where none."""
    low, high = 0.0, MOST_LOAD
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        load = middle * shape
        if serve(load).sum() >= attainment * load.sum():
            low = middle
        else:
            high = middle
    return low if low > 1e-6 else 0.0
