"""`[power_feed]`: what the feed serves, where it reads each farm's power, and what it checks.

    [power_feed]
    port = 8100
    speed = 60.0                               # a replay's seconds per wall second
    [[power_feed.farms]]
    farm_id = "coast-farm"
    site_id = "coast"
    nameplate_watts = 60_000.0                 # wind ratio × this = available watts
    source = { kind = "csv", path = "Wind_data.csv", column = "Area1" }

Environment: `HERON_POWER_FEED_<KEY>`. A relative path is relative to the configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fleet.config import NO_FILE, ConfigError, ConfigModel, FleetConfig, Port, build, load_fleet, read_file
from fleet.keys import FLEET_NAME
from fleet.signing_keys import check_signing
from gateway.tls_config import TlsPortConfig, check_files
from power_feed.live_config import HttpSource, ModbusSource, MqttSource, OpcUaSource
from power_feed.site_config import MAX_SITES_PER_FARM, FarmSite, known_of_sites
from power_feed.synthetic import WindPreset
from power_feed.turbines import TurbineName

MAX_FARMS = 1000
MAX_SPEED = 1e6
MAX_NAMEPLATE_WATTS = 1e11
"""100 GW: more than any farm, and ten times it still fits a record."""
MAX_POINTS = 100_000

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
Watts = Annotated[float, Field(ge=0, le=MAX_NAMEPLATE_WATTS)]
Column = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(min_length=1, max_length=128)]


class CsvSource(ConfigModel):
    """A wind file, played at the feed's speed."""

    kind: Literal["csv"]
    path: Path
    column: Column
    """Name of the site's column in the file's header."""
    format: Literal["auto", "rts_gmlc", "fts213", "plain"] = "auto"
    unit: Literal["auto", "per_unit", "mw"] = "auto"
    nameplate_megawatts: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Of the file's column, for files in MW; None: known for RTS-GMLC, else its largest value."""
    offset_seconds: Annotated[float, Field(ge=0, le=1e10)] = 0.0
    """Where in the file to begin, in the file's time."""
    repeat: bool = False
    """Begin anew after the end; otherwise the source then has nothing and sites walk down."""
    measures: Literal["available", "produced"] = "available"
    curtailment_column: Column | None = None
    """Column that is not 0 while the farm is curtailed: what was produced then is not used."""

    @model_validator(mode="after")
    def _produced_needs_a_signal(self) -> Self:
        if self.measures == "produced" and self.curtailment_column is None:
            raise ValueError(
                'measures = "produced" is refused without curtailment_column: a curtailed farm produces less '
                "than the wind could give, and a site that follows it starves"
            )
        if self.curtailment_column == self.column:
            raise ValueError("curtailment_column and column are the same")
        return self


class SyntheticSource(ConfigModel):
    """Generated wind; farms with one seed blow together as the preset says."""

    kind: Literal["synthetic"]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    preset: WindPreset = "far"
    site: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Which of the seed's farms; None: by the farm's place in the configuration."""
    mean_speed_metres_per_second: Annotated[float, Field(gt=0, le=40)] | None = None
    """None: the preset's, fitted to its capacity factor."""
    turbine: TurbineName = "cubic"
    """Its power curve (turbines.py). Presets are fitted with `cubic`: another changes the capacity factor."""
    offset_seconds: Annotated[float, Field(ge=0, le=1e9)] = 0.0


