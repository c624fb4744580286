"""The start time that a site reckons with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from site_agent.start_times import REMEMBERED_STARTS, StartTimes


def test_what_was_seen_counts_from_the_first_start_on() -> None:
    """Before it, what is configured."""
    times = StartTimes(configured_seconds=60.0, most_seconds=900.0)
    assert (times.seconds, times.learnt_seconds) == (60.0, None)
    times.observe(180.0)
    assert (times.seconds, times.learnt_seconds) == (180.0, 180.0)


def test_the_slowest_of_the_last_few_counts_and_is_forgotten_after_them() -> None:
    """One slow start is no rule for ever."""
    times = StartTimes(configured_seconds=60.0, most_seconds=900.0)
    times.observe(200.0)
    for _ in range(REMEMBERED_STARTS - 1):
        times.observe(30.0)
    assert times.seconds == 200.0
    times.observe(30.0)
    assert times.seconds == 30.0


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_it_is_bounded_whatever_is_seen(seen: list[float]) -> None:
    """By zero and by what a start may take at all."""
    times = StartTimes(configured_seconds=60.0, most_seconds=900.0)
    for seconds in seen:
        times.observe(seconds)
        assert 0.0 <= times.seconds <= 900.0
