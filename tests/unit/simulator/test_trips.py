"""Sudden falls of a farm's power: as many as were asked for, short, and the same for the same seed."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from simulator.trips import DAY_SECONDS, MOST_SECONDS, trips, with_trips


def test_so_many_fall_a_day_and_each_is_short() -> None:
    """Over a hundred days the mean is kept, but for those that fall twice."""
    found = trips(100 * DAY_SECONDS, 48, random.Random(1))
    ends = [one for one in found if one[1] - one[0] >= 10]
    assert len(ends) == pytest.approx(4800, rel=0.1)
    assert all(0 < end - begin <= MOST_SECONDS and 0 <= share <= 1 for begin, end, share in found)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(found))
    twice = len(found) - len(ends)
    assert twice / len(ends) == pytest.approx(1 / 3, abs=0.03)


def test_none_asked_for_are_none() -> None:
    """The wind stays as it is."""
    watts = np.full(1000, 5.0)
    assert trips(1000, 0.0, random.Random(1)) == []
    assert np.array_equal(with_trips(watts, 0.0, random.Random(1)), watts)


def test_the_wind_falls_and_comes_back() -> None:
    """Only inside the trips, by their share; the given array is left alone."""
    watts = np.full(3600, 1000.0)
    fallen = with_trips(watts, 200, random.Random(3))
    expected = np.full(3600, 1000.0)
    for begin, end, share in trips(3600, 200, random.Random(3)):
        expected[begin:end] = 1000.0 * share
    assert np.array_equal(fallen, expected)
    assert fallen.min() < 1000.0 == watts.min()
