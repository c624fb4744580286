"""Histograms in Prometheus' sense."""

from __future__ import annotations

from site_agent.emulation.statistics import Histogram


def test_histogram_counts_up_to_and_with_its_bounds() -> None:
    """A value on a bound belongs to that bucket; the last one takes everything."""
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    histogram.observe(1.5, 3)
    histogram.observe(9.0)
    assert histogram.cumulative() == [("1.0", 1.0), ("2.0", 4.0), ("+Inf", 5.0)]
    assert histogram.count == 5
    assert histogram.sum == 14.5
