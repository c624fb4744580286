"""From configuration to sources: one function per kind, in one registry.

Rule: what is wrong with a file is a configuration error that names the farm, so that the process ends with
exit code 2 before anything was published.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fleet.config import ConfigError
from fleet.version import extra_hint
from power_feed.config import CsvSource, FarmConfig, FeedConfig, LeastSource, ScheduleSource, SyntheticSource
from power_feed.live_config import (
    HttpSource,
    LiveSourceConfig,
    ModbusSource,
    MqttSource,
    OpcUaSource,
)
from power_feed.sources.interface import LiveSource, Source
from power_feed.sources.least import Least
from power_feed.sources.live import Link, Live
from power_feed.sources.playback import Playback
from power_feed.sources.schedule import Schedule
from power_feed.sources.signals import CurtailmentRule, Scaling, SourceFaultError
from power_feed.synthetic import SyntheticWind
from power_feed.turbines import TURBINES
from power_feed.wind_files import WindOptions, read_wind_file
from power_feed.wind_series import WindFileError, WindSeries

logger = logging.getLogger(__name__)

MIN_PERIOD_SECONDS = 0.02
"""Wall seconds between two measurements: a higher replay speed would publish more than 50 a second."""
MAX_DESCRIPTION_CHARACTERS = 512
"""Of a reading's `source`."""


@dataclass(frozen=True, slots=True)
class WindFiles:
    """The files of a configuration, each read once however many farms use it."""

    _read: dict[tuple[Path, WindOptions | str], WindSeries] = field(default_factory=dict)

    def get(self, path: Path, options: WindOptions) -> WindSeries:
        """Read or reuse. Raises WindFileError."""
        key = (path, repr(options))
        if key not in self._read:
            self._read[key] = read_wind_file(path, options)
        return self._read[key]

    @property
    def series(self) -> tuple[WindSeries, ...]:
        """All that were read."""
        return tuple(self._read.values())

    def tell(self) -> None:
        """Log what is odd about them."""
        for series in self.series:
            for note in series.notes:
                logger.warning("wind file: %s", note)
            if series.refusals.total:
                logger.warning("wind file: %s: %s", series.name, series.refusals.describe())
            if series.missing_steps:
                logger.warning(
                    "wind file: %s: %d of %d steps have no row: no measurement there",
                    series.name,
                    series.missing_steps,
                    series.steps,
                )


