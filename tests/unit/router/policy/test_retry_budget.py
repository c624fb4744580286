"""Retries are a share of live traffic."""

from __future__ import annotations

from router.policy.retry_budget import RetryBudget


def take_all(budget: RetryBudget, now: float) -> int:
    taken = 0
    while budget.take(now) and taken < 10_000:
        taken += 1
    return taken


def test_a_quiet_router_may_retry_its_minimum():
    """Ten a second over ten seconds."""
    assert take_all(RetryBudget(ratio=0.2, minimum_per_second=10), 5.0) == 100


def test_traffic_adds_its_share():
    """A fifth of a thousand requests."""
    budget = RetryBudget(ratio=0.2, minimum_per_second=0)
    for index in range(1000):
        budget.count_request(5.0 + index / 1000)
    assert take_all(budget, 6.0) == 200


def test_retries_are_free_again_after_the_window():
    """Ten seconds later nothing of it counts."""
    budget = RetryBudget(ratio=0.0, minimum_per_second=1)
    assert take_all(budget, 5.0) == 10
    assert not budget.take(14.9)
    assert budget.take(15.1)


def test_requests_leave_the_window():
    """Old traffic gives no budget."""
    budget = RetryBudget(ratio=1.0, minimum_per_second=0)
    for _ in range(50):
        budget.count_request(3.0)
    assert not budget.take(60.0)


def test_a_long_pause_clears_everything():
    """A jump over many windows costs one window's work and leaves nothing behind."""
    budget = RetryBudget(ratio=1.0, minimum_per_second=0)
    budget.count_request(3.0)
    budget.count_request(1_000_003.0)
    assert take_all(budget, 1_000_003.0) == 1


def test_a_request_of_an_earlier_second_clears_nothing():
    """Its slot is in the window: one slow upload must not wipe out what was spent."""
    budget = RetryBudget(ratio=0.0, minimum_per_second=1)
    assert take_all(budget, 1009.0) == 10
    budget.count_request(1000.0)
    assert not budget.take(1009.5)


def test_a_clock_that_is_set_back_neither_clears_the_budget_nor_stalls_it():
    """What was spent counts for one more window, on the new time."""
    budget = RetryBudget(ratio=0.0, minimum_per_second=1)
    assert take_all(budget, 5000.0) == 10
    assert not budget.take(1000.0)
    assert not budget.take(1000.5)
    assert take_all(budget, 1010.0) == 10
