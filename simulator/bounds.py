"""The clairvoyant bound of a week and load, on the very sites, wind and load that a simulated cell has.

Two forms. Of a *sampled* cell every counted minute is a step: the very requests that policies meet there
(drawn with the cell's seed, by class) on the very watts (turbulence and trips in them, second by second).
Of *whole days* a step is the record's: the trace's expected rates, on the record's samples joined by lines.

A step may use its servers' time and its joules whenever it likes, and lets nothing pass to the next; it knows
no queue, no round trip, no start time. A kind of request (`simulator.kinds`: classes in parts, each with its
class's SLO) counts as its mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fleet.capacity import Slo, Work, busy_watts, mean_running, prefill_ratio, requests_per_second
from fleet.profile import PerformanceProfile
from fleet.request import RequestClass
from router.policy.planner.bound import (
    BASELINES,
    BoundConfiguration,
    BoundSite,
    Floats,
    KindFigures,
    capacity_curve,
    power_weights,
    served,
    served_by_class,
    sustained,
)
from router.policy.planner.configurations import slos_of
from router.policy.planner.problem import CLASSES
from simulator.cell import CellError
from simulator.fleet_size import model_of, profiles_of
from simulator.inputs import Inputs, blocks_of, scene, shifted_seconds, works_of
from simulator.kinds import Kinds
from simulator.settings import SiteSettings

ATTAINMENTS = (0.99, 0.95, 0.9)
MINUTE_SECONDS = 60
LOOKS = 15
"""At the wind within a step of the record: every minute of a quarter of an hour."""
OLD_SECONDS = 900.0
OLD_POWER = "power, 15 min old"
"""`power_weighted` with `age_seconds = 900`: by the watts of a quarter of an hour ago."""
KINDS = {"within_slo": True, "any_latency": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a week or a sample is made of."""

    watts: Floats
    """Caps (what the farm gives, less the margin): steps × sites × looks within the step."""
    old_watts: Floats
    """The mean cap `OLD_SECONDS` before, by the record: steps × sites."""
    offered: Floats
    """Requests per second: steps × kinds."""
    block_steps: tuple[int, ...]
    """How many of them each block has; whole days are one block."""


def bounds(inputs: Inputs, loads: Sequence[float], *, kinds: Iterable[str] = tuple(KINDS)) -> dict[str, Any]:
    """Everything that `heron bound` prints, as JSON, at these loads (not the cell's own).

    Raises:
        CellError: sites that share a farm: how a clairvoyant splits its power is not worked out.
    """
    if any(site.farm is not None for site in inputs.sites):
        raise CellError("the bound is known of fleets with one site a farm only; here farms have several")
    kinds_of = _kinds(inputs)
    shares, sites = kinds_of.shares, _sites(inputs, kinds_of)
    unit = inputs.peak_requests_per_second
    steps = {load: _steps(_with_load(inputs, load), kinds_of) for load in loads}
    most = max(loads)
    result: dict[str, Any] = {
        "wind": inputs.series.name,
        "days": [inputs.cell.first_day, inputs.cell.last_day],
        "size_percentile": inputs.cell.size_percentile,
        "sample": None if inputs.cell.sample is None else str(inputs.cell.sample),
        "seed": None if inputs.cell.sample is None else inputs.cell.seed,
        "trace": inputs.load.description,
        "sites": [site.site_id for site in inputs.sites],
        "cluster_peak_requests_per_second": unit,
        "offered_ratios": {
            f"{load:g}": float(steps[load].offered.sum(axis=1).mean()) / unit for load in loads
        },
    }
    for kind in kinds:
        fluid = _Fluid(sites, shares, is_within_slo=KINDS[kind])
        result[kind] = {
            "capacity_at_full_power_ratio": float(fluid.full.sum() / unit),
            "by_load": [fluid.at_load(load, steps[load]) for load in loads],
            "sustained": fluid.sustained(steps[most], most),
        }
    return result


