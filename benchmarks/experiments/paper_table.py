"""Experiment 1: goodput against offered load, load sustained, every policy, as shares of the bound."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from benchmarks.experiments.setting import (
    BASELINES,
    POLICIES,
    Setting,
    markdown,
    mean_and_interval,
    number,
    run_all,
    slim,
    write,
)
from simulator import plots
from simulator.bounds import bounds
from simulator.inputs import read_inputs

ATTAINMENTS = (0.99, 0.95, 0.9)


def run(setting: Setting) -> None:
    """Run, tabulate, plot."""
    cells = {
        (name, load, policy, seed): setting.cell((wind, name), policy, load, seed)
        for wind, name in setting.weeks
        for load in setting.loads
        for policy in POLICIES
        for seed in setting.seeds
    }
    ceiling = {
        (name, load): _bound(setting, (wind, name), load)
        for wind, name in setting.weeks
        for load in setting.loads
    }
    results = run_all(setting, list(cells.values()))
    rows: list[dict[str, Any]] = []
    text = ["# Goodput against offered load", "", _said(setting), ""]
    figures = {}
    for _, name in setting.weeks:
        text += [f"## {name}", "", *_table(setting, name, cells, results, ceiling, rows), ""]
        figures[name] = plots.lines(
            {
                policy: [
                    (load, _attained(setting, cells, results, name, load, policy)[0] * load)
                    for load in setting.loads
                ]
                for policy in POLICIES
            }
            | {"bound": [(load, ceiling[name, load] * load) for load in setting.loads]},
            title=f"{name}: goodput against offered load",
            x="offered load, share of the cluster's peak",
            y="within the SLO, share of the peak",
            diagonal=True,
        )
    if len(setting.loads) > 2:
        text += ["## Load sustained", "", _sustained(setting, cells, results)]
    write(setting, "paper_table", data=rows, text="\n".join(text), plots=figures)


def _said(setting: Setting) -> str:
    return (
        "Load: conversation 2024, sizes drawn jointly from 2023's rows, bursty. Blocks "
        f"`{setting.sample}` of each week, {len(setting.seeds)} seed(s). Shares of the offered requests "
        "within the SLO (5 × alone, by class); in brackets as a share of the clairvoyant bound of the same "
        "minutes (as `heron bound`: no queue, no start). Sites governed; `planned` has its planner, `heron` "
        "none, as is the default. `heron` is told the SLO, and sorts out by it; the others are not, as they "
        "would only refuse more (ablation)."
    )


def _bound(setting: Setting, week: Any, load: float) -> float:
    inputs = read_inputs(setting.cell(week, "heron", load, 1), setting.resolve())
    found: float = bounds(inputs, [load])["within_slo"]["by_load"][0]["bound"]
    return found


def _attained(
    setting: Setting, cells: Any, results: Any, name: str, load: float, policy: str
) -> tuple[float, float]:
    values = [
        results[cells[name, load, policy, seed]]["result"]["all"]["slo_attainment_ratio"]
        for seed in setting.seeds
    ]
    return mean_and_interval(values)


def _table(
    setting: Setting, name: str, cells: Any, results: Any, ceiling: Any, rows: list[dict[str, Any]]
) -> list[str]:
    lines = []
    for policy in POLICIES:
        line = [policy]
        for load in setting.loads:
            mean, half = _attained(setting, cells, results, name, load, policy)
            top = ceiling[name, load]
            spread = f" ± {half:.1%}" if half else ""
            line.append(f"{mean:.1%}{spread} ({mean / top:.0%})")
            rows += [
                {
                    "week": name,
                    "load": load,
                    "policy": policy,
                    "seed": seed,
                    "bound_ratio": top,
                    **slim(results[cells[name, load, policy, seed]]),
                }
                for seed in setting.seeds
            ]
        lines.append(line)
    lines.append(["*bound*", *(f"{ceiling[name, load]:.1%}" for load in setting.loads)])
    lines.append(["*heron's part of the way to the bound*", *_ways(setting, name, cells, results, ceiling)])
    return [markdown(["policy", *(f"load {load:g}" for load in setting.loads)], lines)]


def _ways(setting: Setting, name: str, cells: Any, results: Any, ceiling: Any) -> list[str]:
    """(heron − best baseline) ÷ (bound − best baseline)."""
    found = []
    for load in setting.loads:
        best = max(_attained(setting, cells, results, name, load, policy)[0] for policy in BASELINES)
        ours = _attained(setting, cells, results, name, load, "heron")[0]
        top = ceiling[name, load]
        is_close = top - best < 0.02 * top
        found.append(
            "baseline within 2 % of the bound" if is_close else f"{(ours - best) / (top - best):.0%}"
        )
    return found


def _sustained(setting: Setting, cells: Any, results: Any) -> str:
    """The highest load at which so much was attained, linear between the loads that were run."""
    lines = []
    for _, name in setting.weeks:
        for policy in POLICIES:
            curve = [
                (load, _attained(setting, cells, results, name, load, policy)[0]) for load in setting.loads
            ]
            lines.append(
                [name, policy, *(number(_crossing(curve, level), missing="–") for level in ATTAINMENTS)]
            )
    return markdown(["week", "policy", *(f"{level:.0%}" for level in ATTAINMENTS)], lines)


def _crossing(curve: list[tuple[float, float]], level: float) -> float | None:
    if curve[0][1] < level:
        return None
    for (low, above), (high, below) in pairwise(curve):
        if below < level:
            return low + (high - low) * (above - level) / (above - below)
    return curve[-1][0]
