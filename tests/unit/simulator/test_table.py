"""Figures of results as text, of one run and over seeds."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.table import COLUMNS, ROWS, Row, by_policy, shown, table_rows


def result(*, offered: int = 200, shed: int = 20, broken: int = 0, p99: float | None = 1.5) -> dict[str, Any]:
    times = {"p50": 0.5, "p99": p99}
    return {
        "all": {
            "offered": offered,
            "shed": shed,
            "broken": broken,
            "resumed": 0,
            "offered_requests_per_second": offered / 60,
            "goodput_requests_per_second": 1.0,
            "slo_attainment_ratio": 0.75 if offered else None,
            "served_ratio": 0.9 if offered else None,
            "ttft_seconds": times,
            "e2e_seconds": times,
        },
        "cap_exceeded_seconds": 0.0,
        "joules_per_output_token": 3.0 if offered else None,
    }


def figure(name: str) -> Row:
    return next(row for row in (*ROWS, *COLUMNS) if row.short == name)


def cell(policy: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    return {"cell": {"policy": policy, "seed": seed}, "result": found}


@pytest.mark.parametrize(
    ("name", "found", "text"),
    [
        ("attained", result(), "75.00%"),
        ("refused", result(), "10.00%"),
        ("shed", result(), "20"),
        ("TTFT p99", result(), "1.500"),
        ("TTFT p99", result(p99=None), "∞"),
        ("TTFT p99", result(offered=0, p99=None), "–"),
        ("attained", result(offered=0), "–"),
        ("refused", result(offered=0), "–"),
        ("J/token", result(offered=0), "–"),
    ],
)
def test_one_runs_figure_is_a_number_infinite_or_unknown(name: str, found: dict[str, Any], text: str) -> None:
    """A percentile that is none is infinite; what nothing was offered for is a dash."""
    assert shown(figure(name), [found]) == text


def test_seeds_are_averaged_with_an_interval() -> None:
    """A mean of counts has a place behind the point; one infinite seed makes the mean infinite."""
    assert shown(figure("broken"), [result(broken=1), result(broken=2)]) == "1.5 ± 6.4"
    assert shown(figure("broken"), [result(broken=1), result(broken=1)]) == "1.0"
    assert shown(figure("E2E p99"), [result(), result(p99=None)]) == "∞"
    assert shown(figure("attained"), [result(), result(offered=0)]) == "75.00%"


def test_a_policys_runs_are_together_and_each_seed_counts_once() -> None:
    """In the order in which they were asked for, also where a policy was named twice."""
    first, second, other = result(shed=1), result(shed=2), result(shed=3)
    runs = [cell("heron", 1, first), cell("heron", 2, second), cell("reactive", 1, other)]
    assert by_policy([*runs, runs[0]]) == {"heron": [first, second], "reactive": [other]}
    assert list(by_policy([runs[2], runs[0]])) == ["reactive", "heron"]


def test_every_run_has_a_row_of_all_figures() -> None:
    """Policy, seed, and as many figures as there are headings."""
    [row] = table_rows([cell("heron", 2, result())])
    assert row[:2] == ["heron", "2"]
    assert len(row) == 2 + len(ROWS)


def test_no_two_figures_have_one_heading() -> None:
    """Of a table of runs, and of one of policies."""
    for rows in (ROWS, COLUMNS):
        assert len({row.short for row in rows}) == len(rows)
