"""A planning problem from the fleet's records, as a router holds them. Pure.

Rule: what is not known is left out, never guessed: a site without a SiteInfo, without a profile of one of its
configurations, without a reading of its power, or that needs a person (`faulted`) is not planned for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fleet.capacity import Slo, Work
from fleet.profile import PerformanceProfile, profile_of
from fleet.records import ConfigurationInfo, SiteInfo, SiteReport
from fleet.request import RequestClass
from router.policy.outlook import PowerOutlook
from router.policy.planner.configurations import configuration_of, slos_of, works_of
from router.policy.planner.demand import Key
from router.policy.planner.problem import (
    ClassDemand,
    Configuration,
    PlannerParameters,
    PlanningProblem,
    PlanningSite,
    Quantiles,
    Target,
)

DEFAULT_MAX_CONCURRENCY = 128
"""Of an instance whose SiteInfo does not say."""
DEFAULT_START_SECONDS = 90.0
MAX_SITE_CONFIGURATIONS = 128
"""Of one site, in its order; those beyond are not planned for. Three degrees at seven clocks are 21."""
MAX_CONFIGURATIONS = 2000
"""Different ones of the fleet, sites in order of name. One takes some 3 ms the first time."""
RUNNING_STATES = frozenset({"ready", "starting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecordsView:
    """What is known of one site."""

    info: SiteInfo | None
    report: SiteReport | None
    outlook: PowerOutlook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad:
    """The load of one model: mean sizes, SLOs and rates by class."""

    works: Mapping[RequestClass, Work]
    slos: Mapping[RequestClass, Slo]
    rates: Mapping[RequestClass, float]


def problem_of(
    sites: Mapping[str, SiteRecordsView],
    demand: tuple[ClassDemand, ...],
    means: Mapping[Key, tuple[float, float]],
    *,
    now: float,
    horizon_seconds: float,
    margin_ratio: float,
    parameters: PlannerParameters,
) -> PlanningProblem:
    """The problem; sites in order of name.

    `demand`, `means`: expected load, and mean (prompt, output) tokens by model and class. `horizon_seconds`:
    the site's power is the lowest that each quantile has from now until then.
    """
    used = _profiles_by_model(sites)
    loads = {model: _load_of(model, known, demand, means) for model, known in sorted(used.items())}
    made: dict[tuple[object, ...], Configuration] = {}
    planned = []
    for site_id, view in sorted(sites.items()):
        info, report = view.info, view.report
        if info is None or (report is not None and report.state == "faulted"):
            continue
        planned.append(
            PlanningSite(
                site_id=site_id,
                farm_id=info.farm_id,
                gpu_count=info.gpu_count,
                server_idle_watts=info.server_idle_watts,
                overhead_ratio=info.overhead_ratio,
                max_site_watts=info.max_site_watts,
                power=power_of(view.outlook, info, now, horizon_seconds, margin_ratio),
                configurations=_configurations(info, loads, made),
                present=present_of(report),
                can_switch_off=info.capabilities.server_power,
            )
        )
    return PlanningProblem(sites=tuple(planned), demand=demand, parameters=parameters)


def power_of(
    outlook: PowerOutlook | None, info: SiteInfo, now: float, horizon_seconds: float, margin_ratio: float
) -> Quantiles | None:
    """Watts that the site may draw, whatever moment until the horizon; None: its power is unknown.

    As the agent makes its cap: less the margin, never below firm power, never above what it can draw. Without
    a forecast what is granted now is taken to last.
    """
    if outlook is None or not outlook.is_fresh(now):
        return None
    granted = outlook.granted_power_watts
    lows = [[granted] * 3]
    moments = [point.seconds for point in outlook.forecast if point.seconds < horizon_seconds]
    for seconds in (*moments, horizon_seconds):
        ahead = outlook.at(outlook.arrived_at + seconds, now)
        if ahead is not None:
            lows.append(list(ahead))
    lowest = (min(column) for column in zip(*lows, strict=True))
    p10, p50, p90 = (
        min(max(watts * (1 - margin_ratio), info.safe_floor_watts), info.max_site_watts) for watts in lowest
    )
    return Quantiles(p10=p10, p50=p50, p90=p90)


def present_of(report: SiteReport | None) -> tuple[Target, ...]:
    """What runs at a site, by configuration; an instance that does not say how it runs is left out."""
    counts: dict[tuple[str, int, int | None], int] = {}
    for entry in () if report is None else report.models:
        for instance in entry.instances:
            degree = instance.tensor_parallel_degree
            if degree is not None and instance.state in RUNNING_STATES:
                key = (entry.model, degree, instance.gpu_clock_mhz)
                counts[key] = counts.get(key, 0) + 1
    return tuple(
        Target(model=model, tensor_parallel_degree=degree, gpu_clock_mhz=clock, instances=count)
        for (model, degree, clock), count in counts.items()
    )


def _profiles_by_model(sites: Mapping[str, SiteRecordsView]) -> dict[str, list[PerformanceProfile]]:
    """By name; sites may have different ones of one name."""
    found: dict[str, dict[PerformanceProfile, None]] = {}
    for _, view in sorted(sites.items()):
        for entry in () if view.info is None else view.info.configurations:
            assert view.info is not None
            profile = profile_of(view.info, entry.profile_id)
            if profile is not None:
                found.setdefault(entry.model, {})[profile] = None
    return {model: sorted(known, key=lambda one: one.profile_id) for model, known in found.items()}


def _load_of(
    model: str,
    profiles: list[PerformanceProfile],
    demand: tuple[ClassDemand, ...],
    means: Mapping[Key, tuple[float, float]],
) -> ModelLoad:
    works = works_of({name: sizes for (named, name), sizes in means.items() if named == model})
    rates = {
        entry.request_class: entry.requests_per_second.p50
        for entry in demand
        if entry.model == model and entry.requests_per_second.is_usable
    }
    return ModelLoad(works=works, slos=slos_of(profiles, works), rates=rates)


def _configurations(
    info: SiteInfo,
    loads: Mapping[str, ModelLoad],
    made: dict[tuple[object, ...], Configuration],
) -> tuple[Configuration, ...]:
    """Of the configurations that a profile describes; each made once for all sites that have it."""
    found = []
    for entry in info.configurations[:MAX_SITE_CONFIGURATIONS]:
        profile = profile_of(info, entry.profile_id)
        if profile is None or profile.tensor_parallel_degree != entry.tensor_parallel_degree:
            continue
        concurrency = entry.max_concurrency or DEFAULT_MAX_CONCURRENCY
        start = DEFAULT_START_SECONDS if entry.start_seconds is None else entry.start_seconds
        key = (entry.model, profile, entry.gpu_clock_mhz, concurrency, start)
        if key not in made:
            if len(made) >= MAX_CONFIGURATIONS:
                continue
            made[key] = _configuration(entry, profile, loads[entry.model], concurrency, start)
        found.append(made[key])
    return tuple(dict.fromkeys(found))


def _configuration(
    entry: ConfigurationInfo, profile: PerformanceProfile, load: ModelLoad, concurrency: int, start: float
) -> Configuration:
    found = configuration_of(
        profile,
        entry.gpu_clock_mhz or profile.full_clock_mhz,
        works=load.works,
        slos=load.slos,
        rates=load.rates,
        max_concurrency=concurrency,
        start_seconds=start,
    )
    return replace(found, model=entry.model, gpu_clock_mhz=entry.gpu_clock_mhz)
