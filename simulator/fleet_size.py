"""How large a simulated fleet is: its sites, their farms' nameplates, and the load that all sustain together.

* A farm is sized so that its sites draw at their peak what it gives at the p-th percentile of the whole
  record (`simulator.weeks.peak_ratios`).
* The *cluster peak* is what all sites sustain within the SLO at full power, each in its best configuration,
  by `fleet.capacity` for a request of the load's mean size. Offered load is a share of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from fleet import capacity
from fleet.capacity import Slo, Work
from fleet.profile import PROFILES, PerformanceProfile
from fleet.profile_file import find_profile
from fleet.profiles.document import ProfileDocumentError
from power_feed.wind_series import WindSeries
from simulator.cell import Cell, CellError
from simulator.settings import SiteSettings
from simulator.weeks import peak_ratios
from site_agent.site_model import SiteModel

MAX_SITES = 200
FIRST_ROUND_TRIP_SECONDS, LAST_ROUND_TRIP_SECONDS = 0.01, 0.05
SHIFT_DAYS = 9
"""A column that serves a further site is read so many days later: far enough to be another weather."""
RATE_STEPS = 60


def sites_of(cell: Cell, series: WindSeries) -> tuple[SiteSettings, ...]:
    """The cell's sites: as many as it says, columns of the record in turn.

    Raises:
        CellError: more sites than can be simulated, an override that no site has, or a profile that there is
            not.
    """
    together = cell.sites_per_farm
    if together < 1:
        raise CellError(f"sites_per_farm = {together}: must be at least 1")
    count = len(series.sites) * together if cell.site_count is None else cell.site_count
    if not 1 <= count <= MAX_SITES:
        raise CellError(f"site_count = {count}: allowed is 1 to {MAX_SITES}")
    if count % together:
        raise CellError(f"{count} sites do not make farms of {together}")
    if cell.each_site and len(cell.each_site) != count:
        raise CellError(f"{len(cell.each_site)} sites are described, and there are {count}")
    found: list[SiteSettings] = []
    names: dict[str, int] = {}
    columns = {column.lower(): column for column in series.sites}
    for index in range(count):
        around, column = divmod(index // together, len(series.sites))
        share = index / max(1, count - 1)
        spread = FIRST_ROUND_TRIP_SECONDS + share * (LAST_ROUND_TRIP_SECONDS - FIRST_ROUND_TRIP_SECONDS)
        values: dict[str, Any] = {
            "wind": series.sites[column],
            "wind_shift_days": around * SHIFT_DAYS,
            "round_trip_seconds": spread if cell.round_trip_seconds is None else cell.round_trip_seconds,
            "control": cell.control,
            "control_parameters": cell.control_parameters,
            "has_server_switch": cell.server_switch,
        }
        values |= dict(cell.site_overrides)
        values |= dict(cell.each_site[index]) if cell.each_site else {}
        if values["wind"] not in series.ratios:
            values["wind"] = columns.get(values["wind"].lower(), values["wind"])
        name = re.sub(r"[^a-z0-9]+", "-", str(values["wind"]).lower()).strip("-")
        names[name] = names.get(name, 0) + 1
        site_id = name if names[name] == 1 else f"{name}-{names[name]}"
        if together > 1:
            values["farm"] = site_id if index % together == 0 else found[-1].farm
        try:
            site = SiteSettings(site_id=site_id, **values)
        except TypeError as error:
            raise CellError(f"site_overrides: {error}") from None
        if index % together and _wind_of(site) != _wind_of(found[-1]):
            raise CellError(f"site {site_id}: other wind than {found[-1].site_id}, and both are at one farm")
        found.append(_checked(site, series, is_told_degrees="other_profile_ids" in values))
    models = sorted({site.profile.model for site in found})
    if len(models) > 1:
        raise CellError(f"the sites serve {' and '.join(models)}; one model is simulated at a time")
    return tuple(found)


def _wind_of(site: SiteSettings) -> tuple[str, int]:
    return site.wind, site.wind_shift_days


def _checked(site: SiteSettings, series: WindSeries, *, is_told_degrees: bool) -> SiteSettings:
    """The site, with the degrees that its GPUs can be split into where nobody has said which.

    Raises:
        CellError: a column or profile that there is not, or a degree that its GPUs cannot be split into.
    """
    where = f"site {site.site_id}"
    if site.wind not in series.ratios:
        raise CellError(f"{where}: {series.name} has no column {site.wind}; it has {', '.join(series.sites)}")
    for profile_id in (site.profile_id, *site.other_profile_ids):
        try:
            find_profile(profile_id)
        except ProfileDocumentError as error:
            raise CellError(f"{where}: {error}") from None
    own = site.profile
    gpus = site.instances * own.tensor_parallel_degree
    if not is_told_degrees:
        others = tuple(
            name
            for name, one in PROFILES.items()
            if (one.model, one.gpu_model) == (own.model, own.gpu_model)
            and name != site.profile_id
            and gpus % one.tensor_parallel_degree == 0
        )
        return replace(site, other_profile_ids=others)
    degrees = [one.tensor_parallel_degree for one in profiles_of(site)]
    for one in site.other_profiles:
        if (one.model, one.gpu_model) != (own.model, own.gpu_model):
            raise CellError(f"{where}: {one.profile_id} is of another model or GPU than {site.profile_id}")
        if gpus % one.tensor_parallel_degree:
            raise CellError(f"{where}: {one.profile_id} does not divide its {gpus} GPUs")
    if len(set(degrees)) != len(degrees):
        raise CellError(f"{where}: a tensor-parallel degree is given twice: {degrees}")
    return site


def model_of(settings: SiteSettings) -> SiteModel:
    """The site as its governor sees it."""
    return SiteModel(
        profile=settings.profile,
        power=settings.power,
        instances=settings.instances,
        max_concurrency=settings.max_concurrency,
        clocks_mhz=settings.profile.clocks_mhz,
        other_profiles=settings.other_profiles,
    )


def nameplates_of(cell: Cell, series: WindSeries, sites: Sequence[SiteSettings]) -> dict[str, float]:
    """Site → watts of its farm's turbines, which are for all sites of the farm."""
    ratios = peak_ratios(series, cell.size_percentile)
    full: dict[str, float] = {}
    for site in sites:
        full[site.farm_name] = full.get(site.farm_name, 0.0) + model_of(site).full_watts
    return {site.site_id: full[site.farm_name] / ratios[site.wind] for site in sites}


