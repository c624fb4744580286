"""What a restarted feed's forecast learns from the power log."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fleet.records import PowerReading
from fleet.signing import BELIEVES_ALL
from power_feed.forecast import Forecaster
from power_feed.history import learn
from power_feed.readings import Farm

FARM = Farm(farm_id="coast", nameplate_watts=1000.0, loss_ratio=0.1, other_loads_watts=50.0)


def record(minute: int, watts: float, **values: Any) -> bytes:
    """As it was logged then."""
    fields: dict[str, Any] = {
        "feed_id": "before",
        "sequence": minute + 1,
        "site_id": "coast-1",
        "farm_id": "coast",
        "observed_at_unix_seconds": 1_700_000_000.0 + 60 * minute,
        "period_seconds": 1.0,
        "available_power_watts": FARM.deliverable_watts(watts),
        "granted_power_watts": 0.0,
        "nameplate_capacity_watts": FARM.deliverable_watts(FARM.nameplate_watts),
        "quality": "good",
        "source": "modbus",
    }
    return PowerReading(**(fields | values)).to_json()


def taught(records: list[bytes], forecaster: Forecaster, *, speed: float = 1.0) -> int:
    return learn(forecaster, records, farm=FARM, source="modbus", speed=speed, trust=BELIEVES_ALL)


def test_a_forecast_taught_from_the_log_is_the_one_that_saw_it_all() -> None:
    """A minute apart: the same quantiles, hence the same errors."""
    rng = random.Random(1)
    walk = [500.0 + 300.0 * rng.random() for _ in range(2000)]
    live, learnt = Forecaster(1000.0), Forecaster(1000.0)
    for minute, watts in enumerate(walk):
        live.observe(watts, 1_700_000_000.0 + 60 * minute)
    assert taught([record(minute, watts) for minute, watts in enumerate(walk)], learnt) == 2000
    for one, other in zip(live.quantiles(), learnt.quantiles(), strict=True):
        assert one.p10_watts == pytest.approx(other.p10_watts)
        assert one.p90_watts == pytest.approx(other.p90_watts)
    new = Forecaster(1000.0)
    new.observe(walk[-1], 1_700_000_000.0)
    assert new.quantiles()[-1].p10_watts < learnt.quantiles()[-1].p10_watts


def test_what_is_not_certain_to_be_of_this_farm_teaches_nothing() -> None:
    """Another farm, size, source; a reading that is not good, a measurement told twice, no record at all."""
    others = [
        record(0, 500.0, farm_id="inland"),
        record(1, 500.0, nameplate_capacity_watts=2000.0),
        record(2, 500.0, source="csv"),
        record(3, 500.0, quality="suspect"),
        b"{}",
        b"\xff",
    ]
    assert taught(others, Forecaster(1000.0)) == 0
    assert taught([record(4, 500.0), record(4, 500.0)], Forecaster(1000.0)) == 1


def test_a_record_that_was_replayed_faster_is_learnt_in_its_own_time() -> None:
    """Half a minute apart in the record's time at half the speed."""
    forecaster = Forecaster(1000.0)
    taught([record(minute, 500.0) for minute in range(3)], forecaster, speed=0.5)
    assert forecaster._period_seconds == pytest.approx(30.0)
