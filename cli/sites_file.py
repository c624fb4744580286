"""The file that `heron simulate --sites` and `heron bound --sites` take: how the simulated fleet differs from
the default one.

Rule: a key or value that cannot be meant is told here, with the file, the table and what is allowed; nothing
behind looks at it again.

    count = 12                    # sites; columns of the wind record in turn
    sites_per_farm = 2            # so many in a row share a farm (1)
    round_trip_seconds = 0.02     # to each of them

    [site]                        # every site
    instances = 4

    [[sites]]                     # instead of count: one table a site, over [site]
    wind = "area3"
    control = "dynamo_like"

    [governor]                    # every site's, as [sites.governor] of a fleet's file
    rest_seconds = 0

    [router]                      # some keys of a fleet's [router]
    hold_seconds = 5

    [planner]                     # PlannerParameters
    gap_ratio = 0.02
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import Field, create_model

from cli.files import read_tables
from fleet.config import ConfigError, ConfigModel, build
from fleet.profile_file import placed
from fleet.profiles.document import ProfileDocumentError
from router.config import RouterConfig
from router.policy.planner.problem import PlannerParameters
from simulator.cell import Pairs, pairs
from simulator.fleet_size import MAX_SITES
from simulator.settings import RouterSettings
from site_agent.controls import ControlName
from site_agent.governor_options import GovernorOptions

KEYS = ("count", "sites_per_farm", "round_trip_seconds", "site", "sites", "governor", "router", "planner")
ROUTER_KEYS = tuple(
    one.name
    for one in fields(RouterSettings)
    if one.name in RouterConfig.model_fields and one.name not in ("policy", "parameters")
)
"""Those that a fleet's file has too, and no argument of the command."""
NOT_OF_GOVERNOR = ("enabled", "tick_seconds", "control")
"""A simulated cap is always kept, at the default pace; `--site-control` or a site's own says by whom."""
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Ratio = Annotated[float, Field(ge=0, le=1)]
RoundTrip = Annotated[float, Field(ge=0, le=10)]


class SiteTable(ConfigModel):
    """`[site]`: keys of `simulator.settings.SiteSettings`, for every site; what is left out is as there."""

    instances: Annotated[int, Field(ge=1, le=64)] | None = None
    profile_id: str | None = None
    """A shipped one's name, or a file of `heron profile run` (relative to this file)."""
    other_profile_ids: tuple[str, ...] | None = None
    """Left out: all of the same model and GPU that divide the site's GPUs."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None
    start_seconds: Seconds | None = None
    boot_seconds: Seconds | None = None
    overhead_ratio: Annotated[float, Field(ge=1, le=5)] | None = None
    host_idle_watts: Annotated[float, Field(ge=0, le=1e6)] | None = None
    margin_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    ride_through_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    resume_reserve_ratio: Annotated[float, Field(ge=0, le=0.9)] | None = None
    slo_ttft_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    slo_e2e_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None


class OneSiteTable(SiteTable):
    """`[[sites]]`: one site, over `[site]` and over what the command says of all."""

    wind: str | None = None
    """Column of the wind record; left out: the next in turn."""
    wind_shift_days: Annotated[int, Field(ge=0, le=36_600)] | None = None
    round_trip_seconds: RoundTrip | None = None
    control: ControlName | None = None
    has_server_switch: bool | None = None


class _Head(ConfigModel):
    """What stands above all tables."""

    count: Annotated[int, Field(ge=1, le=MAX_SITES)] | None = None
    sites_per_farm: Annotated[int, Field(ge=1, le=MAX_SITES)] = 1
    round_trip_seconds: RoundTrip | None = None


_KINDS: dict[str, Any] = {
    name: (kind, getattr(PlannerParameters(), name))
    for name, kind in get_type_hints(PlannerParameters).items()
}
_PLANNER: type[ConfigModel] = create_model("PlannerTable", __base__=ConfigModel, **_KINDS)
"""`[planner]`: `PlannerParameters`, read as a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesFile:
    """As a cell takes it."""

    count: int | None = None
    sites_per_farm: int = 1
    round_trip_seconds: float | None = None
    site: Pairs = ()
    each_site: tuple[Pairs, ...] = ()
    governor: Pairs = ()
    router: Pairs = ()
    planner: Pairs = ()


