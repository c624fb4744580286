"""From a cell to its scenes: files read, sites sized, wind and requests of each block drawn.

Rule: what is drawn depends on the cell's inputs and seed only, never on its policy or site control, so that
all policies of a seed meet the same wind and the same requests (common random numbers).
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fleet.capacity import Slo, Work
from fleet.profile_file import is_file
from fleet.request import ClassCutoffs, ClassSlo, RequestClass
from power_feed.synthetic import SyntheticWind
from power_feed.wind_files import WindOptions, read_wind_file
from power_feed.wind_series import WindSeries
from router.policy.planner.demand import ClassLoad
from simulator.cell import Cell, CellError, Sample
from simulator.fleet_size import nameplates_of, peak_requests_per_second, sites_of, slo_of
from simulator.planning import PastLoads
from simulator.settings import PlannerSettings, RouterSettings, SiteSettings, Telemetry
from simulator.traces import Load, load_trace, trace_files
from simulator.trips import with_trips
from simulator.weeks import DAY_SECONDS
from simulator.wind import History, Turbulence, Watts, before, per_second
from simulator.workload import Ints
from simulator.world import MAX_DRAIN_SECONDS, TAIL_SECONDS, Scene

Resolve = Callable[[str], Path]
HISTORY_SECONDS = 7 * DAY_SECONDS
"""Of wind that a feed has seen before a block."""
PAST_ANSWERS = 256
PAST_MINUTES = 180
SYNTHETIC_WINDS = ("synthetic-far", "synthetic-near")
SYNTHETIC_SITES, SYNTHETIC_DAYS = 5, 90
CUTOFFS = ClassCutoffs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a cell's blocks have in common."""

    cell: Cell
    series: WindSeries
    load: Load
    sites: tuple[SiteSettings, ...]
    nameplate_watts: dict[str, float]
    work: Work
    """The load's mean request."""
    slo: Slo
    """Of the mean request."""
    class_slos: dict[RequestClass, Slo]
    """Of each class's mean request: what results are judged by."""
    peak_requests_per_second: float
    scale: float
    """Of the trace's rate, so that its mean is the cell's load."""

    @property
    def first_seconds(self) -> float:
        """Where the cell's days begin in the wind record."""
        return (self.cell.first_day - 1) * float(DAY_SECONDS)

    @property
    def days_seconds(self) -> int:
        """How long they are."""
        return (self.cell.last_day - self.cell.first_day + 1) * DAY_SECONDS


def read_inputs(cell: Cell, resolve: Resolve) -> Inputs:
    """Read and size everything.

    Raises:
        CellError, WindFileError, TraceError, WeekError: what cannot be used, and why.
    """
    cell.check()
    series = wind_series(cell.wind, resolve)
    if cell.last_day * DAY_SECONDS > series.steps * series.period_seconds:
        raise CellError(f"{series.name}: has no day {cell.last_day}")
    sites = sites_of(cell, series)
    most_tokens = min(site.profile.max_model_len for site in sites)
    load = _trace(cell.trace, cell.sizes, resolve).cut_to(most_tokens)
    works, mean = works_of(load)
    peak = peak_requests_per_second(sites, mean)
    if peak <= 0:
        raise CellError("the fleet meets the SLO at no load at all: check profile and max_concurrency")
    return Inputs(
        cell=cell,
        series=series,
        load=load,
        sites=sites,
        nameplate_watts=nameplates_of(cell, series, sites),
        work=mean,
        slo=slo_of(sites, mean),
        class_slos={name: slo_of(sites, work) for name, work in works.items()},
        peak_requests_per_second=peak,
        scale=cell.load * peak / load.mean_rate,
    )


def works_of(load: Load) -> tuple[dict[RequestClass, Work], Work]:
    """Mean sizes by class (by what requests really produce) and over all."""
    prompt, output, weight = load.rows()
    sums: dict[RequestClass, list[float]] = {}
    for one, other, share in zip(prompt.tolist(), output.tolist(), weight.tolist(), strict=True):
        entry = sums.setdefault(CUTOFFS.classify(one, other), [0.0, 0.0, 0.0])
        entry[0] += share
        entry[1] += share * one
        entry[2] += share * other
    works = {
        name: Work(prompt_tokens=prompts / total, output_tokens=outputs / total)
        for name, (total, prompts, outputs) in sorted(sums.items())
    }
    mean = Work(
        prompt_tokens=float(np.average(prompt, weights=weight)),
        output_tokens=float(np.average(output, weights=weight)),
    )
    return works, mean


