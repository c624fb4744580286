"""Experiment 7: what queueing alone leaves of the bound, with full power all the time.

The bound is a fluid: within a minute nobody waits. How much of what lies between a policy and the bound is
that, and how much the wind? Here the wind is taken away, and beside the policies stands a dispatcher that
sees every engine's queue (`benchmarks.experiments.dispatcher`).
"""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.dispatcher import Dispatcher
from benchmarks.experiments.figures import Counts, markdown, ratio_of
from benchmarks.experiments.setting import OURS, Runs, Setting, write
from simulator import plots
from simulator.bounds import bounds
from simulator.inputs import read_inputs, scenes
from simulator.plots import BOUND

POLICIES = (OURS, "least_loaded")
DISPATCHERS = {"sees all queues": False, "sees all queues, refuses the late": True}
"""Name → whether it refuses."""


def run(setting: Setting) -> None:
    """The first week's hours at every load; with full power the weeks differ in nothing else."""
    week = setting.weeks[0]
    cells = {
        (load, policy): setting.cell(week, policy, load, 1, constant_power=True)
        for load in setting.loads
        for policy in POLICIES
    }
    runs = Runs(setting, cells)
    rows, figures = [], []
    curves: dict[str, list[tuple[float, float]]] = {}
    for load in setting.loads:
        inputs = [
            read_inputs(
                cells[load, OURS].with_(seed=seed, sample=setting.sample.at_seed(seed)), setting.resolve()
            )
            for seed in setting.seeds
        ]
        ceilings = [bounds(one, [load], kinds=["within_slo"])["within_slo"]["by_load"][0] for one in inputs]
        counts: dict[str, Counts] = {policy: runs.counts((load, policy)) for policy in POLICIES}
        for name, refuses in DISPATCHERS.items():
            counts[name] = _dispatched(inputs, refuses=refuses)
        shares = {name: ratio_of(*one) for name, one in counts.items()}
        bound = ratio_of(
            [count for one in ceilings for count in one["bound_by_block"]],
            [count for one in ceilings for count in one["offered_by_block"]],
        )
        offered = runs.offered_ratios((load, OURS))
        mean = sum(offered) / len(offered)
        rows.append([f"{load:g}", f"{mean:.2f}", *(one.text() for one in shares.values()), bound.text()])
        figures.append(
            {"load": load, "offered": mean, BOUND: bound.mean}
            | {name: one.mean for name, one in shares.items()}
        )
        for name, one in (shares | {BOUND: bound}).items():
            curves.setdefault(name, []).append((mean, one.mean))
    names = [*(f"`{policy}`" for policy in POLICIES), *DISPATCHERS, BOUND]
    table = markdown(["load", "*offered*", *names], rows)
    said = (
        f"{setting.said()} Full power all the time, at the hours of {week[1]}. Shares of offered "
        "requests within the SLO. *Sees all queues*: each request goes where its first token comes "
        "first, by what every engine has before it at that moment; *refuses the late*: and knows how "
        "long each answer will be (`benchmarks/experiments/dispatcher.py`). Neither is a bound: no "
        "place is kept for a cheaper request."
    )
    write(
        setting,
        "queueing",
        text=f"# What queueing leaves, with full power\n\n{said}\n\n{table}",
        summary=f"{said}\n\n{table}",
        plots={
            "attained": plots.lines(
                curves, title="Full power all the time", x="offered load", y="share within the SLO"
            )
        },
        rows=figures,
    )


def _dispatched(inputs: list[Any], *, refuses: bool) -> Counts:
    good, offered = [], []
    for one in inputs:
        for scene in scenes(one):
            dispatcher = Dispatcher(one, refuses=refuses)
            dispatcher.run(scene)
            good.append(float(dispatcher.good))
            offered.append(float(dispatcher.offered))
    return good, offered
