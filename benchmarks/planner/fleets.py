"""Planning problems of any size: servers of eight H100s, unequal wind, 18 configurations, nine classes."""

from __future__ import annotations

import random
from dataclasses import replace

from fleet.profile import PROFILES
from router.policy.planner.configurations import configuration_of, slos_of, works_of
from router.policy.planner.problem import (
    CLASSES,
    ClassDemand,
    Configuration,
    Instances,
    PlanningProblem,
    PlanningSite,
    Quantiles,
)

MODEL = "llama-3.1-70b"
CLOCKS_PER_DEGREE = 6
SHARES = (0.10, 0.12, 0.05, 0.16, 0.20, 0.07, 0.14, 0.11, 0.05)
"""Of the nine classes; made up, near the 2023 conversation trace."""
SERVER_IDLE_WATTS = 1716.0
OVERHEAD_RATIO = 1.1


def configurations() -> tuple[Configuration, ...]:
    """Llama-3.1-70B at tensor-parallel 2, 4, 8 and the six highest clocks."""
    profiles = [PROFILES[f"{MODEL}/h100/tp{degree}"] for degree in (2, 4, 8)]
    works = works_of({})
    slos = slos_of(profiles, works)
    rates = dict(zip(CLASSES, SHARES, strict=True))
    return tuple(
        configuration_of(
            profile, clock, works=works, slos=slos, rates=rates, max_concurrency=128, start_seconds=90.0
        )
        for profile in profiles
        for clock in profile.clocks_mhz[-CLOCKS_PER_DEGREE:]
    )


def problem(sites: int, *, load: float, seed: int, present: Instances | None = None) -> PlanningProblem:
    """`load`: of what the fleet does with full power; the wind gives about 45 % of that."""
    rng = random.Random(f"{sites} {seed}")
    known = configurations()
    most = SERVER_IDLE_WATTS + OVERHEAD_RATIO * max(
        (entry.full_watts - entry.stopped_watts) * (8 // entry.tensor_parallel_degree) for entry in known
    )
    made = []
    for index in range(sites):
        name = f"s{index:03d}"
        median = most * min(1.0, rng.betavariate(1.2, 1.6) * 1.1)
        made.append(
            PlanningSite(
                site_id=name,
                farm_id=f"farm-{name}",
                gpu_count=8,
                server_idle_watts=SERVER_IDLE_WATTS,
                overhead_ratio=OVERHEAD_RATIO,
                max_site_watts=most,
                power=Quantiles(p10=0.85 * median, p50=median, p90=min(most, 1.15 * median)),
                configurations=known,
                present=tuple((present or {}).get(name, ())),
            )
        )
    seconds = min(
        sum(share / rate for share, rate in zip(SHARES, entry.late_requests_per_second, strict=True))
        / (8 // entry.tensor_parallel_degree)
        for entry in known
    )
    rate = sites * load / seconds
    demand = tuple(
        ClassDemand(
            model=MODEL,
            request_class=name,
            requests_per_second=Quantiles(p10=0.8 * rate * share, p50=rate * share, p90=1.2 * rate * share),
        )
        for name, share in zip(CLASSES, SHARES, strict=True)
    )
    return PlanningProblem(sites=tuple(made), demand=demand)


def with_flows_by_site(problem: PlanningProblem) -> PlanningProblem:
    """The same problem with no two sites' configurations alike, so that it has a flow per site.

    A microsecond more of start time tells them apart.
    """
    return replace(
        problem,
        sites=tuple(
            replace(
                site,
                configurations=tuple(
                    replace(entry, start_seconds=entry.start_seconds + 1e-6 * index)
                    for entry in site.configurations
                ),
            )
            for index, site in enumerate(problem.sites)
        ),
    )
