"""Small fits under bounds, exact and without a library. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

_TOLERANCE = 1e-9


def pool_adjacent(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (pool adjacent violators, weighted least squares)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            total = last[1] + before[1]
            blocks.append(((last[0] * last[1] + before[0] * before[1]) / total, total, last[2] + before[2]))
    return [value for value, _, count in blocks for _ in range(count)]


def least_in_polygon(
    equations: Sequence[tuple[float, float]], targets: Sequence[float], limits: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The (x, y) with the least sum of (a·x + b·y − target)².

    Under x ≥ 0, y ≥ 0 and x + n·y ≤ m for every limit (n, m), both above 0. The least is inside, on an edge
    or in a corner: all are tried.
    """
    aa = sum(a * a for a, _ in equations)
    ab = sum(a * b for a, b in equations)
    bb = sum(b * b for _, b in equations)
    at = sum(a * target for (a, _), target in zip(equations, targets, strict=True))
    bt = sum(b * target for (_, b), target in zip(equations, targets, strict=True))
    lines = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), *((1.0, float(n), m) for n, m in limits)]
    found = [(0.0, 0.0)]
    determinant = aa * bb - ab * ab
    if determinant > _TOLERANCE * aa * bb:
        found.append(((at * bb - bt * ab) / determinant, (bt * aa - at * ab) / determinant))
    for p, q, m in lines:  # p·x + q·y = m, from its foot along (q, −p)
        x, y = p * m / (p * p + q * q), q * m / (p * p + q * q)
        curvature = aa * q * q - 2 * ab * p * q + bb * p * p
        slope = (at - aa * x - ab * y) * q - (bt - ab * x - bb * y) * p
        along = slope / curvature if curvature > 0 else 0.0
        found.append((x + along * q, y - along * p))
    for (p, q, m), (r, s, n) in combinations(lines, 2):
        cross = p * s - q * r
        if cross:
            found.append(((m * s - n * q) / cross, (p * n - r * m) / cross))

    def is_inside(x: float, y: float) -> bool:
        inside = all(x + n * y <= m * (1 + _TOLERANCE) for n, m in limits)
        return inside and x >= -_TOLERANCE and y >= -_TOLERANCE

    def cost(place: tuple[float, float]) -> float:
        x, y = place
        return aa * x * x + 2 * ab * x * y + bb * y * y - 2 * (at * x + bt * y)

    x, y = min((place for place in found if is_inside(*place)), key=cost)
    return max(0.0, x), max(0.0, y)
