"""From the `time_…` keys of a source to a reader of its time stamps. Pure."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from power_feed.live_config import JsonTime
from power_feed.sources.instants import TimeReader


def time_reader(config: JsonTime) -> TimeReader:
    """The zone's name was checked with the configuration."""
    return TimeReader(
        format=config.time_format,
        zone=None if config.time_zone is None else ZoneInfo(config.time_zone),
        shift_seconds=config.time_shift_seconds,
    )
