"""Small fits under bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.profiles.fitting import least_in_polygon, pool_adjacent

numbers = st.floats(0.01, 10)


def test_what_never_falls_stays_and_what_falls_is_pooled() -> None:
    """The weighted mean of those whose order is wrong."""
    assert pool_adjacent([1, 2, 3], [1, 1, 1]) == [1, 2, 3]
    assert pool_adjacent([1, 4, 2, 5], [1, 1, 3, 1]) == [1, 2.5, 2.5, 5]
    assert pool_adjacent([], []) == []


@given(st.lists(numbers, min_size=1, max_size=12))
def test_pooled_values_never_fall_and_keep_their_sum(values: list[float]) -> None:
    """Whatever they were."""
    pooled = pool_adjacent(values, [1.0] * len(values))
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(pooled))
    assert sum(pooled) == pytest.approx(sum(values))


def test_a_least_inside_an_edge_and_a_corner_are_found() -> None:
    """By the same question with other targets."""
    equations, limits = [(1.0, 0.0), (0.0, 1.0)], [(1.0, 4.0), (2.0, 6.0)]
    assert least_in_polygon(equations, [1.0, 1.0], limits) == pytest.approx((1, 1))
    assert least_in_polygon(equations, [3.0, 3.0], limits) == pytest.approx((2, 2))
    assert least_in_polygon(equations, [9.0, -1.0], limits) == pytest.approx((4, 0))
    assert least_in_polygon(equations, [-1.0, -1.0], limits) == (0, 0)


def test_equations_that_do_not_tell_two_parts_apart_still_have_an_answer() -> None:
    """One of the many least ones."""
    x, y = least_in_polygon([(1.0, 2.0), (2.0, 4.0)], [1.0, 2.0], [(1.0, 5.0)])
    assert x + 2 * y == pytest.approx(1)


@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5),
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_no_other_place_within_the_limits_is_better(
    rows: list[tuple[float, float, float]], limits: list[tuple[float, float]], other: tuple[float, float]
) -> None:
    """Tried at random places, shrunk until they are within."""
    equations, targets = [(a, -b) for a, b, _ in rows], [target for _, _, target in rows]

    def cost(x: float, y: float) -> float:
        return sum((a * x + b * y - target) ** 2 for (a, b), target in zip(equations, targets, strict=True))

    found = least_in_polygon(equations, targets, limits)
    assert all(found[0] + n * found[1] <= m * (1 + 1e-6) for n, m in limits)
    scale = min(m / (1 + n) for n, m in limits)
    assert cost(*found) <= cost(other[0] * scale, other[1] * scale) + 1e-6
