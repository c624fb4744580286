"""A log whose units have since been corrected teaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.signing import BELIEVES_ALL
from power_feed.allocator import SiteClaim
from power_feed.composition import farm_feed
from power_feed.config import FarmConfig, FeedConfig, LeastSource
from power_feed.farm import FarmFeed
from power_feed.forecast import Forecaster
from power_feed.history import learn
from power_feed.source_digest import digest
from power_feed.sources.schedule import Schedule

START = 1_700_000_000.0
MODBUS: dict[str, Any] = {
    "kind": "modbus",
    "host": "plc",
    "unit": "kW",
    "power": {"address": 0},
    "measures": "produced",
    "curtailment": {"address": 4},
}


def farm(**changes: Any) -> FarmConfig:
    source = MODBUS | changes
    return FarmConfig.model_validate(
        {"farm_id": "coast", "site_id": "s", "nameplate_watts": 1000.0, "source": source}
    )


def feed(**changes: Any) -> FarmFeed:
    """Its numbers are scripted: only the configuration counts here."""
    source = Schedule(
        points=[(0.0, 0.5)], nameplate_watts=1000.0, start_unix_seconds=START, period_seconds=1.0
    )
    configured = farm(**changes)
    return farm_feed(configured, source, FeedConfig(farms=(configured,)), "feed-1")


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "MW"},
        {"scale": 0.1},
        {"offset": 1.0},
        {"capacity": 5.0},
        {"curtailment": {"address": 5}},
        {"curtailment": {"address": 4, "curtailed_if": "below", "threshold": 99.5}},
        {"power": {"address": 0, "word_order": "little"}},
        {"measures": "available", "curtailment": None},
    ],
)
def test_a_log_that_was_read_in_another_way_teaches_nothing(change: dict[str, Any]) -> None:
    """It has the same farm, nameplate and address; one that was read in the same way teaches."""
    before, now = feed(), feed(**change)
    records = [
        reading.to_json()
        for reading in before.read(now=0.0, unix_seconds=START, claims=[SiteClaim(site_id="s")])
    ]
    assert len(records) == 1
    for subject, taught in ((feed(), 1), (now, 0)):
        forecaster = Forecaster(1000.0)
        count = learn(
            forecaster, records, farm=subject.farm, source=subject.source_name, speed=1.0, trust=BELIEVES_ALL
        )
        assert count == taught


def test_the_connection_and_its_secrets_are_no_part_of_it() -> None:
    """A longer timeout or another password changes no number, inside a `least` neither."""
    assert digest(farm().source) == digest(farm(timeout_seconds=9.0, max_retry_seconds=99.0).source)
    least = [
        LeastSource.model_validate(
            {"kind": "least", "of": [MODBUS | {"timeout_seconds": seconds, "scale": scale}]}
        )
        for seconds, scale in ((3.0, 1.0), (9.0, 1.0), (3.0, 2.0))
    ]
    assert digest(least[0]) == digest(least[1]) != digest(least[2])


def test_a_long_description_leaves_room_for_it() -> None:
    """A reading's source has 512 characters."""
    subject = feed()
    subject.source = Schedule(
        points=[(0.0, 0.5)],
        nameplate_watts=1000.0,
        start_unix_seconds=START,
        period_seconds=1.0,
        description="x" * 512,
    )
    assert len(subject.source_name) == 512
    assert subject.source_name.endswith(f" #{digest(farm().source)}")
