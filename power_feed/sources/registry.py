"""From configuration to sources: one function per kind, in one registry.

Rule: what is wrong with a file is a configuration error that names the farm, so that the process ends with
exit code 2 before anything was published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.config import ConfigError
from power_feed.config import CsvSource, FarmConfig, FeedConfig, LeastSource, ScheduleSource, SyntheticSource
from power_feed.sources.interface import Source
from power_feed.sources.least import Least
from power_feed.sources.playback import Playback
from power_feed.sources.schedule import Schedule
from power_feed.synthetic import SyntheticWind
from power_feed.wind_files import WindOptions, read_wind_file
from power_feed.wind_series import WindFileError, WindSeries

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source depends on besides its own table."""

    nameplate_watts: float
    farm_index: int
    speed: float
    start_unix_seconds: float | None
    """None: not known yet."""
    files: WindFiles


def build_sources(
    config: FeedConfig, *, start_unix_seconds: float | None, files: WindFiles | None = None
) -> dict[str, Source]:
    """Site → its farm's source; `files` keeps what was read for the next call.

    Raises:
        ConfigError: a file is no wind file, has no such column, or is played too fast; all faults at once.
    """
    files = files if files is not None else WindFiles()
    sources: dict[str, Source] = {}
    faults = []
    for index, farm in enumerate(config.farms):
        context = SourceContext(
            nameplate_watts=farm.nameplate_watts,
            farm_index=index,
            speed=config.speed,
            start_unix_seconds=start_unix_seconds,
            files=files,
        )
        try:
            source = _build(farm.source, context)
        except WindFileError as error:
            faults.append(f"[power_feed] farms.{index}.source (farm {farm.farm_id}): {error}")
            continue
        faults += _faults(farm, index, config, source)
        sources[farm.site_id] = source
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


SOURCES: Mapping[str, Callable[[Any, SourceContext], Source]] = {
    "csv": _csv,
    "synthetic": _synthetic,
    "schedule": _schedule,
    "least": _least,
}
"""Kind in the configuration → its maker."""


def _build(config: Any, context: SourceContext) -> Source:
    return SOURCES[config.kind](config, context)