@dataclass(frozen=True, slots=True)
class LiveSources:
    """The live sources of a configuration: each made once, and kept when records start to play anew."""

    _made: dict[str, dict[str, LiveSource]] = field(default_factory=dict)

    def get(self, farm_id: str, config: LiveSourceConfig, make: Callable[[], LiveSource]) -> LiveSource:
        """Make or reuse."""
        return self._made.setdefault(farm_id, {}).setdefault(repr(config), make())

    def of(self, farm_id: str) -> tuple[LiveSource, ...]:
        """A farm's, in the configuration's order; none for a farm that plays a record."""
        return tuple(self._made.get(farm_id, {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source depends on besides its own table."""

    farm_id: str
    nameplate_watts: float
    farm_index: int
    speed: float
    start_unix_seconds: float | None
    """None: not known yet."""
    files: WindFiles
    lives: LiveSources


def build_sources(
    config: FeedConfig,
    *,
    start_unix_seconds: float | None,
    files: WindFiles | None = None,
    lives: LiveSources | None = None,
) -> dict[str, Source]:
    """Farm → its source; `files` and `lives` keep what was read and made for the next call.

    Raises:
        ConfigError: a file is no wind file, has no such column, or is played too fast; all faults at once.
    """
    files = files if files is not None else WindFiles()
    lives = lives if lives is not None else LiveSources()
    sources: dict[str, Source] = {}
    faults = []
    for index, farm in enumerate(config.farms):
        context = SourceContext(
            farm_id=farm.farm_id,
            nameplate_watts=farm.nameplate_watts,
            farm_index=index,
            speed=config.speed,
            start_unix_seconds=start_unix_seconds,
            files=files,
            lives=lives,
        )
        try:
            source = _build(farm.source, context)
        except (WindFileError, SourceFaultError) as error:
            faults.append(f"[power_feed] farms.{index}.source (farm {farm.farm_id}): {error}")
            continue
        faults += _faults(farm, index, config, source)
        sources[farm.farm_id] = source
    if faults:
        raise ConfigError("\n".join(faults))
    return sources


def _faults(farm: FarmConfig, index: int, config: FeedConfig, source: Source) -> list[str]:
    if source.period_seconds >= MIN_PERIOD_SECONDS:
        return []
    allowed = config.speed * source.period_seconds / MIN_PERIOD_SECONDS
    fault = (
        f"[power_feed] speed = {config.speed:g}: farm {farm.farm_id} (farms.{index}) would be measured every "
        f"{source.period_seconds:g} s; allowed is a speed of at most {allowed:g} with this source"
    )
    return [fault]


def _csv(config: CsvSource, context: SourceContext) -> Source:
    flags = frozenset({config.curtailment_column} if config.curtailment_column else ())
    options = WindOptions(
        format=None if config.format == "auto" else config.format,
        unit=None if config.unit == "auto" else config.unit,
        nameplates_megawatts=(
            {} if config.nameplate_megawatts is None else {config.column: config.nameplate_megawatts}
        ),
        flag_columns=flags,
    )
    series = context.files.get(config.path, options)
    for column in (config.column, *sorted(flags)):
        if column not in series.ratios:
            raise WindFileError(
                f"{series.name}: has no column {column!r}; there are {', '.join(series.sites)}"
            )
    length = series.steps * series.period_seconds
    if config.offset_seconds >= length and not config.repeat:
        raise WindFileError(
            f"{series.name}: offset_seconds = {config.offset_seconds:g} is beyond its end ({length:g} s)"
        )
    if all(math.isnan(value) for value in series.ratios[config.column]):
        raise WindFileError(f"{series.name}: column {config.column!r} holds no usable value")

    def ratio(step: int) -> float | None:
        if config.curtailment_column is not None:
            flag = series.ratio(config.curtailment_column, step)
            if flag is None or flag != 0:
                return None
        return series.ratio(config.column, step)

    return Playback(
        description=f"{series.name} {config.column} at speed {context.speed:g}"[:MAX_DESCRIPTION_CHARACTERS],
        ratio=ratio,
        steps=series.steps,
        record_period_seconds=series.period_seconds,
        nameplate_watts=context.nameplate_watts,
        start_unix_seconds=context.start_unix_seconds,
        speed=context.speed,
        offset_seconds=config.offset_seconds,
        repeat=config.repeat,
        measures=config.measures,
    )


def _synthetic(config: SyntheticSource, context: SourceContext) -> Source:
    farm = context.farm_index if config.site is None else config.site
    wind = SyntheticWind(
        preset=config.preset,
        seed=config.seed,
        farm=farm,
        mean_speed_metres_per_second=config.mean_speed_metres_per_second,
        curve=TURBINES[config.turbine],
    )
    return Playback(
        description=(
            f"synthetic wind ({config.preset}, seed {config.seed}, farm {farm}) at speed {context.speed:g}"
        ),
        ratio=wind.ratio,
        steps=None,
        record_period_seconds=wind.period_seconds,
        nameplate_watts=context.nameplate_watts,
        start_unix_seconds=context.start_unix_seconds,
        speed=context.speed,
        offset_seconds=config.offset_seconds,
    )


def _schedule(config: ScheduleSource, context: SourceContext) -> Source:
    return Schedule(
        points=config.points,
        nameplate_watts=context.nameplate_watts,
        start_unix_seconds=context.start_unix_seconds,
        period_seconds=config.period_seconds,
    )


def _least(config: LeastSource, context: SourceContext) -> Source:
    return Least(sources=tuple(_build(source, context) for source in config.of))


def _modbus(config: ModbusSource, context: SourceContext) -> Source:
    return _live(config, context, "modbus", "ModbusLink")


def _opcua(config: OpcUaSource, context: SourceContext) -> Source:
    return _live(config, context, "opcua", "OpcUaLink")


def _mqtt(config: MqttSource, context: SourceContext) -> Source:
    return _live(config, context, "mqtt", "MqttLink")


def _http(config: HttpSource, context: SourceContext) -> Source:
    return _live(config, context, "http_json", "HttpLink")


def _live(config: LiveSourceConfig, context: SourceContext, module: str, link: str) -> Source:
    """A live source over the link of a module that is imported only where it is used: it needs the extra."""
    kind = str(getattr(config, "kind", module))
    try:
        made: Link = getattr(import_module(f"power_feed.sources.{module}"), link)(config)
    except ImportError as error:
        raise SourceFaultError(
            "internal",
            f"kind = {kind!r} needs the package {error.name or 'of its protocol'}, which is not installed: "
            + extra_hint("telemetry"),
        ) from None
    curtailment = getattr(config, "curtailment", None)
    if curtailment is not None:
        curtailment = CurtailmentRule(curtailed_if=curtailment.curtailed_if, threshold=curtailment.threshold)

    def make() -> Live:
        return Live(
            made,
            kind=kind,
            scaling=Scaling(
                unit=config.unit,
                nameplate_watts=context.nameplate_watts,
                scale=config.scale,
                offset=config.offset,
                capacity=config.capacity,
            ),
            measures=config.measures,
            curtailment=curtailment,
            period_seconds=config.period_seconds,
            max_retry_seconds=config.max_retry_seconds,
            silent_seconds=config.silent_seconds,
            rng=random.Random(),
        )

    return context.lives.get(context.farm_id, config, make)


SOURCES: Mapping[str, Callable[[Any, SourceContext], Source]] = {
    "csv": _csv,
    "synthetic": _synthetic,
    "schedule": _schedule,
    "least": _least,
    "modbus": _modbus,
    "opcua": _opcua,
    "mqtt": _mqtt,
    "http": _http,
}
"""Kind in the configuration → its maker."""


def _build(config: Any, context: SourceContext) -> Source:
    return SOURCES[config.kind](config, context)
