"""Planning problems for tests: a made-up GPU whose figures are simple enough to check by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st

from router.policy.planner.finish import planned_watts
from router.policy.planner.problem import (
    CLASSES,
    ClassDemand,
    Configuration,
    Planned,
    PlannerParameters,
    PlanningProblem,
    PlanningSite,
    Quantiles,
    Target,
)

MODEL = "llama-3.1-70b"
CLOCKS = (1000, 1200, 1400, 1600, 1800, 1980)
DEGREES = (2, 4, 8)
WORK = (1.0, 2.0, 5.0, 1.5, 2.5, 5.5, 3.0, 4.0, 8.0)
"""Seconds of one GPU that a request of each class takes at full clock."""


def configuration(
    degree: int = 4, clock: int = 1980, *, model: str = MODEL, start_seconds: float = 90.0
) -> Configuration:
    """Two GPUs do less than half of what four do; power falls faster with the clock than speed does."""
    g = clock / 1980
    speed = 1 / (0.65 + 0.35 / g)
    useful = degree * {1: 1.0, 2: 1.0, 4: 0.95, 8: 0.85}[degree]
    late = tuple(useful * speed / work for work in WORK)
    is_slow = degree == 2 and clock < 1200
    rates = tuple(
        0.0 if is_slow and name[1] == "L" else rate for rate, name in zip(late, CLASSES, strict=True)
    )
    return Configuration(
        model=model,
        tensor_parallel_degree=degree,
        gpu_clock_mhz=clock,
        requests_per_second=rates,
        late_requests_per_second=late,
        latency_ratio=tuple(0.2 / speed * (8 / degree) ** 0.3 for _ in WORK),
        full_watts=degree * (115 + 475 * (0.25 + 0.75 * g**2.4)),
        stopped_watts=degree * 70.0,
        start_seconds=start_seconds,
    )


ALL = tuple(configuration(degree, clock) for degree in DEGREES for clock in CLOCKS)


def site(
    site_id: str = "a",
    watts: float | Quantiles | None = 6000.0,
    *,
    farm_id: str | None = None,
    configurations: tuple[Configuration, ...] = ALL,
    gpu_count: int = 8,
    present: tuple[Target, ...] = (),
    can_switch_off: bool = True,
    max_site_watts: float = 7000.0,
) -> PlanningSite:
    """A server of eight GPUs that draws 900 W idle, 1.1 overhead."""
    power = Quantiles(p10=watts, p50=watts, p90=watts) if isinstance(watts, float | int) else watts
    return PlanningSite(
        site_id=site_id,
        farm_id=farm_id or f"farm-{site_id}",
        gpu_count=gpu_count,
        server_idle_watts=900.0,
        overhead_ratio=1.1,
        max_site_watts=max_site_watts,
        power=power,
        configurations=configurations,
        present=present,
        can_switch_off=can_switch_off,
    )


def demand(rate: float, *, model: str = MODEL, ratio: float = 1.2) -> tuple[ClassDemand, ...]:
    """The same rate of every class, its 90th percentile `ratio` times as high."""
    return tuple(
        ClassDemand(
            model=model,
            request_class=name,
            requests_per_second=Quantiles(p10=rate / ratio, p50=rate, p90=rate * ratio),
        )
        for name in CLASSES
    )


def fleet(
    count: int, *, seed: int = 1, load: float = 0.5, parameters: PlannerParameters | None = None
) -> PlanningProblem:
    """Sites with unequal wind, some too little to switch a server on, at `load` of what all could do."""
    rng = random.Random(seed)
    sites = tuple(
        site(f"s{index:03d}", 7000.0 * min(1.0, rng.betavariate(1.2, 1.8) * 1.3)) for index in range(count)
    )
    best = configuration(2, 1980)
    seconds = sum(1 / rate for rate in best.late_requests_per_second)
    rate = count * 4 * load / seconds
    return PlanningProblem(sites=sites, demand=demand(rate), parameters=parameters or PlannerParameters())


def check_planned(problem: PlanningProblem, planned: Planned) -> None:
    """The invariants of every plan."""
    farms: dict[str, float] = {}
    draws: dict[str, float] = {}
    for each in problem.sites:
        if not each.is_plannable:
            assert each.site_id in planned.unplanned
            continue
        known = {(c.model, c.tensor_parallel_degree, c.gpu_clock_mhz): c for c in each.configurations}
        targets = planned.targets[each.site_id]
        counts = {
            known[target.model, target.tensor_parallel_degree, target.gpu_clock_mhz]: target.instances
            for target in targets
        }
        gpus = sum(target.tensor_parallel_degree * target.instances for target in targets)
        assert gpus <= each.gpu_count
        draw = planned_watts(each, counts)
        forced = 0.0 if each.can_switch_off else each.server_idle_watts
        assert draw <= max(each.max_site_watts, forced) + 0.01
        assert draw == pytest.approx(planned.watts[each.site_id])
        assert each.power is not None
        cap = min(each.power.at(problem.parameters.power_quantile), each.max_site_watts)
        farms[each.farm_id] = farms.get(each.farm_id, 0.0) + cap
        draws[each.farm_id] = draws.get(each.farm_id, 0.0) + draw
    for farm_id, draw in draws.items():
        mine = [each for each in problem.sites if each.farm_id == farm_id and each.is_plannable]
        forced = sum(0.0 if each.can_switch_off else each.server_idle_watts for each in mine)
        assert draw <= max(farms[farm_id], forced) + 0.01
    for by_class in planned.weights.values():
        for sites in by_class.values():
            assert sum(sites.values()) <= 1 + 1e-9
            assert all(value >= 0 for value in sites.values())
    for shares in planned.shares.values():
        assert sum(shares.values()) <= 1 + 1e-9
    for key, short in planned.shortfall.items():
        served = sum(planned.loads.get(key, {}).values())
        assert short + served == pytest.approx(planned.demand[key], abs=1e-6)
        median = next(
            entry.requests_per_second.p50
            for entry in problem.demand
            if (entry.model, entry.request_class) == key
        )
        assert short <= median + 1e-6
        assert short + served >= median - 1e-6


@st.composite
def problems(draw: st.DrawFn) -> PlanningProblem:
    """Small fleets of every kind: several servers at a farm, switchable or not, power unknown or none."""
    sites: list[PlanningSite] = []
    for index in range(draw(st.integers(1, 4))):
        low = draw(st.sampled_from([0.0, 500.0, 900.0, 2500.0, 4000.0, 7000.0]))
        power = draw(
            st.sampled_from([Quantiles(p10=low, p50=low + 500, p90=low + 900)] * 5 + [None])  # type: ignore[list-item]
        )
        layouts = draw(st.sampled_from([ALL, ALL[:6], ALL[6:], (configuration(4, 1980),)]))
        present = draw(
            st.sampled_from(
                [(), (Target(model=MODEL, tensor_parallel_degree=2, gpu_clock_mhz=1000, instances=3),)]
            )
        )
        sites.append(
            site(
                f"s{index}",
                power,
                farm_id=draw(st.sampled_from(["one", f"own-{index}"])),
                configurations=layouts,
                gpu_count=draw(st.sampled_from([4, 8, 12])),
                present=present,
                can_switch_off=draw(st.booleans()),
                max_site_watts=draw(st.sampled_from([800.0, 3000.0, 7000.0])),
            )
        )
    rates = [draw(st.sampled_from([0.0, 0.05, 0.4, 3.0])) for _ in CLASSES]
    wanted = tuple(
        ClassDemand(
            model=MODEL,
            request_class=name,
            requests_per_second=Quantiles(p10=rate / 2, p50=rate, p90=rate * 1.3),
        )
        for name, rate in zip(CLASSES, rates, strict=True)
    )
    return PlanningProblem(sites=tuple(sites), demand=wanted)
