"""Demand, learnt online."""

from __future__ import annotations

import math
import random

import pytest

from router.policy.planner.demand import (
    FIRST_RATIO,
    MAX_GAP_SECONDS,
    ClassLoad,
    DemandForecast,
    add_loads,
)

KEY = ("m", "SS")


def load(rate: float, prompt: float = 100.0, output: float = 20.0) -> ClassLoad:
    """Of one class."""
    return ClassLoad(requests_per_second=rate, prompt_tokens=prompt, output_tokens=output)


def test_routers_add_up_and_sizes_are_weighed_by_rate() -> None:
    """Two replicas, one of them with larger requests."""
    total = add_loads([{KEY: load(3.0, 100.0, 10.0)}, {KEY: load(1.0, 500.0, 50.0)}])
    assert total == {KEY: load(4.0, 200.0, 20.0)}


def test_a_router_that_says_nonsense_is_left_out() -> None:
    """NaN of one spoils nothing of the others."""
    total = add_loads([{KEY: load(math.nan)}, {KEY: load(2.0)}, {KEY: load(-1.0)}])
    assert total == {KEY: load(2.0)}


def test_the_median_is_the_mean_of_the_last_minutes() -> None:
    """And its quantiles are wide until errors are known."""
    forecast = DemandForecast()
    for minute, rate in enumerate((2.0, 4.0, 6.0)):
        forecast.observe({KEY: load(rate)}, minute * 60.0)
    (found,) = forecast.demand(120.0)
    assert (found.model, found.request_class) == KEY
    assert found.requests_per_second.p50 == pytest.approx(4.0)
    assert found.requests_per_second.p90 == pytest.approx(4.0 * FIRST_RATIO)
    assert forecast.works() == {KEY: (100.0, 20.0)}


def test_quantiles_follow_the_errors_that_were_made() -> None:
    """A load that swings has wider ones than a steady load, and nine of ten lie below p90."""
    rng = random.Random(7)
    steady, swinging = DemandForecast(), DemandForecast()
    below = total = 0
    later: list[tuple[float, float]] = []
    for minute in range(400):
        now = minute * 60.0
        swing = 5.0 + 3.0 * math.sin(minute / 20.0) + rng.random()
        steady.observe({KEY: load(5.0)}, now)
        swinging.observe({KEY: load(swing)}, now)
        later.append((now + 900.0, swinging.demand(now)[0].requests_per_second.p90))
        level = swinging.demand(now)[0].requests_per_second.p50
        if minute > 200:
            due = next(high for at, high in later if at == now)
            total += 1
            below += level <= due
    (calm,), (wild,) = steady.demand(399 * 60.0), swinging.demand(399 * 60.0)
    assert calm.requests_per_second.p90 == pytest.approx(5.0)
    assert wild.requests_per_second.p90 > 1.2 * wild.requests_per_second.p50
    assert 0.75 <= below / total <= 1.0


def test_a_class_that_is_no_longer_asked_for_fades() -> None:
    """Absent means none came."""
    forecast = DemandForecast()
    forecast.observe({KEY: load(6.0)}, 0.0)
    for minute in range(1, 6):
        forecast.observe({}, minute * 60.0)
    (found,) = forecast.demand(300.0)
    assert found.requests_per_second.p50 == 0.0
    assert forecast.works() == {KEY: (100.0, 20.0)}


def test_a_clock_that_goes_back_or_stands_still_is_ignored() -> None:
    """The observation is not counted twice."""
    forecast = DemandForecast()
    forecast.observe({KEY: load(6.0)}, 100.0)
    forecast.observe({KEY: load(60.0)}, 100.0)
    forecast.observe({KEY: load(60.0)}, 40.0)
    assert forecast.demand(100.0)[0].requests_per_second.p50 == 6.0


def test_after_a_long_silence_the_level_begins_anew() -> None:
    """What was an hour ago says nothing of the next quarter of one."""
    forecast = DemandForecast()
    forecast.observe({KEY: load(6.0)}, 0.0)
    forecast.observe({KEY: load(1.0)}, MAX_GAP_SECONDS + 1.0)
    assert forecast.demand(MAX_GAP_SECONDS + 1.0)[0].requests_per_second.p50 == 1.0


def test_it_says_for_how_long_it_has_watched() -> None:
    """A planner that has watched for a moment does not know that there is no load."""
    forecast = DemandForecast()
    assert forecast.known_seconds() == 0.0
    forecast.observe({}, 100.0)
    assert forecast.known_seconds() == 0.0
    forecast.observe({}, 400.0)
    assert forecast.known_seconds() == 300.0
    forecast.observe({}, 401.0 + MAX_GAP_SECONDS)
    assert forecast.known_seconds() == 0.0


def test_nothing_seen_is_no_demand() -> None:
    """A planner that has just started."""
    assert DemandForecast().demand(0.0) == ()
    assert add_loads([]) == {}
