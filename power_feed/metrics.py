"""The feed's metrics. Each help text says what to do when the number is bad (docs/metrics.md repeats them).

Rule: labels are bounded by the configuration (site, farm) or by a fixed list (quality, check,
horizon).
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from fleet.records import PowerReading
from power_feed.quality import Verdict
from power_feed.wind_series import WindSeries

QUALITIES = ("good", "suspect", "fallback")
FORECAST_QUANTILES = ("0.1", "0.5", "0.9")


class FeedMetrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        by_site = ("site",)
        self.available_watts = Gauge(
            "heron_feed_available_watts",
            "What the farm can give its site, losses and other loads taken off. Low: no wind, or a source "
            "that is wrong; compare with the farm's own telemetry.",
            by_site,
            registry=registry,
        )
        self.granted_watts = Gauge(
            "heron_feed_granted_watts",
            "What is granted to the site. Below available: the allocator gave the rest to other sites.",
            by_site,
            registry=registry,
        )
        self.forecast_watts = Gauge(
            "heron_feed_forecast_watts",
            "What the site will be granted, by wall seconds from now and quantile. 0.1 near 0: its work "
            "moves away soon; nothing to do.",
            ("site", "horizon_seconds", "quantile"),
            registry=registry,
        )
        self.nameplate_watts = Gauge(
            "heron_feed_nameplate_watts",
            "Most that the farm can ever give its site. Wrong: correct nameplate_watts in the configuration.",
            by_site,
            registry=registry,
        )
        self.quality = Gauge(
            "heron_feed_quality",
            "1 for the quality of the latest reading. Not good for long: the site's cap walks down; look at "
            "heron_feed_failed_checks_total for what failed.",
            ("site", "quality"),
            registry=registry,
        )
        self.sequence = Gauge(
            "heron_feed_sequence",
            "Sequence of the latest reading. Standing still: the feed hangs; restart it.",
            by_site,
            registry=registry,
        )
        self.readings = Counter(
            "heron_feed_readings",
            "Readings made. Rate below 1/s: the feed's machine is overloaded.",
            by_site,
            registry=registry,
        )
        self.failed_checks = Counter(
            "heron_feed_failed_checks",
            "Readings of which this check failed. Growing: look at the farm's telemetry.",
            ("site", "check"),
            registry=registry,
        )
        self.source_age_seconds = Gauge(
            "heron_feed_source_age_seconds",
            "Age of the latest measurement. Above three periods: the source is silent; see to it.",
            by_site,
            registry=registry,
        )
        self.source_period_seconds = Gauge(
            "heron_feed_source_period_seconds",
            "Wall seconds between two measurements of the source.",
            by_site,
            registry=registry,
        )
        by_source = ("farm", "source")
        self.source_connected = Gauge(
            "heron_feed_source_connected",
            "1 while a live source's other side answers. 0: see heron_feed_source_faults_total for why, then "
            "run heron power-feed test.",
            by_source,
            registry=registry,
        )
        self.source_value_age_seconds = Gauge(
            "heron_feed_source_value_age_seconds",
            "Time since a live source last gave a number. Above three periods: it is silent or gives "
            "something else; run heron power-feed test.",
            by_source,
            registry=registry,
        )
        self.source_connections = Counter(
            "heron_feed_source_connections",
            "Times that a live source was connected to. Growing: network or farm unsteady.",
            by_source,
            registry=registry,
        )
        self.source_faults = Counter(
            "heron_feed_source_faults",
            "What went wrong with a live source, by kind. Growing: the feed's log says what to do.",
            (*by_source, "kind"),
            registry=registry,
        )
        self.subscribers = Gauge(
            "heron_feed_subscribers",
            "Open direct streams. 0: the site's agent does not hear the feed directly; check its feed_url.",
            by_site,
            registry=registry,
        )
        self.refused_rows = Gauge(
            "heron_feed_refused_rows",
            "Rows of wind files that could not be used. Above 0: the log has lines and reasons.",
            ("file",),
            registry=registry,
        )
        self.missing_steps = Gauge(
            "heron_feed_missing_steps",
            "Steps of wind files that no row fills: there the reading is a fallback.",
            ("file",),
            registry=registry,
        )
        self.counted_watts = Gauge(
            "heron_feed_counted_watts",
            "What the site may still draw of its farm's power: others cannot have it. Above the grant for "
            "long: the site does not come down, or its reports do not come.",
            by_site,
            registry=registry,
        )
        self.ungranted_watts = Gauge(
            "heron_feed_ungranted_watts",
            "What the farm can give and no site was granted. High in wind: sites are full, rest, or are "
            "silent.",
            ("farm",),
            registry=registry,
        )
        self.report_age_seconds = Gauge(
            "heron_feed_report_age_seconds",
            "Age of the site's latest report. Above 3: its agent or Redis is away; with several sites at the "
            "farm its power is not given to others until its walk-down is over.",
            by_site,
            registry=registry,
        )
        self.report_polls = Counter(
            "heron_feed_report_polls",
            "Reports asked of agents while Redis was silent. failed grows: check ingress_url and site_token.",
            ("result",),
            registry=registry,
        )
        self.records_refused = Counter(
            "heron_feed_records_refused",
            "Records of sites and planners that were not used. Growing: the log names the writer.",
            ("reason",),
            registry=registry,
        )
        self.server_off = Gauge(
            "heron_feed_server_off",
            "1 while the site's server is switched off. Long in good wind: see heron_feed_ungranted_watts.",
            by_site,
            registry=registry,
        )
        self.server_commands = Counter(
            "heron_feed_server_commands",
            "Orders to switch a server. Many: raise min_off_seconds, or the farm is too small for them.",
            ("site", "command"),
            registry=registry,
        )
        self.server_errors = Counter(
            "heron_feed_server_errors",
            "Server switches that did not answer or refused. Growing: the log says what to do; a server that "
            "cannot be switched off draws without a grant.",
            by_site,
            registry=registry,
        )
        self.loop_failures = Counter(
            "heron_feed_loop_failures",
            "Parts of the feed that failed unforeseen, and went on. Any: report the log's trace.",
            ("loop",),
            registry=registry,
        )
        self.redis_errors = Counter(
            "heron_feed_redis_errors",
            "Failed exchanges with Redis. Growing: routers do not see this feed's readings; streams go on.",
            registry=registry,
        )
        self.redis_up = Gauge(
            "heron_feed_redis_up",
            "1 while Redis takes what is written. 0: start Redis or correct redis_url.",
            registry=registry,
        )

    def count_files(self, series: Sequence[WindSeries]) -> None:
        """Account for the wind files that were read."""
        for one in series:
            self.refused_rows.labels(one.name).set(one.refusals.total)
            self.missing_steps.labels(one.name).set(one.missing_steps)

    def count_farm(self, farm_id: str, readings: Sequence[PowerReading]) -> None:
        """Account for all readings of one farm."""
        granted = sum(reading.granted_power_watts for reading in readings)
        available = readings[0].available_power_watts
        self.ungranted_watts.labels(farm_id).set(max(0.0, available - granted))

    def count_reading(self, reading: PowerReading, verdict: Verdict) -> None:
        """Account for one reading that was sent."""
        site = reading.site_id
        self.available_watts.labels(site).set(reading.available_power_watts)
        self.granted_watts.labels(site).set(reading.granted_power_watts)
        self.nameplate_watts.labels(site).set(reading.nameplate_capacity_watts)
        self.sequence.labels(site).set(reading.sequence)
        self.source_period_seconds.labels(site).set(reading.period_seconds)
        self.readings.labels(site).inc()
        for point in reading.forecast:
            watts = (point.p10_watts, point.p50_watts, point.p90_watts)
            for quantile, value in zip(FORECAST_QUANTILES, watts, strict=True):
                self.forecast_watts.labels(site, f"{point.horizon_seconds:g}", quantile).set(value)
        for quality in QUALITIES:
            self.quality.labels(site, quality).set(1.0 if quality == reading.quality else 0.0)
        for check in verdict.failed:
            self.failed_checks.labels(site, check).inc()

    def exposition(self) -> bytes:
        """The page that Prometheus scrapes."""
        return generate_latest(self.registry)
