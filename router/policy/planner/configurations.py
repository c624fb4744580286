"""What each configuration can do with each class, from its profile: rates, latency, watts. Pure.

Rates and watts are `fleet.capacity`'s; nothing is computed here by other rules. Class means are put on a
coarse grid first, so that a mean that drifts does not make every figure new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fleet.capacity import (
    Slo,
    Work,
    alone_seconds,
    busy_watts,
    mean_running,
    prefill_ratio,
    reference_slo,
    requests_per_second,
)
from fleet.profile import PerformanceProfile
from fleet.request import RequestClass
from router.policy.planner.problem import CLASSES, Configuration

SLO_FACTOR = 5.0
"""Of one request alone on the fastest configuration (fixed before any run)."""
GRID = 1.05
"""Sizes are rounded to powers of this."""
_PROMPTS = {"S": 256.0, "M": 1024.0, "L": 3072.0}
_OUTPUTS = {"S": 32.0, "M": 128.0, "L": 400.0}
TYPICAL_WORKS: Mapping[RequestClass, Work] = {
    name: Work(prompt_tokens=_PROMPTS[name[0]], output_tokens=_OUTPUTS[name[1]]) for name in CLASSES
}
"""Of a class that nobody has asked for yet: near the middle of its bounds (`fleet.request.ClassCutoffs`)."""


def on_grid(tokens: float) -> float:
    """A size rounded to the grid, at least 1 token."""
    return max(1.0, GRID ** round(math.log(max(1.0, tokens), GRID)))


def works_of(means: Mapping[RequestClass, tuple[float, float]]) -> dict[RequestClass, Work]:
    """Every class's mean size: what came, on the grid, else what is typical of it."""
    return {
        name: Work(prompt_tokens=on_grid(means[name][0]), output_tokens=on_grid(means[name][1]))
        if name in means
        else TYPICAL_WORKS[name]
        for name in CLASSES
    }


def slos_of(
    profiles: Sequence[PerformanceProfile], works: Mapping[RequestClass, Work]
) -> dict[RequestClass, Slo]:
    """Every class's SLO: `SLO_FACTOR` × one request alone on the fastest of these profiles."""
    return {name: reference_slo(profiles, works[name], SLO_FACTOR) for name in CLASSES}


def configuration_of(
    profile: PerformanceProfile,
    clock_mhz: int,
    *,
    works: Mapping[RequestClass, Work],
    slos: Mapping[RequestClass, Slo],
    rates: Mapping[RequestClass, float],
    max_concurrency: int,
    start_seconds: float,
) -> Configuration:
    """One configuration's figures for the load that is expected.

    `rates`: requests per second by class, which weigh the watts; none at all weighs every class alike. A
    class with no SLO-keeping rate has rate 0 and a late one; one that does not fit at all has neither.
    """
    within: list[float] = []
    late: list[float] = []
    ratios: list[float] = []
    busy_seconds = joules = 0.0
    is_idle = not any(rates.get(name, 0.0) > 0 for name in CLASSES)
    for name in CLASSES:
        work, slo = works[name], slos[name]
        most = requests_per_second(profile, clock_mhz, work, max_concurrency=max_concurrency)
        in_time = requests_per_second(profile, clock_mhz, work, max_concurrency=max_concurrency, slo=slo)
        within.append(in_time)
        late.append(most)
        _, e2e = alone_seconds(profile, clock_mhz, work)
        ratios.append(e2e / slo.e2e_seconds)
        rate = in_time or most
        if rate > 0:
            running = mean_running(profile, clock_mhz, work, rate, max_concurrency=max_concurrency)
            seconds = (1.0 if is_idle else rates.get(name, 0.0)) / rate
            busy_seconds += seconds
            in_prefill = prefill_ratio(profile, clock_mhz, work, rate)
            joules += seconds * busy_watts(profile, clock_mhz, running, prefill_ratio=in_prefill)
    full = joules / busy_seconds if busy_seconds > 0 else profile.watts(max_concurrency, clock_mhz)
    return Configuration(
        model=profile.model,
        tensor_parallel_degree=profile.tensor_parallel_degree,
        gpu_clock_mhz=clock_mhz,
        requests_per_second=tuple(within),
        late_requests_per_second=tuple(late),
        latency_ratio=tuple(ratios),
        full_watts=full,
        stopped_watts=profile.stopped_watts,
        start_seconds=start_seconds,
    )
