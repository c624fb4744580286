"""When to come back."""

from __future__ import annotations

import random

from fleet.records import ForecastPoint, PowerReading
from router.policy.retry_after import quota_retry_after_seconds, retry_after_seconds
from router.policy.snapshot import SiteView

SITE = SiteView(
    site_id="north",
    agent_id="w",
    state="dark",
    sequence=1,
    arrived_at=1.0,
    is_confirmed=True,
    ingress_url="http://127.0.0.1:1",
    observed_at_unix_seconds=1.0,
    server_idle_watts=1000.0,
)


def reading(*points: tuple[float, float]) -> PowerReading:
    return PowerReading(
        schema_version="1.0",
        sequence=1,
        feed_id="f",
        site_id="north",
        farm_id="f",
        observed_at_unix_seconds=1.0,
        period_seconds=1.0,
        available_power_watts=0.0,
        granted_power_watts=0.0,
        nameplate_capacity_watts=1.0,
        quality="good",
        source="s",
        forecast=tuple(
            ForecastPoint(horizon_seconds=at, p10_watts=0.0, p50_watts=watts, p90_watts=watts)
            for at, watts in points
        ),
    )


def many(shortage: str, *points: tuple[float, float]) -> set[int]:
    sites = [(SITE, reading(*points))]
    return {
        retry_after_seconds(shortage, sites, random.Random(seed))  # type: ignore[arg-type]
        for seed in range(300)
    }


def test_for_power_the_forecast_says_when():
    """The first horizon with power for engines, ± 20 %."""
    seconds = many("no_power", (60.0, 500.0), (300.0, 5000.0), (900.0, 9000.0))
    assert (min(seconds), max(seconds)) == (241, 360)


def test_without_a_forecast_of_power_it_is_a_quarter_of_a_minute():
    """A constant."""
    seconds = many("no_power", (60.0, 500.0))
    assert (min(seconds), max(seconds)) == (13, 18)


def test_room_comes_back_within_seconds():
    """As requests finish."""
    assert many("no_capacity") == {2, 3}


def test_a_quota_s_time_is_never_cut_short():
    """Up to a fifth later, so that the next try is not in vain; whole seconds, and bounded."""
    seconds = {quota_retry_after_seconds(10.0, random.Random(seed)) for seed in range(300)}
    assert (min(seconds), max(seconds)) == (11, 12)
    assert quota_retry_after_seconds(0.001, random.Random(1)) == 1
    assert quota_retry_after_seconds(float("inf"), random.Random(1)) <= 4320
