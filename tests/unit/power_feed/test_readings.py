"""From a verdict to the record."""

from __future__ import annotations

from fleet.records import PowerReading
from power_feed.quality import Verdict
from power_feed.readings import Farm, power_reading

GOOD = Verdict(watts=800.0, quality="good", observed_at_unix_seconds=1_700_000_000.0)


def reading(farm: Farm, verdict: Verdict = GOOD) -> PowerReading:
    return power_reading(farm, verdict, feed_id="feed", sequence=7, period_seconds=15.0, source="a file")


def test_one_site_gets_all_that_its_farm_can_give() -> None:
    """Grant and available are the same without an allocator; the forecast is empty."""
    made = reading(Farm(farm_id="f", site_id="s", nameplate_watts=1000.0))
    assert made.available_power_watts == made.granted_power_watts == 800.0
    assert made.nameplate_capacity_watts == 1000.0
    assert made.forecast == ()
    assert (made.period_seconds, made.sequence, made.feed_id, made.source) == (15.0, 7, "feed", "a file")


def test_losses_and_other_loads_are_taken_off() -> None:
    """First the share that is lost on the way, then what the farm takes for itself."""
    farm = Farm(farm_id="f", site_id="s", nameplate_watts=1000.0, loss_ratio=0.05, other_loads_watts=60.0)
    made = reading(farm)
    assert made.available_power_watts == 800.0 * 0.95 - 60.0
    assert made.nameplate_capacity_watts == 890.0


def test_other_loads_never_make_power_negative() -> None:
    """What is not there cannot be granted."""
    farm = Farm(farm_id="f", site_id="s", nameplate_watts=1000.0, other_loads_watts=5000.0)
    assert reading(farm).available_power_watts == 0.0


def test_quality_and_time_are_the_measurements() -> None:
    """A fallback carries the time of the measurement it repeats; the record survives the wire."""
    verdict = Verdict(watts=10.0, quality="fallback", observed_at_unix_seconds=123.5, failed=("missing",))
    made = reading(Farm(farm_id="f", site_id="s", nameplate_watts=1000.0), verdict)
    assert (made.quality, made.observed_at_unix_seconds) == ("fallback", 123.5)
    assert PowerReading.from_json(made.to_json()) == made