def read_sites_file(path: Path | None) -> SitesFile:
    """Everything that it says, checked; nothing without a file.

    Raises:
        ConfigError: one line a fault.
    """
    tables = read_tables("--sites", path, KEYS)
    source = f"--sites {path}"
    head = _head(tables, source)
    sites = tables.get("sites", [])
    if not isinstance(sites, list) or not all(isinstance(one, dict) for one in sites):
        raise ConfigError(f"{source}: sites must be tables: [[sites]]")
    if sites and head.count is not None and head.count != len(sites):
        raise ConfigError(f"{source}: count = {head.count}, and {len(sites)} [[sites]]: leave count out")
    if len(sites) > MAX_SITES:
        raise ConfigError(f"{source}: {len(sites)} [[sites]]; allowed are at most {MAX_SITES}")
    return SitesFile(
        count=len(sites) or head.count,
        sites_per_farm=head.sites_per_farm,
        round_trip_seconds=head.round_trip_seconds,
        site=_site(SiteTable, _table(tables, "site", source), "site", path),
        each_site=tuple(_site(OneSiteTable, one, f"sites {at}", path) for at, one in enumerate(sites, 1)),
        governor=_governor(_table(tables, "governor", source), source),
        router=_router(_table(tables, "router", source), source),
        planner=_planner(_table(tables, "planner", source), source),
    )


def _head(tables: Mapping[str, Any], source: str) -> _Head:
    values = {key: tables[key] for key in _Head.model_fields if key in tables}
    try:
        return build(_Head, values, table="", source=source)
    except ConfigError as error:
        raise ConfigError(str(error).replace(": [] ", ": ")) from None  # it has no table


def _table(tables: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    found = tables.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{source}: {name} = {found!r}: must be a table: [{name}]")
    return found


def _given(model: type[ConfigModel], values: Mapping[str, Any], table: str, source: str) -> Pairs:
    """The keys that are there, with their values as the model reads them."""
    return pairs(build(model, values, table=table, source=source).model_dump(exclude_unset=True))


def _site(model: type[ConfigModel], values: Mapping[str, Any], table: str, path: Path | None) -> Pairs:
    """The same of a site; files of profiles are relative to the file."""
    found = dict(_given(model, values, table, f"--sites {path}"))
    directory = Path() if path is None else path.resolve().parent
    try:
        if "profile_id" in found:
            found["profile_id"] = placed(found["profile_id"], directory)
        if "other_profile_ids" in found:
            found["other_profile_ids"] = tuple(placed(one, directory) for one in found["other_profile_ids"])
    except ProfileDocumentError as error:
        raise ConfigError(f"--sites {path}: [{table}] {error}") from None
    return pairs(found)


def _only(values: Mapping[str, Any], allowed: tuple[str, ...], table: str, source: str) -> None:
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{source}: [{table}] {key}: no such key; allowed are {', '.join(allowed)}")


def _governor(values: Mapping[str, Any], source: str) -> Pairs:
    allowed = tuple(key for key in GovernorOptions.model_fields if key not in NOT_OF_GOVERNOR)
    _only(values, allowed, "governor", source)
    return _given(GovernorOptions, values, "governor", source)


def _router(values: Mapping[str, Any], source: str) -> Pairs:
    _only(values, ROUTER_KEYS, "router", source)
    return _given(RouterConfig, values, "router", source)


def _planner(values: Mapping[str, Any], source: str) -> Pairs:
    found = _given(_PLANNER, values, "planner", source)
    for key, value in found:
        if isinstance(value, int | float) and value < 0:
            raise ConfigError(f"{source}: [planner] {key} = {value!r}: must be 0 or more")
    return found
