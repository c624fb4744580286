"""Missing figures."""

from __future__ import annotations

import math

from router.policy.figures import known, or_equal, with_mean


def test_what_is_no_figure_is_unknown():
    """Nor zero, nor all."""
    assert [known(value) for value in (None, math.nan, math.inf, -1.0, 0.0, 2.0)] == [None] * 4 + [0.0, 2.0]


def test_unknown_counts_as_the_mean():
    """And all are equal where nothing is known."""
    assert with_mean([1.0, None, 3.0, math.nan]) == [1.0, 2.0, 3.0, 2.0]
    assert with_mean([None, math.inf]) == [1.0, 1.0]


def test_weights_that_cannot_be_sampled_become_equal():
    """All 0, or too large to add."""
    assert or_equal([0.0, 0.0]) == [1.0, 1.0]
    assert or_equal([1e308, 1e308]) == [1.0, 1.0]
    assert or_equal([0.0, 2.0]) == [0.0, 2.0]
