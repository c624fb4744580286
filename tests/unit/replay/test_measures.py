"""replay.measures: percentiles are exact or within one percent, and memory does not grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.measures import LogHistogram, Quantiles


def histogram(*values: float) -> LogHistogram:
    found = LogHistogram()
    for value in values:
        found.add(value)
    return found


def test_nothing_has_no_quantile() -> None:
    """Empty is None, not zero."""
    assert LogHistogram().quantile(0.5) is None
    assert Quantiles().quantile(0.5) is None


@given(st.lists(st.floats(min_value=2e-5, max_value=9e3), min_size=1, max_size=200), st.floats(0, 1))
def test_a_histogram_is_within_one_percent(values: list[float], level: float) -> None:
    """Of the value that stands at that rank."""
    exact = Quantiles()
    for value in values:
        exact.add(value)
    assert histogram(*values).quantile(level) == pytest.approx(exact.quantile(level), rel=0.0101)


def test_values_outside_count_at_the_edge() -> None:
    """Zero gaps (two tokens in one packet) and absurd ones are counted, not lost."""
    found = histogram(0.0, -1.0, 1e9)
    assert found.count == 3
    assert found.quantile(0.1) == pytest.approx(1e-5, rel=0.02)
    assert found.quantile(1.0) == pytest.approx(1e4, rel=0.04)


def test_merged_histograms_hold_both() -> None:
    """Merging adds; the other one stays as it was."""
    first, second = histogram(0.01, 0.01), histogram(1.0)
    first.merge(second)
    assert (first.count, second.count) == (3, 1)
    assert first.quantile(1.0) == pytest.approx(1.0, rel=0.011)


def test_exact_until_the_limit() -> None:
    """Nearest rank, to the bit; beyond the limit within one percent, over all values."""
    few = Quantiles(max_exact=4)
    for value in (0.4, 0.1, 0.3, 0.2):
        few.add(value)
    assert [few.quantile(level) for level in (0.0, 0.25, 0.5, 0.99, 1.0)] == [0.1, 0.1, 0.2, 0.4, 0.4]
    few.add(5.0)
    assert few.count == 5
    assert few.quantile(1.0) == pytest.approx(5.0, rel=0.0101)
