"""From a verdict to the record."""

from __future__ import annotations

from fleet.records import PowerReading
from power_feed.quality import Verdict
from power_feed.readings import Farm, Origin, power_reading

GOOD = Verdict(watts=800.0, quality="good", observed_at_unix_seconds=1_700_000_000.0)


ORIGIN = Origin(feed_id="feed", period_seconds=15.0, source="a file")


def reading(farm: Farm, verdict: Verdict = GOOD) -> PowerReading:
    return power_reading(farm, verdict, ORIGIN, site_id="s", sequence=7, granted_watts=300.0)


def test_available_and_nameplate_are_the_farms_and_the_grant_is_the_sites() -> None:
    """With who says it, and from what."""
    made = reading(Farm(farm_id="f", nameplate_watts=1000.0))
    assert (made.available_power_watts, made.granted_power_watts) == (800.0, 300.0)
    assert made.nameplate_capacity_watts == 1000.0
    assert made.forecast == ()
    assert (made.period_seconds, made.sequence, made.feed_id, made.source) == (15.0, 7, "feed", "a file")


def test_losses_and_other_loads_are_taken_off() -> None:
    """First the share that is lost on the way, then what the farm takes for itself."""
    farm = Farm(farm_id="f", nameplate_watts=1000.0, loss_ratio=0.05, other_loads_watts=60.0)
    made = reading(farm)
    assert made.available_power_watts == 800.0 * 0.95 - 60.0
    assert made.nameplate_capacity_watts == 890.0


def test_other_loads_never_make_power_negative() -> None:
    """What is not there cannot be granted."""
    farm = Farm(farm_id="f", nameplate_watts=1000.0, other_loads_watts=5000.0)
    assert reading(farm).available_power_watts == 0.0


def test_quality_and_time_are_the_measurements() -> None:
    """A fallback carries the time of the measurement it repeats; the record survives the wire."""
    verdict = Verdict(watts=10.0, quality="fallback", observed_at_unix_seconds=123.5, failed=("missing",))
    made = reading(Farm(farm_id="f", nameplate_watts=1000.0), verdict)
    assert (made.quality, made.observed_at_unix_seconds) == ("fallback", 123.5)
    assert PowerReading.from_json(made.to_json()) == made
