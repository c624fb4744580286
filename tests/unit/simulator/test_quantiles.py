"""Distributions as values at fixed levels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.quantiles import at, sketch


def test_quantiles_of_a_sketch_are_those_of_the_values() -> None:
    """To the resolution of the levels."""
    values = np.arange(1, 100_001, dtype=np.float32)
    found = sketch(values)
    for level in (0.1, 0.5, 0.9, 0.95, 0.99, 0.999):
        assert at(found, level) == pytest.approx(level * 100_000, rel=0.002)


def test_requests_that_never_ended_are_infinite() -> None:
    """One in fifty shed: p99 is infinite, p90 is not."""
    values = np.concatenate((np.full(980, 2.0), np.full(20, np.inf))).astype(np.float32)
    found = sketch(values)
    assert at(found, 0.9) == 2.0
    assert math.isinf(at(found, 0.99))


def test_nothing_has_no_quantile() -> None:
    """NaN, not zero."""
    assert math.isnan(at(sketch(np.array([], dtype=np.float32)), 0.5))
