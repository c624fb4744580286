"""A feed that is started anew goes on with what it had learnt."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.wait import until

from fleet.keys import Keys
from fleet.records import PowerReading
from fleet.redis_store import RedisStore
from fleet.store import StoreError
from power_feed import remembering
from power_feed.app import FeedService
from power_feed.config import FeedConfig

CONFIG = FeedConfig.model_validate(
    {
        "port": 0,
        "interval_seconds": 0.1,
        "farms": [
            {
                "farm_id": "coast-farm",
                "site_id": "coast",
                "nameplate_watts": 1000.0,
                "source": {"kind": "schedule", "points": [[0, 0.5]]},
            }
        ],
    }
)


def hour_ahead(feed: FeedService) -> tuple[float, float]:
    """p10 and p90 of the newest reading."""
    raw = feed.hub.newest("coast")
    assert raw is not None
    point = next(one for one in PowerReading.from_json(raw).forecast if one.horizon_seconds == 3600.0)
    return point.p10_watts, point.p90_watts


async def fill_log(store: RedisStore, newest: PowerReading) -> None:
    """Five hours in which the power never moved."""
    for minute in range(300):
        at = newest.observed_at_unix_seconds - 60.0 * (301 - minute)
        record = newest.model_copy(update={"observed_at_unix_seconds": at, "sequence": minute + 1})
        await store.publish_power_reading("coast", record.to_json(), log=True)


@pytest.mark.parametrize("failures", [0, 2])
async def test_the_forecast_goes_on_from_the_log_in_redis(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Without one it must assume a wide spread; also where Redis comes a little later than the feed."""
    monkeypatch.setattr(remembering, "TRY_SECONDS", 0.05)
    store = RedisStore(redis_server.url, Keys(fleet="test"))
    first = FeedService(CONFIG, store)
    await first.start()
    try:
        await until(lambda: first.hub.newest("coast") is not None, seconds=60)
        assert hour_ahead(first) == pytest.approx((150.0, 850.0))
        newest = PowerReading.from_json(first.hub.newest("coast") or b"")
    finally:
        await first.stop()
    await fill_log(store, newest)
    left = [failures]
    read = store.power_log

    async def fail_first(site_id: str, count: int) -> list[bytes]:
        if left[0] > 0:
            left[0] -= 1
            raise StoreError("away")
        return await read(site_id, count)

    monkeypatch.setattr(store, "power_log", fail_first)
    second = FeedService(CONFIG, store, clock=time.time)
    await second.start()
    try:
        await until(lambda: second.hub.newest("coast") is not None, seconds=60)
        await until(
            lambda: hour_ahead(second) == pytest.approx((500.0, 500.0)),
            seconds=60,
            what="what the log taught",
        )
    finally:
        await second.stop()
        await store.aclose()