class _Fluid:
    """The sites, at one reading of their rates."""

    def __init__(self, sites: Sequence[BoundSite], shares: Sequence[float], *, is_within_slo: bool) -> None:
        self._sites, self._is_within_slo = sites, is_within_slo
        self._shares = np.array(shares)
        alike = [replace(site, site_id="") for site in sites]
        curves = {one: capacity_curve(one, shares, is_within_slo=is_within_slo) for one in set(alike)}
        self._curves = [curves[one] for one in alike]
        self._most = np.array([site.max_site_watts for site in sites])
        self._idle = np.array([site.server_idle_watts for site in sites])
        self.full = np.array([curve(self._most[[index]])[0] for index, curve in enumerate(self._curves)])

    def at_load(self, load: float, steps: Steps) -> dict[str, Any]:
        """Shares of the offered requests that are served."""
        offered = steps.offered.sum(axis=1)
        whole = float(offered.sum()) or 1.0
        capacity = self._capacity(steps)
        best = self._best(steps, capacity)
        return {
            "load": load,
            "bound": float(best.sum()) / whole,
            "bound_by_block": _by_block(best, steps),
            "offered_by_block": _by_block(offered, steps),
            "bound_same_mix": float(np.minimum(offered, capacity.sum(axis=1)).sum()) / whole,
            "baselines": {
                name: float(served(share, capacity, offered).sum()) / whole
                for name, share in self._weights(steps, capacity).items()
            },
        }

    def sustained(self, steps: Steps, load: float) -> dict[str, dict[str, float]]:
        """Loads of which so much is served, all classes alike; `steps` are those of `load`."""
        shape = steps.offered.sum(axis=1) / load
        capacity = self._capacity(steps)

        def of(share: Floats) -> dict[str, float]:
            return {
                f"{attainment:g}": sustained(lambda rates: served(share, capacity, rates), shape, attainment)
                for attainment in ATTAINMENTS
            }

        weights = self._weights(steps, capacity)
        # in a fluid, by room is the same as the bound
        return {"bound_same_mix": of(weights["least_loaded"])} | {
            name: of(share) for name, share in weights.items()
        }

    def _capacity(self, steps: Steps) -> Floats:
        """Requests per second of the load's mean mix: steps × sites."""
        columns = [curve(steps.watts[:, index]).mean(axis=1) for index, curve in enumerate(self._curves)]
        return np.stack(columns, axis=1)

    def _weights(self, steps: Steps, capacity: Floats) -> Mapping[str, Floats]:
        power = np.minimum(steps.watts.mean(axis=2), self._most)
        installed = np.broadcast_to(self.full, capacity.shape)
        found = {name: share(power, capacity, installed) for name, share in BASELINES.items()}
        old = np.minimum(steps.old_watts, self._most)
        return found | {OLD_POWER: power_weights(old, capacity, installed)}

    def _best(self, steps: Steps, capacity: Floats) -> Floats:
        """Requests per second that the best choice of requests and configurations serves in each step."""
        power = np.minimum(steps.watts, self._most[:, None])
        is_on = power >= self._idle[:, None]
        on_ratios = is_on.mean(axis=2)
        above = np.where(is_on, power - self._idle[:, None], 0.0).mean(axis=2)
        watts = self._idle + np.divide(above, on_ratios, out=np.zeros_like(above), where=on_ratios > 0)
        offered = steps.offered.sum(axis=1)
        best: Floats = offered.copy()
        for step, wanted in enumerate(steps.offered):
            is_mean_mix = np.allclose(wanted, self._shares * offered[step], rtol=1e-6)
            if is_mean_mix and capacity[step].sum() >= offered[step]:
                continue
            found = served_by_class(
                self._sites,
                watts[step].tolist(),
                wanted.tolist(),
                is_within_slo=self._is_within_slo,
                on_ratios=on_ratios[step].tolist(),
            )
            if is_mean_mix:
                found = max(found, float(capacity[step].sum()))  # the curve's points lie a hair closer
            best[step] = min(found, offered[step])
        return best


def _by_block(rates: Floats, steps: Steps) -> list[float]:
    """Sums of the steps' rates, block by block."""
    edges = np.cumsum((0, *steps.block_steps[:-1]))
    return [round(float(one), 6) for one in np.add.reduceat(rates, edges)]


def _class_works(inputs: Inputs) -> dict[RequestClass, Work]:
    """Every class's mean; of one that does not come, the mean of all."""
    works, mean = works_of(inputs.load)
    return {name: works.get(name, mean) for name in CLASSES}


def _kinds(inputs: Inputs) -> Kinds:
    return Kinds.of(inputs.load, _class_works(inputs))


def _figures(
    profile: PerformanceProfile, clock_mhz: int, work: Work, slo: Slo | None, max_concurrency: int
) -> KindFigures:
    rate = requests_per_second(profile, clock_mhz, work, max_concurrency=max_concurrency, slo=slo)
    running = mean_running(profile, clock_mhz, work, rate, max_concurrency=max_concurrency)
    in_prefill = prefill_ratio(profile, clock_mhz, work, rate)
    return KindFigures(
        requests_per_second=rate,
        busy_watts=busy_watts(profile, clock_mhz, running, prefill_ratio=in_prefill),
    )