def class_indexes(prompt_tokens: Ints, output_tokens: Ints) -> Ints:
    """Where each request's class stands in `RequestClass`: as `CUTOFFS.classify`, for many at once."""
    prompts = np.searchsorted((CUTOFFS.small_prompt_tokens, CUTOFFS.medium_prompt_tokens), prompt_tokens)
    outputs = np.searchsorted((CUTOFFS.small_output_tokens, CUTOFFS.medium_output_tokens), output_tokens)
    return prompts * 3 + outputs


def blocks_of(cell: Cell) -> list[tuple[int, int, int]]:
    """(start within the days, counted seconds with the warm-up, warm-up) of each block."""
    total = (cell.last_day - cell.first_day + 1) * DAY_SECONDS
    sample = cell.sample or Sample(every_seconds=total, seconds=total, warm_up_seconds=300)
    return [
        (start, min(sample.seconds, total - start), sample.warm_up_seconds)
        for start in range(sample.offset_seconds, total, sample.every_seconds)
        if total - start > sample.warm_up_seconds
    ]


def scenes(inputs: Inputs) -> Iterator[Scene]:
    """The cell's blocks, in order."""
    cell = inputs.cell
    for start, seconds, warm_up in blocks_of(cell):
        yield scene(inputs, start, seconds, warm_up)


def scene(inputs: Inputs, start: int, seconds: int, warm_up: int) -> Scene:
    """One block."""
    cell = inputs.cell
    total = seconds + TAIL_SECONDS + MAX_DRAIN_SECONDS + 1
    watts: dict[str, Watts] = {}
    history: dict[str, History] = {}
    for site in inputs.sites:
        if site.farm_name in watts:  # the farm's first site has drawn it
            watts[site.site_id] = watts[site.farm_name]
            if site.farm_name in history:
                history[site.site_id] = history[site.farm_name]
            continue
        begin = shifted_seconds(inputs, site, start)
        samples = inputs.series.ratios[site.wind]
        nameplate = inputs.nameplate_watts[site.site_id]
        if cell.constant_power:
            watts[site.site_id] = np.full(total, nameplate)
            continue
        watts[site.site_id] = per_second(
            samples,
            period_seconds=inputs.series.period_seconds,
            start_seconds=begin,
            seconds=total,
            nameplate_watts=nameplate,
            turbulence=Turbulence(intensity_ratio=cell.turbulence_ratio),
            seed=f"{cell.seed}/wind/{site.site_id}/{start}",
        )
        if cell.trips_per_day:
            rng = random.Random(f"{cell.seed}/trips/{site.site_id}/{start}")
            watts[site.site_id] = with_trips(watts[site.site_id], cell.trips_per_day, rng)
        history[site.site_id] = before(
            samples,
            period_seconds=inputs.series.period_seconds,
            start_seconds=begin,
            seconds=HISTORY_SECONDS,
            nameplate_watts=nameplate,
        )
    return Scene(
        sites=inputs.sites,
        router=RouterSettings(
            policy=cell.policy,
            parameters=dict(cell.parameters),
            resume=cell.resume,
            planner=_planner(dict(cell.planner_parameters)) if cell.has_planner else None,
            length_error_ratio=cell.length_error_ratio,
            class_slos={
                name: ClassSlo(ttft_seconds=slo.ttft_seconds, e2e_seconds=slo.e2e_seconds)
                for name, slo in inputs.class_slos.items()
            }
            if cell.has_router_slo
            else {},
            **dict(cell.router_overrides),
        ),
        telemetry=Telemetry(
            report_delay_seconds=cell.report_delay_seconds,
            report_loss_ratio=cell.report_loss_ratio,
            forecast_error_ratio=cell.forecast_error_ratio,
        ),
        watts=watts,
        nameplate_watts=inputs.nameplate_watts,
        arrivals=inputs.load.arrivals(
            start_seconds=float(start),
            seconds=float(seconds + TAIL_SECONDS),
            scale=inputs.scale,
            mode=cell.mode,
            seed=f"{cell.seed}/load/{start}",
        ),
        warm_up_seconds=warm_up,
        seconds=seconds,
        seed=f"{cell.seed}/{start}",
        faults=cell.faults,
        history=history,
        past_loads=past_loads(inputs, start) if cell.has_planner else (),
        past_lengths=past_lengths(inputs, start),
    )


