"""Who is worth a place where there is too little for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.triage import LEAST_SHARE, MOST_BEYOND_SECONDS, MOST_BURSTS, Triage


def triage(burst: float = 1.0, exponent: float = 1.0, utilisation: float = 1.0) -> Triage:
    return Triage(burst_seconds=burst, cheapness_exponent=exponent, utilisation=utilisation)


@pytest.fixture
def load() -> Load:
    return Load(Breaker(), "a")


def test_a_site_is_open_until_a_burst_is_before_it_and_again_once_it_is_worked_off(load: Load):
    """Eight requests of an eighth of a second are one second; a quarter later two more have room."""
    one = triage()
    for _ in range(8):
        one.note([0.125])
        assert one.is_open(load, 0.125, 100.0)
        one.give(load, "a", 0.125, 100.0)
    assert not one.is_open(load, 0.125, 100.0)
    for _ in range(2):
        assert one.is_open(load, 0.125, 100.25)
        one.give(load, "a", 0.125, 100.25)
    assert not one.is_open(load, 0.125, 100.25)


def test_of_a_site_s_time_only_a_part_is_given_away(load: Load):
    """At a utilisation of a half eight requests of an eighth take two seconds; as many may come at once."""
    one = triage(utilisation=0.5)
    for _ in range(8):
        assert one.is_open(load, 0.125, 100.0)
        one.give(load, "a", 0.125, 100.0)
    assert not one.is_open(load, 0.125, 100.0)
    assert load.work_left_seconds(100.0) == 2.0


def test_the_cheap_may_use_more_and_the_dear_less(load: Load):
    """In proportion to the mean cost; the cheapest four times as much."""
    one = triage()
    one.note([0.1])
    one.give(load, "a", 0.6, 100.0)
    assert one.is_open(load, 0.1, 100.0)
    assert not one.is_open(load, 0.2, 100.0)
    one.give(load, "a", 3.0, 100.0)
    assert one.is_open(load, 0.01, 100.0)
    one.give(load, "a", MOST_BURSTS - 3.5, 100.0)
    assert not one.is_open(load, 1e-9, 100.0)


@pytest.mark.parametrize("cost", [1e-3, 10.0])
def test_without_an_exponent_all_have_the_same(load: Load, cost: float):
    """Nobody is preferred."""
    one = triage(exponent=0.0)
    one.note([0.1])
    one.give(load, "a", 0.9, 100.0)
    assert one.is_open(load, cost, 100.0)
    one.give(load, "a", 0.2, 100.0)
    assert not one.is_open(load, cost, 100.0)


def test_of_a_site_that_others_use_too_this_router_counts_on_its_share(load: Load):
    """A quarter of what runs there is its own: a second of work takes four. A few requests say nothing."""
    one = triage()
    for second in range(100):
        one.reported("a", own_requests=10, running_requests=40.0, now=second)
    one.give(load, "a", 1.0, 100.0)
    assert load.work_left_seconds(100.0) == pytest.approx(4.0)
    for second in range(100, 200):
        one.reported("a", own_requests=0, running_requests=3.0, now=second)
    one.reported("a", own_requests=1, running_requests=None, now=200.0)
    one.give(load, "a", 1.0, 200.0)
    assert load.work_left_seconds(200.0) == pytest.approx(1.0)


@pytest.mark.parametrize("delay_seconds", [1, 5, 30])
def test_a_router_that_is_alone_takes_no_request_of_its_own_for_anothers(load: Load, delay_seconds: int):
    """Reports are of before, and its requests there come and go in waves: the site is all its own."""
    one = triage()
    own = [int(40 + 35 * math.sin(second / 10)) for second in range(300)]
    for second in range(delay_seconds, 300):
        one.reported("a", own_requests=own[second], running_requests=own[second - delay_seconds], now=second)
        one.give(load, "a", 1.0, 1000.0 * second)
        left = load.work_left_seconds(1000.0 * second)
        assert left == pytest.approx(1.0) or second < 120


def test_what_this_router_had_there_long_ago_is_not_what_others_have_now(load: Load):
    """A minute after its own have gone, the rest is of others."""
    one = triage()
    for second in range(200):
        own = 40 if second < 40 else 4
        one.reported("a", own_requests=own, running_requests=40.0, now=second)
    one.give(load, "a", 0.1, 200.0)
    assert load.work_left_seconds(200.0) == pytest.approx(1.0)
    one.reported("a", own_requests=4, running_requests=40.0, now=3.0)  # a clock that jumped back
    one.give(load, "a", 0.1, 300.0)
    assert load.work_left_seconds(300.0) == pytest.approx(1.0)


def test_a_share_is_never_nothing(load: Load):
    """A router that has nothing there yet may begin."""
    one = triage()
    for second in range(1000):
        one.reported("a", own_requests=0, running_requests=1000.0, now=second)
    one.give(load, "a", 0.05, 100.0)
    assert load.work_left_seconds(100.0) == pytest.approx(0.05 / LEAST_SHARE)


def test_what_goes_on_at_any_cost_shuts_others_out_for_seconds_and_no_longer(load: Load):
    """Thirty resumes of a second each."""
    one = triage()
    for _ in range(30):
        one.give(load, "a", 1.0, 100.0)
    assert load.work_left_seconds(100.0) == MOST_BURSTS + MOST_BEYOND_SECONDS


@given(
    st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 0.2)), min_size=1, max_size=200),
    st.floats(0.05, 2.0),
    st.floats(0.0, 4.0),
)
def test_no_more_is_given_than_the_site_works_off_and_a_burst(
    work: list[tuple[float, float]], burst: float, exponent: float
):
    """Whatever comes: the backlog is below the largest burst and one request."""
    one, load = triage(burst, exponent), Load(Breaker(), "a")
    now, backlog, largest = 100.0, 0.0, 0.0
    for cost, pause in work:
        now += pause
        backlog = max(0.0, backlog - pause)
        one.note([cost])
        if one.is_open(load, cost, now):
            one.give(load, "a", cost, now)
            backlog += cost
            largest = max(largest, cost)
        assert backlog <= burst * MOST_BURSTS + largest + 1e-6