def _sites(inputs: Inputs, kinds: Kinds) -> list[BoundSite]:
    """The servers with their configurations for that load."""
    profiles = list({one.profile_id: one for site in inputs.sites for one in profiles_of(site)}.values())
    by_class = slos_of(profiles, _class_works(inputs))
    slos = [by_class[kinds.class_of(kind)] for kind in range(len(kinds.works))]
    made: dict[tuple[object, ...], BoundConfiguration] = {}

    def site_of(settings: SiteSettings) -> BoundSite:
        configurations = []
        for profile in profiles_of(settings):
            for clock in profile.clocks_mhz:
                key = (profile.profile_id, clock, settings.max_concurrency)
                if key not in made:
                    made[key] = BoundConfiguration(
                        tensor_parallel_degree=profile.tensor_parallel_degree,
                        idle_watts=profile.idle_watts,
                        stopped_watts=profile.stopped_watts,
                        within_slo=tuple(
                            _figures(profile, clock, work, slo, settings.max_concurrency)
                            for work, slo in zip(kinds.works, slos, strict=True)
                        ),
                        any_latency=tuple(
                            _figures(profile, clock, work, None, settings.max_concurrency)
                            for work in kinds.works
                        ),
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

    return [site_of(settings) for settings in inputs.sites]


def _with_load(inputs: Inputs, load: float) -> Inputs:
    """The same cell at another load."""
    scale = load * inputs.peak_requests_per_second / inputs.load.mean_rate
    return replace(inputs, cell=inputs.cell.with_(load=load), scale=scale)


def _steps(inputs: Inputs, kinds: Kinds) -> Steps:
    return _expected(inputs, kinds) if inputs.cell.sample is None else _drawn(inputs, kinds)


def _drawn(inputs: Inputs, kinds: Kinds) -> Steps:
    """The counted minutes of the blocks, as policies meet them."""
    watts, old, offered, block_steps = [], [], [], []
    for start, seconds, warm_up in blocks_of(inputs.cell):
        one = scene(inputs, start, seconds, warm_up)
        edges = np.arange(warm_up, seconds - MINUTE_SECONDS + 1, MINUTE_SECONDS, dtype=np.float64)
        caps = [
            one.watts[site.site_id][warm_up:][: len(edges) * MINUTE_SECONDS].reshape(-1, MINUTE_SECONDS)
            * (1 - site.margin_ratio)
            for site in inputs.sites
        ]
        watts.append(np.stack(caps, axis=1))
        old.append(
            _recorded(inputs, start + edges.astype(np.float64) - OLD_SECONDS, MINUTE_SECONDS).mean(axis=2)
        )
        arrivals = one.arrivals
        minute = np.floor((arrivals.at_seconds - warm_up) / MINUTE_SECONDS).astype(np.int64)
        inside = (minute >= 0) & (minute < len(edges))
        counts = np.zeros((len(edges), len(kinds.works)))
        indexes = kinds.indexes(arrivals.prompt_tokens, arrivals.output_tokens)
        np.add.at(counts, (minute[inside], indexes[inside]), 1.0 / MINUTE_SECONDS)
        offered.append(counts)
        block_steps.append(len(edges))
    return Steps(
        watts=np.concatenate(watts),
        old_watts=np.concatenate(old),
        offered=np.concatenate(offered),
        block_steps=tuple(block_steps),
    )


def _expected(inputs: Inputs, kinds: Kinds) -> Steps:
    """Whole days in the record's steps."""
    period = inputs.series.period_seconds
    starts: Floats = np.arange(round(inputs.days_seconds / period), dtype=np.float64) * period
    offered = np.zeros((len(starts), len(kinds.works)))
    for part in inputs.load.parts:
        indexes = kinds.indexes(part.sizes.prompt_tokens, part.sizes.output_tokens)
        shares = np.bincount(indexes, minlength=len(kinds.works)) / len(indexes)
        for step, start in enumerate(starts.tolist()):
            edges, rates = part.rate.of_block(start, period)
            offered[step] += float((rates * np.diff(edges)).sum()) / period * inputs.scale * shares
    return Steps(
        watts=_recorded(inputs, starts, period),
        old_watts=_recorded(inputs, starts - OLD_SECONDS, period).mean(axis=2),
        offered=offered,
        block_steps=(len(starts),),
    )


def _recorded(inputs: Inputs, starts: Floats, seconds: float) -> Floats:
    """Caps by the record alone, joined by lines, of steps that begin so many seconds into the days."""
    series, columns = inputs.series, []
    looks = (np.arange(LOOKS) + 0.5) / LOOKS * seconds
    for site in inputs.sites:
        nameplate = inputs.nameplate_watts[site.site_id] * (1 - site.margin_ratio)
        if inputs.cell.constant_power:
            columns.append(np.full((len(starts), LOOKS), nameplate))
            continue
        values = np.array(series.ratios[site.wind])
        known = ~np.isnan(values)
        at = np.nonzero(known)[0] * series.period_seconds
        begins = np.array([shifted_seconds(inputs, site, start) for start in starts.tolist()])
        times = begins[:, None] + looks
        columns.append(np.interp(times, at, values[known]) * nameplate)
    return np.stack(columns, axis=1)
