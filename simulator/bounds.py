"""The clairvoyant bound of a week and load, on the very sites, wind and load that a simulated cell has.

Left out, as the bound has no queue and no second: turbulence, bursts inside a step, round trips, start times.
The load's classes keep their shares over the week (their rates move together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet.request import RequestClass
from router.policy.planner.bound import (
    BASELINES,
    BoundSite,
    Floats,
    capacity_curve,
    served,
    served_by_class,
    sustained,
)
from router.policy.planner.configurations import configuration_of, slos_of
from router.policy.planner.problem import CLASSES
from simulator.fleet_size import model_of, profiles_of
from simulator.inputs import CUTOFFS, Inputs, blocks_of, shifted_seconds, works_of
from simulator.settings import SiteSettings

ATTAINMENTS = (0.99, 0.95, 0.9)
MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A week in the wind record's steps; of a sampled cell the step of each counted minute."""

    watts: Floats
    """Cap of each step and site: what the farm gives, less the margin."""
    shape: Floats
    """Load of each step, mean 1."""


def bounds(inputs: Inputs, loads: Sequence[float]) -> dict[str, Any]:
    """Everything that `heron bound` prints, as JSON."""
    shares, sites = _sites(inputs)
    steps = _steps(inputs)
    unit = inputs.peak_requests_per_second
    result: dict[str, Any] = {
        "wind": inputs.series.name,
        "days": [inputs.cell.first_day, inputs.cell.last_day],
        "size_percentile": inputs.cell.size_percentile,
        "trace": inputs.load.description,
        "sites": [site.site_id for site in inputs.sites],
        "cluster_peak_requests_per_second": unit,
    }
    for name, is_within_slo in (("within_slo", True), ("any_latency", False)):
        curves = [capacity_curve(site, shares, is_within_slo=is_within_slo) for site in sites]
        capacity = np.stack([curve(steps.watts[:, index]) for index, curve in enumerate(curves)], axis=1)
        most = np.array([site.max_site_watts for site in sites])
        full = np.array([curve(most[index : index + 1])[0] for index, curve in enumerate(curves)])
        power = np.minimum(steps.watts, most)
        weights = {
            baseline: share(power, capacity, np.broadcast_to(full, capacity.shape))
            for baseline, share in BASELINES.items()
        }
        result[name] = {
            "capacity_at_full_power_ratio": float(full.sum() / unit),
            "by_load": [
                _at_load(load, unit, steps, capacity, weights, sites, shares, is_within_slo) for load in loads
            ],
            "sustained": _sustained(unit, steps, capacity, weights),
        }
    return result


def _at_load(
    load: float,
    unit: float,
    steps: Steps,
    capacity: Floats,
    weights: dict[str, Floats],
    sites: Sequence[BoundSite],
    shares: Sequence[float],
    is_within_slo: bool,
) -> dict[str, Any]:
    offered = load * unit * steps.shape
    whole = float(offered.sum())
    same_mix = np.minimum(offered, capacity.sum(axis=1))
    best = same_mix.copy()
    for step in np.nonzero(same_mix < offered * (1 - 1e-9))[0].tolist():
        wanted = [share * float(offered[step]) for share in shares]
        found = served_by_class(sites, steps.watts[step].tolist(), wanted, is_within_slo=is_within_slo)
        best[step] = max(best[step], min(found, float(offered[step])))
    return {
        "load": load,
        "bound": float(best.sum()) / whole,
        "bound_same_mix": float(same_mix.sum()) / whole,
        "baselines": {
            name: float(served(share, capacity, offered).sum()) / whole for name, share in weights.items()
        },
    }


def _sustained(
    unit: float, steps: Steps, capacity: Floats, weights: dict[str, Floats]
) -> dict[str, dict[str, float]]:
    shape = unit * steps.shape

    def of(share: Floats) -> dict[str, float]:
        return {
            f"{attainment:g}": sustained(lambda load: served(share, capacity, load), shape, attainment)
            for attainment in ATTAINMENTS
        }

    best = BASELINES["least_loaded"](capacity, capacity, capacity)  # in a fluid the same as the bound
    return {"bound_same_mix": of(best)} | {name: of(share) for name, share in weights.items()}


def _sites(inputs: Inputs) -> tuple[list[float], list[BoundSite]]:
    """Shares of the nine classes, and the servers with their configurations for that load."""
    prompt, output, weight = inputs.load.rows()
    sums: dict[RequestClass, float] = dict.fromkeys(CLASSES, 0.0)
    for one, other, part in zip(prompt.tolist(), output.tolist(), weight.tolist(), strict=True):
        sums[CUTOFFS.classify(one, other)] += part
    works, mean = works_of(inputs.load)
    every = {name: works.get(name, mean) for name in CLASSES}
    profiles = list({one.profile_id: one for site in inputs.sites for one in profiles_of(site)}.values())
    slos = slos_of(profiles, every)
    made: dict[tuple[object, ...], Any] = {}

    def site_of(settings: SiteSettings) -> BoundSite:
        configurations = []
        for profile in profiles_of(settings):
            for clock in profile.clocks_mhz:
                key = (profile.profile_id, clock, settings.max_concurrency)
                if key not in made:
                    made[key] = configuration_of(
                        profile,
                        clock,
                        works=every,
                        slos=slos,
                        rates=sums,
                        max_concurrency=settings.max_concurrency,
                        start_seconds=settings.start_seconds,
                    )
                configurations.append(made[key])
        model = model_of(settings)
        return BoundSite(
            site_id=settings.site_id,
            gpu_count=settings.instances * settings.profile.tensor_parallel_degree,
            server_idle_watts=model.server_idle_watts,
            overhead_ratio=settings.overhead_ratio,
            max_site_watts=model.full_watts,
            configurations=tuple(configurations),
        )

    return [sums[name] for name in CLASSES], [site_of(settings) for settings in inputs.sites]


def _steps(inputs: Inputs) -> Steps:
    series, cell = inputs.series, inputs.cell
    period = series.period_seconds
    count = round(inputs.days_seconds / period)
    columns = []
    for site in inputs.sites:
        column = series.ratios[site.wind]
        at = [round(shifted_seconds(inputs, site, step * period) / period) for step in range(count)]
        values = np.array([column[step] for step in at])
        if cell.constant_power:
            values = np.ones(count)
        known = np.nan_to_num(values, nan=0.0)
        columns.append(known * inputs.nameplate_watts[site.site_id] * (1 - site.margin_ratio))
    rates = np.zeros(count)
    for part in inputs.load.parts:
        for step in range(count):
            edges, found = part.rate.of_block(step * period, period)
            rates[step] += float((found * np.diff(edges)).sum()) / period
    watts, shape = np.stack(columns, axis=1), rates / rates.mean()
    if cell.sample is None:
        return Steps(watts=watts, shape=shape)
    counted = [
        int((start + second) // period)
        for start, seconds, warm_up in blocks_of(cell)
        for second in range(warm_up, seconds, MINUTE_SECONDS)
    ]
    return Steps(watts=watts[counted], shape=shape[counted])