def profiles_of(settings: SiteSettings) -> tuple[PerformanceProfile, ...]:
    """All that its GPUs can be split into."""
    return (settings.profile, *settings.other_profiles)


def slo_of(sites: Sequence[SiteSettings], work: Work) -> Slo:
    """Five times one request alone on the fleet's fastest configuration at full clock."""
    profiles = {profile.profile_id: profile for site in sites for profile in profiles_of(site)}
    return capacity.reference_slo([profiles[name] for name in sorted(profiles)], work)


def peak_requests_per_second(sites: Sequence[SiteSettings], work: Work) -> float:
    """The cluster peak."""
    slo = slo_of(sites, work)
    return sum(_site_peak(site, work, slo) for site in sites)


def _site_peak(settings: SiteSettings, work: Work, slo: Slo) -> float:
    gpus = settings.instances * settings.profile.tensor_parallel_degree
    return max(
        gpus
        // profile.tensor_parallel_degree
        * capacity.requests_per_second(
            profile,
            profile.full_clock_mhz,
            work,
            max_concurrency=settings.max_concurrency,
            slo=slo,
        )
        for profile in profiles_of(settings)
    )


@lru_cache(maxsize=64)
def needed_watts(settings: SiteSettings, work: Work, slo: Slo) -> tuple[tuple[float, float], ...]:
    """(requests per second, least watts at which the site sustains them within the SLO), ascending."""
    model = model_of(settings)
    options: list[tuple[float, PerformanceProfile, int, int]] = []
    for profile in profiles_of(settings):
        for clock in profile.clocks_mhz:
            rate = capacity.requests_per_second(
                profile, clock, work, max_concurrency=settings.max_concurrency, slo=slo
            )
            if rate > 0:
                most = model.gpu_count // profile.tensor_parallel_degree
                options += [(rate, profile, clock, count) for count in range(1, most + 1)]
    peak = _site_peak(settings, work, slo)
    table = [(0.0, 0.0)]
    for step in range(1, RATE_STEPS + 1):
        wanted = peak * step / RATE_STEPS
        fitting = [
            _watts(model, profile, clock, count, wanted / count, work, settings.max_concurrency)
            for rate, profile, clock, count in options
            if rate * count >= wanted * (1 - 1e-9)
        ]
        if fitting:
            table.append((wanted, min(fitting)))
    for index in range(len(table) - 2, -1, -1):  # what sustains more sustains this too
        table[index] = (table[index][0], min(table[index][1], table[index + 1][1]))
    return tuple(table)


def _watts(
    model: SiteModel,
    profile: PerformanceProfile,
    clock: int,
    count: int,
    rate: float,
    work: Work,
    max_concurrency: int,
) -> float:
    running = capacity.mean_running(profile, clock, work, rate, max_concurrency=max_concurrency)
    in_prefill = capacity.prefill_ratio(profile, clock, work, rate)
    gpus = count * capacity.busy_watts(profile, clock, running, prefill_ratio=in_prefill)
    stopped = model.gpu_count - count * profile.tensor_parallel_degree
    return model.power.site_watts(gpus + stopped * model.profile.stopped_watts / model.degree)