def _planner(parameters: dict[str, Any]) -> PlannerSettings:
    """With the interval that its parameters have, if they have one."""
    own = {"interval_seconds": parameters["interval_seconds"]} if "interval_seconds" in parameters else {}
    return PlannerSettings(parameters=parameters, **own)


def past_lengths(inputs: Inputs, start: int) -> tuple[tuple[int, int], ...]:
    """(prompt, answer) in tokens, that a router had seen end: drawn as those of the block are, but others."""
    prompt, output, weight = inputs.load.rows()
    rng = np.random.default_rng(random.Random(f"{inputs.cell.seed}/past/{start}").getrandbits(64))
    rows = rng.choice(len(output), PAST_ANSWERS, p=weight / weight.sum())
    return tuple(zip(prompt[rows].tolist(), output[rows].tolist(), strict=True))


def past_loads(inputs: Inputs, start: int) -> PastLoads:
    """What a planner had been told of the load of the last hours, minute by minute, by what was expected."""
    prompt, output, weight = inputs.load.rows()
    expected = max(1, round(float(np.average(output, weights=weight))))
    model = inputs.sites[0].profile.model
    shares: dict[RequestClass, list[float]] = {}
    for one, share in zip(prompt.tolist(), (weight / weight.sum()).tolist(), strict=True):
        entry = shares.setdefault(CUTOFFS.classify(one, expected), [0.0, 0.0])
        entry[0] += share
        entry[1] += share * one
    found = []
    for minute in range(-PAST_MINUTES, 0):
        rate = 0.0
        for part in inputs.load.parts:
            edges, rates = part.rate.of_block(start + minute * 60.0, 60.0)
            rate += float(np.sum(rates * np.diff(edges))) / 60.0 * inputs.scale
        loads = {
            (model, name): ClassLoad(
                requests_per_second=rate * share,
                prompt_tokens=prompts / share,
                output_tokens=float(expected),
            )
            for name, (share, prompts) in sorted(shares.items())
        }
        found.append((minute * 60.0, loads))
    return tuple(found)


def shifted_seconds(inputs: Inputs, site: SiteSettings, start: float) -> float:
    """Where an instant of the days lies in the site's column; a shifted one goes round at its end."""
    record = inputs.series.steps * inputs.series.period_seconds
    begin = inputs.first_seconds + start
    if site.wind_shift_days:
        begin = (begin + site.wind_shift_days * DAY_SECONDS) % (record - DAY_SECONDS)
    return begin


def files_of(cell: Cell, resolve: Resolve) -> tuple[Path, ...]:
    """The files that a cell reads: wind first, then those of its load, then profiles.

    Raises:
        Whatever `resolve` raises, where one is not there.
    """
    wind = () if cell.wind in SYNTHETIC_WINDS else (resolve(cell.wind),)
    tables = [dict(cell.site_overrides), *map(dict, cell.each_site)]
    names = [
        name for one in tables for name in (one.get("profile_id"), *(one.get("other_profile_ids") or ()))
    ]
    profiles = sorted({Path(str(name)) for name in names if name is not None and is_file(str(name))})
    return wind + trace_files(cell.trace, resolve) + tuple(profiles)


@lru_cache(maxsize=4)
def wind_series(name: str, resolve: Resolve) -> WindSeries:
    """A record by name or file."""
    if name in SYNTHETIC_WINDS:
        preset = "far" if name.endswith("far") else "near"
        farms = [
            SyntheticWind(preset=preset, seed=1, farm=farm)  # type: ignore[arg-type]
            for farm in range(SYNTHETIC_SITES)
        ]
        period = farms[0].period_seconds
        steps = round(SYNTHETIC_DAYS * DAY_SECONDS / period)
        return WindSeries(
            name=name,
            period_seconds=period,
            ratios={
                f"farm{index + 1}": array("d", (farm.ratio(step) or 0.0 for step in range(steps)))
                for index, farm in enumerate(farms)
            },
        )
    advice = "give a file of shares of nameplate to be sure"
    return read_wind_file(resolve(name), WindOptions(unit_advice=advice, nameplate_advice=advice))


@lru_cache(maxsize=8)
def _trace(name: str, sizes: str, resolve: Resolve) -> Load:
    return load_trace(name, resolve, sizes=sizes)  # type: ignore[arg-type]
