"""No two lines of a plot look alike."""

from __future__ import annotations

from simulator.plots import BOUND, POLICY_ORDER, colour_of


def test_the_bound_looks_like_no_policy():
    """It lies on top of the best of them where they reach it."""
    colours = [colour_of(name) for name in (*POLICY_ORDER, BOUND)]
    assert len(set(colours)) == len(colours)
