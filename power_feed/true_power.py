"""What each site might truly draw, for whoever judges a run from outside.

It asks the very sources that the feed asks, without quality checks, streams or agents in between: so a cap
can be computed from the wind alone.
"""

from __future__ import annotations

import math

from power_feed.config import FeedConfig
from power_feed.readings import Farm
from power_feed.sources.interface import Source
from power_feed.sources.registry import WindFiles, build_sources

MAX_GAP_STEPS = 10_000
"""A month of 5-minute steps."""


class TruePower:
    """The power of every site of a configuration, by wall time."""

    def __init__(
        self, config: FeedConfig, *, start_unix_seconds: float | None, files: WindFiles | None = None
    ) -> None:
        """`start_unix_seconds`: as in the configuration, the start file, or when the feed started.

        Raises:
            ConfigError: a source cannot be built.
        """
        sources = build_sources(config, start_unix_seconds=start_unix_seconds, files=files)
        self._sources: dict[str, Source] = {}
        self._farms: dict[str, Farm] = {}
        for farm in config.farms:
            for site in farm.fed_sites:
                self._sources[site.site_id] = sources[farm.farm_id]
                self._farms[site.site_id] = Farm(
                    farm_id=farm.farm_id,
                    nameplate_watts=farm.nameplate_watts,
                    loss_ratio=farm.loss_ratio,
                    other_loads_watts=farm.other_loads_watts,
                )

    @property
    def site_ids(self) -> tuple[str, ...]:
        """In the configuration's order."""
        return tuple(self._farms)

    def describe(self, site_id: str) -> str:
        """Where the site's wind comes from, e.g. `synthetic wind (far, seed 1, farm 0) at speed 60`."""
        return self._sources[site_id].description

    def available_watts(self, site_id: str, at_unix_seconds: float) -> float | None:
        """What the site's farm can give all its sites at that instant; None: not measured, hence not known.

        Raises:
            KeyError: no such site.
        """
        watts = self._sources[site_id].measurement(at_unix_seconds).watts
        return None if watts is None else self._farms[site_id].deliverable_watts(watts)

    def last_known_watts(self, site_id: str, at_unix_seconds: float) -> float | None:
        """The same, in a gap or after the end the latest value before it: what the feed repeats there.

        None where nothing was measured in the MAX_GAP_STEPS steps before. Raises KeyError: no such site.
        """
        at = at_unix_seconds
        for _ in range(MAX_GAP_STEPS):
            measurement = self._sources[site_id].measurement(at)
            if measurement.watts is not None:
                return self._farms[site_id].deliverable_watts(measurement.watts)
            at = math.nextafter(measurement.observed_at_unix_seconds, -math.inf)
        return None
