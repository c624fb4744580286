"""From a farm's configuration to the pure parts that serve it."""

from __future__ import annotations

from power_feed.allocator import REST_SECONDS, START_MARGIN_RATIO, Allocator
from power_feed.config import FarmConfig, FeedConfig
from power_feed.farm import FarmFeed
from power_feed.forecast import Forecaster, PowerForecaster
from power_feed.quality import QualityChecker
from power_feed.quality_limits import quality_limits
from power_feed.readings import Farm
from power_feed.server_config import build_driver
from power_feed.server_switch import ServerSwitch
from power_feed.servers.interface import ServerDriver
from power_feed.source_digest import digest
from power_feed.sources.interface import Source


def farm_feed(farm: FarmConfig, source: Source, config: FeedConfig, feed_id: str) -> FarmFeed:
    """A farm with its checker, allocator and forecast.

    A site that is alone at its farm neither rests nor needs a margin to start: nobody else is served
    meanwhile, and its agent has hysteresis of its own.
    """
    is_alone = len(farm.fed_sites) == 1
    return FarmFeed(
        farm=Farm(
            farm_id=farm.farm_id,
            nameplate_watts=farm.nameplate_watts,
            loss_ratio=farm.loss_ratio,
            other_loads_watts=farm.other_loads_watts,
        ),
        site_ids=tuple(site.site_id for site in farm.fed_sites),
        source=source,
        checker=QualityChecker(limits=quality_limits(farm, source)),
        allocator=Allocator(
            period_seconds=source.period_seconds,
            rest_seconds=0.0 if is_alone else REST_SECONDS,
            start_margin_ratio=0.0 if is_alone else START_MARGIN_RATIO,
        ),
        forecaster=forecaster(farm),
        feed_id=feed_id,
        interval_seconds=config.interval_seconds,
        source_digest=digest(farm.source),
    )


def forecaster(farm: FarmConfig) -> PowerForecaster:
    """One that has seen nothing yet."""
    return Forecaster(farm.nameplate_watts, has_moods=farm.forecast == "moods")


def server_drivers(config: FeedConfig) -> dict[str, tuple[ServerDriver, ServerSwitch]]:
    """The switches of the servers that have one, by site.

    Raises:
        ConfigError: one cannot be built.
    """
    return {
        site.site_id: (build_driver(site.server, site.site_id), ServerSwitch(rule=site.server.rule()))
        for farm in config.farms
        for site in farm.fed_sites
        if site.server is not None
    }