class ScheduleSource(ConfigModel):
    """Scripted power, in wall seconds from the start."""

    kind: Literal["schedule"]
    points: Annotated[
        tuple[tuple[float, Annotated[float, Field(ge=0, le=10)]], ...],
        Field(min_length=1, max_length=MAX_POINTS),
    ]
    """[seconds, share of nameplate], each valid until the next."""
    period_seconds: Annotated[float, Field(ge=0.02, le=3600)] = 1.0
    """Between two measurements of an unchanged value."""

    @field_validator("points")
    @classmethod
    def _in_order(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for before, after in pairwise(points):
            if after[0] <= before[0]:
                raise ValueError(f"points must grow in time: {after[0]:g} s comes after {before[0]:g} s")
        return points


class LeastSource(ConfigModel):
    """The least of several: a wind file with a scripted trip over it."""

    kind: Literal["least"]
    of: Annotated[tuple[SourceConfig, ...], Field(min_length=1, max_length=8)]


SourceConfig = Annotated[
    CsvSource
    | SyntheticSource
    | ScheduleSource
    | LeastSource
    | ModbusSource
    | OpcUaSource
    | MqttSource
    | HttpSource,
    Field(discriminator="kind"),
]


class QualityConfig(ConfigModel):
    """What the checks of DESIGN §8 hold a farm's measurements to; the reasons are in `quality.py`."""

    nameplate_tolerance_ratio: Annotated[float, Field(ge=0, le=1)] = 0.02
    max_ramp_ratio_per_second: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    agreement_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    stuck_measurements: Annotated[int, Field(ge=0, le=1_000_000)] = 12
    stale_periods: Annotated[float, Field(ge=1, le=1000)] = 3.0


class FarmConfig(ConfigModel):
    """One farm and the sites that it feeds: `site_id` where it is one, else `sites`."""

    farm_id: Name
    site_id: Name | None = None
    """Its only site, with nothing to say of it."""
    sites: Annotated[tuple[FarmSite, ...], Field(max_length=MAX_SITES_PER_FARM)] = ()
    """Its sites; see site_config.py."""
    nameplate_watts: Annotated[float, Field(gt=0, le=MAX_NAMEPLATE_WATTS)]
    source: SourceConfig
    loss_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Lost between turbines and site: transformers, cables."""
    other_loads_watts: Watts = 0.0
    """Taken by the farm itself, before the site."""
    quality: QualityConfig = QualityConfig()
    forecast: Literal["level", "moods"] = "level"
    """By what the forecast's errors are told apart: the level of power, or its recent change and unrest
    too.
    """

    @model_validator(mode="after")
    def _has_sites(self) -> Self:
        if (self.site_id is None) == (not self.sites):
            raise ValueError(f"farm {self.farm_id}: give it either site_id or sites: whom does it feed?")
        return self

    @property
    def fed_sites(self) -> tuple[FarmSite, ...]:
        """All of them, however they were given."""
        return self.sites if self.site_id is None else (FarmSite(site_id=self.site_id),)


class FeedConfig(TlsPortConfig):
    """The whole table. The port's TLS: gateway/tls_config.py."""

    host: Text = "127.0.0.1"
    port: Port = 8100
    feed_id: Name | None = None
    """Begins the feed's random writer id, to tell feeds apart in a log."""
    interval_seconds: Annotated[float, Field(ge=0.02, le=1.0)] = 1.0
    """A reading at least so often; DESIGN §4: every second, whatever the source's period."""
    speed: Annotated[float, Field(gt=0, le=MAX_SPEED)] = 1.0
    """Seconds of a record in a wall second."""
    start_unix_seconds: Annotated[float, Field(ge=0, le=1e11)] | None = None
    """Wall instant of a record's first step (or its offset); None: when the feed starts."""
    start_file: Path | None = None
    """A file that will hold that instant; records stand at their first step until it does."""
    signing_key_file: Path | None = None
    """PEM: the Ed25519 private key that signs what this writes (docs/records.md#signed-records). None: it is
    not signed. Relative to the configuration file."""
    farms: Annotated[tuple[FarmConfig, ...], Field(min_length=1, max_length=MAX_FARMS)]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        farms: set[str] = set()
        sites: set[str] = set()
        for farm in self.farms:
            if farm.farm_id in farms:
                raise ValueError(
                    f"farm {farm.farm_id} is there twice: name it once, with all its sites in "
                    "[[power_feed.farms.sites]]"
                )
            farms.add(farm.farm_id)
            for site in farm.fed_sites:
                if site.site_id in sites:
                    raise ValueError(f"site {site.site_id} is fed twice: name each site once")
                sites.add(site.site_id)
        if self.start_unix_seconds is not None and self.start_file is not None:
            raise ValueError("start_unix_seconds and start_file both say when to start: give one of them")
        return self


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> tuple[FleetConfig, FeedConfig]:
    """Read the configuration file (None: environment alone) and check it.

    Raises:
        ConfigError: one line per fault.
    """
    tables = {} if path is None else read_file(path)
    source = NO_FILE if path is None else str(path)
    table = tables.get("power_feed", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: [power_feed] must be a table")
    if path is not None:
        table = _with_sites(_absolute(table, path.resolve().parent), known_of_sites(tables))
    feed = build(
        FeedConfig,
        table,
        table="power_feed",
        source=source,
        environment=environment,
        environment_prefix="HERON_POWER_FEED_",
    )
    fleet = load_fleet(tables, source, environment, path=path)
    check_files(source, "power_feed", fleet, feed.port_files)
    check_signing(source, "power_feed", fleet, "power_feed", feed.signing_key_file)
    return fleet, feed


def _with_sites(table: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same table; each farm's sites with what the file's `[[sites]]` know of them, where it says
    nothing.
    """
    farms = table.get("farms")
    if not isinstance(farms, list):
        return dict(table)
    return {**table, "farms": [_farm_with_sites(farm, known) for farm in farms]}


def _farm_with_sites(farm: Any, known: Mapping[str, Mapping[str, Any]]) -> Any:
    if not isinstance(farm, Mapping):
        return farm
    sites = farm.get("sites")
    if sites is None and known.get(str(farm.get("site_id"))):
        sites = [{"site_id": farm["site_id"]}]
        farm = {key: value for key, value in farm.items() if key != "site_id"}
    if not isinstance(sites, list):
        return farm
    told = [
        {**known.get(str(site.get("site_id")), {}), **site} if isinstance(site, Mapping) else site
        for site in sites
    ]
    return {**farm, "sites": told}


def _absolute(value: Any, directory: Path) -> Any:
    """The same tables with every `path` and `…_file` made absolute, at any depth."""
    if isinstance(value, Mapping):
        return {
            key: str(directory / Path(item).expanduser())
            if (key == "path" or key.endswith("_file")) and isinstance(item, str)
            else _absolute(item, directory)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_absolute(item, directory) for item in value]
    return value
