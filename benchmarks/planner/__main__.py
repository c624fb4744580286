"""How long plans take, and how good they are: `python -m benchmarks.planner [--json FILE] [--plot FILE]`.

Per size and load: a first slow plan, a second one for other wind from there (churn and bounds bind), and a
fast plan for power that fell at every third site. One process, one core; processor seconds, the problem's
making left out, its translation for the solver and back included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.planner.fleets import problem, with_flows_by_site
from router.policy.planner.fast import solve_fast
from router.policy.planner.problem import Planned, PlanningProblem, Quantiles
from router.policy.planner.slow import solve_slow
from simulator import plots

LOADS = (0.2, 0.4, 0.7)
FLOWS_UP_TO = 20
"""Sites: beyond, the program with flows by site is not tried."""
COLUMNS = (
    "sites",
    "load",
    "plan",
    "cpu_seconds",
    "status",
    "gap_ratio",
    "nodes",
    "shortfall_ratio",
    "objective",
)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner")
    parser.add_argument("--sizes", default="5,20,100,500")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="SVG: the slowest over the loads, by sites")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for sites in map(int, arguments.sizes.split(",")):
        for load in LOADS:
            for row in measure(sites, load, arguments.seed):
                rows.append(row)
                print("| " + " | ".join(_cell(row[name]) for name in COLUMNS) + " |", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot is not None:
        arguments.plot.write_text(drawn(rows))


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each kind of plan."""
    slowest: dict[str, dict[float, float]] = {}
    for row in rows:
        by_sites = slowest.setdefault(row["plan"], {})
        by_sites[row["sites"]] = max(by_sites.get(row["sites"], 0.0), row["cpu_seconds"])
    return plots.lines(
        {name: list(by_sites.items()) for name, by_sites in slowest.items()},
        title="Plans: the slowest over the loads",
        x="sites",
        y="CPU seconds of one core",
        log_x=True,
        log_y=True,
    )


def measure(sites: int, load: float, seed: int) -> list[dict[str, Any]]:
    """All plans of one size and load."""
    first = problem(sites, load=load, seed=seed)
    rows = []
    row, planned = _timed("slow, first", lambda: solve_slow(first))
    rows.append(row)
    second = problem(sites, load=load, seed=seed + 1, present=planned.targets)
    row, planned = _timed("slow, next", lambda: solve_slow(second))
    rows.append(row)
    fallen = _fallen(second)
    row, _ = _timed("fast", lambda: solve_fast(fallen, planned.targets))
    rows.append(row)
    if sites <= FLOWS_UP_TO:
        exact = replace(first.parameters, gap_ratio=1e-4)
        small = replace(first, parameters=exact)
        row, _ = _timed("slow, first, gap 0.01 %", lambda: solve_slow(small))
        rows.append(row)
        row, _ = _timed("flows by site, gap 0.01 %", lambda: solve_slow(with_flows_by_site(small)))
        rows.append(row)
    for row in rows:
        row |= {"sites": sites, "load": load}
    return rows


def _fallen(before: PlanningProblem) -> PlanningProblem:
    sites = []
    for index, site in enumerate(before.sites):
        power = site.power
        if index % 3 == 0 and power is not None:
            power = Quantiles(p10=0.5 * power.p10, p50=0.5 * power.p50, p90=0.5 * power.p90)
        sites.append(replace(site, power=power))
    return replace(before, sites=tuple(sites))


def _timed(name: str, solve: Callable[[], Planned]) -> tuple[dict[str, Any], Planned]:
    began = time.process_time()
    planned = solve()
    seconds = time.process_time() - began
    whole = sum(planned.demand.values())
    row = {
        "plan": name,
        "cpu_seconds": seconds,
        "status": planned.status,
        "gap_ratio": planned.gap_ratio,
        "nodes": planned.nodes,
        "shortfall_ratio": sum(planned.shortfall.values()) / whole if whole else 0.0,
        "objective": planned.objective,
    }
    return row, planned


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
