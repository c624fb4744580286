"""Rates and quantiles of the last minute."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.console.facts import Counters
from router.console.rates import TREND_POINTS, UNKNOWN_WATTS, RouterRates, SiteRates, quantile

INFINITE = float("inf")


def test_a_quantile_lies_inside_its_bucket() -> None:
    """Interpolated, as Prometheus does it; above the highest bound that bound is said."""
    buckets = {0.1: 50.0, 0.2: 100.0, INFINITE: 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.75) == pytest.approx(0.15)
    assert quantile({0.1: 0.0, INFINITE: 5.0}, 0.5) == 0.1
    assert quantile({}, 0.5) is None
    assert quantile({0.1: 0.0, INFINITE: 0.0}, 0.5) is None


@given(
    counts=st.lists(st.integers(min_value=0, max_value=50), min_size=1, max_size=8),
    ratio=st.floats(min_value=0.0, max_value=1.0),
)
def test_a_quantile_is_never_outside_the_buckets(counts: list[int], ratio: float) -> None:
    """Whatever was counted."""
    total, buckets = 0, {}
    for index, count in enumerate(counts):
        total += count
        buckets[float(index + 1)] = float(total)
    buckets[INFINITE] = float(total)
    found = quantile(buckets, ratio)
    assert (found is None) == (total == 0)
    assert found is None or 0.0 <= found <= len(counts)


def test_rates_are_of_ten_seconds_and_outcomes_of_a_minute() -> None:
    """Three requests a second, then ten."""
    rates, requests = RouterRates(), 0
    for second in range(121):
        requests += 3 if second < 100 else 10
        ledger = {"requests": requests, "completed": requests, "shed": second // 2}
        rates.take(Counters(ledger=ledger, retries={"closed": second}), float(second))
    minute = rates.last_minute()
    assert minute.requests_per_second == pytest.approx(10.0)
    assert minute.seconds == pytest.approx(60.0)
    assert minute.outcomes["shed"] == 30
    assert minute.outcomes["completed"] == 39 * 3 + 21 * 10
    assert minute.retries == 60


def test_a_router_that_has_just_started_knows_no_rates() -> None:
    """Unknown, not zero; after a second it is told for that second."""
    rates = RouterRates()
    assert rates.last_minute().requests_per_second is None
    rates.take(Counters(ledger={"requests": 0}), 5.0)
    assert rates.last_minute().requests_per_second is None
    rates.take(Counters(ledger={"requests": 7}), 6.0)
    assert rates.last_minute().requests_per_second == pytest.approx(7.0)
    assert rates.last_minute().seconds == 1.0


def test_first_token_times_are_those_of_the_last_minute() -> None:
    """What came before is taken off the buckets."""
    rates = RouterRates()
    rates.take(Counters(ttft={0.1: 100.0, 1.0: 100.0, INFINITE: 100.0}), 0.0)
    rates.take(Counters(ttft={0.1: 100.0, 1.0: 200.0, INFINITE: 200.0}), 30.0)
    assert rates.last_minute().ttft_seconds_p50 == pytest.approx(0.55)


def test_a_site_s_requests_of_the_last_minute() -> None:
    """Of 60 to 70 seconds; a count that went back is nothing sent."""
    site = SiteRates()
    for second in range(200):
        site.take(second * 2, float(second))
    assert 120 <= site.last_minute <= 140
    site.take(0, 200.0)
    assert site.last_minute == 0


def test_a_trend_is_bounded_and_has_gaps() -> None:
    """Ten minutes, a point every two seconds."""
    site = SiteRates()
    for second in range(2000):
        site.take_watts(None if second % 4 else 5.0, 9.0, float(second))
    assert len(site.draw_watts) == len(site.cap_watts) == TREND_POINTS
    assert {*site.draw_watts} == {5.0, UNKNOWN_WATTS}
