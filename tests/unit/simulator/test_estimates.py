"""A mean over seeds, and half its 95 % interval."""

from __future__ import annotations

import math

import pytest

from simulator.estimates import estimate


def test_an_interval_is_students() -> None:
    """Three values: mean, and 4.30 standard errors; one value says nothing of its spread."""
    found = estimate([0.90, 0.92, 0.94])
    assert found.mean == pytest.approx(0.92)
    assert found.half == pytest.approx(4.30 * 0.02 / math.sqrt(3))
    assert found.text() == "92.0% ± 5.0%"
    assert estimate([0.9]).text() == "90.0%"
    with pytest.raises(ValueError, match="no value"):
        estimate([])
    assert estimate([math.nan, 0.9]).text() == "90.0%", "a seed in which nothing came"
    assert estimate([math.nan]).text() == "–"
