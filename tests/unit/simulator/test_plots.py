"""No two lines of a plot look alike."""

from __future__ import annotations

from simulator import plots
from simulator.plots import BOUND, POLICY_ORDER, colour_of, looks_of


def test_the_bound_looks_like_no_policy():
    """It lies on top of the best of them where they reach it."""
    colours = [colour_of(name) for name in (*POLICY_ORDER, BOUND)]
    assert len(set(colours)) == len(colours)


def test_bars_that_are_no_policies_stand_as_they_were_given():
    """The whole first, then what it is without; one that ended never says so."""
    svg = plots.bars({"whole": [0.9], "forecast": [0.8, 0.7], "clocks": [float("inf")]}, title="t", x="share")
    places = [svg.index(name) for name in ("whole", "forecast", "clocks", "∞")]
    assert svg.startswith("<svg")
    assert places[:3] == sorted(places[:3])


def test_no_two_lines_of_a_plot_look_alike():
    """Policies as everywhere, beside them what is none, and more of those than there are colours left."""
    plans = ["fast", "slow, first", "slow, first, gap 0.01 %", "slow, next", "flows by site, gap 0.01 %"]
    for names in (plans, [*POLICY_ORDER, BOUND, *plans], ["heron", "heron, with an SLO", "planned"]):
        looks = looks_of(names)
        assert list(looks) == names
        assert len(set(looks.values())) == len(names)
    assert looks_of(["planned", "x"])["planned"] == looks_of(POLICY_ORDER)["planned"]
