"""The curves of the planner's and the decisions' benchmarks are drawn from their figures."""

from __future__ import annotations

from benchmarks.decision import __main__ as decision
from benchmarks.planner import __main__ as planner


def test_a_line_for_each_kind_of_plan() -> None:
    """Named, with the largest figure of all loads."""
    rows = [
        {"plan": plan, "sites": sites, "load": load, "cpu_seconds": sites * load * factor}
        for plan, factor in (("slow, first", 0.01), ("fast", 0.001))
        for sites in (5, 100)
        for load in (0.2, 0.7)
    ]
    svg = planner.drawn(rows)
    assert svg.startswith("<svg")
    assert all(name in svg for name in ("slow, first", "fast", "sites"))


def test_a_line_for_each_policy_and_for_updates() -> None:
    """As the results' file has them."""
    svg = decision.drawn(
        {
            "decisions": {"heron": {5: {"steady": 14.0}, 100: {"steady": 45.0}}},
            "promised": {5: {"promised": 16.0}, 100: {"promised": 57.0}},
            "updates": {5: {"report": 13.0}, 100: {"report": 15.0}},
        }
    )
    assert all(name in svg for name in ("heron, with an SLO", "a report's update", "CPU µs"))
