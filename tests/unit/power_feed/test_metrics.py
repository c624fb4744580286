"""What the metrics page says of a reading."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from fleet.records import ForecastPoint
from power_feed.metrics import FeedMetrics
from power_feed.quality import Verdict
from power_feed.readings import Farm, Origin, power_reading


def test_a_reading_shows_in_its_sites_series() -> None:
    """Watts, sequence, quality one-hot, and the check that failed."""
    metrics = FeedMetrics()
    verdict = Verdict(watts=100.0, quality="suspect", observed_at_unix_seconds=1.0, failed=("ramp",))
    farm = Farm(farm_id="f", nameplate_watts=1000.0)
    origin = Origin(feed_id="feed", period_seconds=15.0, source="test")
    reading = power_reading(farm, verdict, origin, site_id="north", sequence=42, granted_watts=60.0)
    point = ForecastPoint(horizon_seconds=900.0, p10_watts=20.0, p50_watts=60.0, p90_watts=90.0)
    reading = reading.model_copy(update={"forecast": (point,)})
    metrics.count_reading(reading, verdict)
    metrics.count_farm("f", [reading])
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }
    assert samples["heron_feed_available_watts", "north"] == 100.0
    assert samples["heron_feed_granted_watts", "north"] == 60.0
    assert samples["heron_feed_forecast_watts", "0.1", "900", "north"] == 20.0
    assert samples["heron_feed_forecast_watts", "0.9", "900", "north"] == 90.0
    assert samples["heron_feed_ungranted_watts", "f"] == 40.0
    assert samples["heron_feed_sequence", "north"] == 42.0
    assert samples["heron_feed_source_period_seconds", "north"] == 15.0
    assert samples["heron_feed_quality", "north", "suspect"] == 1.0
    assert samples["heron_feed_quality", "good", "north"] == 0.0
    assert samples["heron_feed_failed_checks_total", "north", "ramp"] == 1.0


def test_every_metric_has_the_feeds_prefix_and_a_base_unit() -> None:
    """And its help is more than a name."""
    families = list(text_string_to_metric_families(FeedMetrics().exposition().decode()))
    assert families
    for family in families:
        assert family.name.startswith("heron_feed_")
        assert len(family.documentation) > 40
