"""The most and the mean of a value within the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.recent import RecentMean, RecentMost


def test_the_most_is_forgotten_when_its_time_is_over() -> None:
    """Then the next lower one counts."""
    recent = RecentMost(hold_seconds=1.0)
    assert [recent.observe(value, at) for at, value in ((0.0, 5), (0.5, 9), (1.4, 3), (1.6, 3))] == [
        5,
        9,
        9,
        3,
    ]


def test_a_mean_counts_each_sample_for_its_time() -> None:
    """One of a tenth of a second among four of 480 W; a first sample, and one after a pause, stand for
    themselves."""
    recent = RecentMean(hold_seconds=0.5)
    assert recent.observe(480.0, 0.0) == 480.0
    for tick in range(1, 5):
        recent.observe(480.0, tick / 10)
    assert recent.observe(820.0, 0.5) == pytest.approx(548.0)
    assert recent.observe(900.0, 60.0) == 900.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e4)), min_size=1, max_size=60))
def test_a_mean_is_never_outside_its_samples(steps: list[tuple[float, float]]) -> None:
    """Whatever the times."""
    recent, at, values = RecentMean(hold_seconds=0.5), 0.0, []
    for step, value in steps:
        at += step
        values.append(value)
        assert min(values) - 1e-6 <= recent.observe(value, at) <= max(values) + 1e-6
