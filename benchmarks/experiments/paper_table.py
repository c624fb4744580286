"""Experiment 1: goodput against offered load, load sustained, every policy, as shares of the bound."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.figures import markdown
from benchmarks.experiments.paper_goals import (
    fluid_table,
    gain_table,
    goals_table,
    sustained_summary,
    sustained_table,
    way_text,
)
from benchmarks.experiments.paper_results import Table
from benchmarks.experiments.setting import OURS, POLICIES, Runs, Setting, Week, write
from simulator import plots
from simulator.bounds import bounds
from simulator.inputs import read_inputs
from simulator.plots import BOUND


def run(setting: Setting) -> None:
    """Run, tabulate, plot."""
    runs = Runs(
        setting,
        {
            (week[1], load, policy): setting.cell(week, policy, load, 1)
            for week in setting.weeks
            for load in setting.loads
            for policy in POLICIES
        },
    )
    table = Table(
        setting,
        runs,
        {(week[1], load): _ceilings(setting, week, load) for week in setting.weeks for load in setting.loads},
    )
    attained = attained_table(table, list(table.ceilings))
    text = ["# Goodput against offered load", "", said(setting), "", attained, ""]
    sustained, goals, gains = sustained_table(table), goals_table(table), gain_table(table)
    for title, part in (
        ("Load sustained", sustained),
        ("Goals", goals),
        ("Gain over static weights", gains),
        ("Bound and fluid baselines", fluid_table(table)),
    ):
        text += [f"## {title}", "", part, ""]
    summary = [
        said(setting),
        "",
        attained,
        "",
        sustained_summary(table),
        "",
        goals,
        "",
        gains,
    ]
    write(
        setting,
        "paper_table",
        text="\n".join(text),
        summary="\n".join(summary),
        plots={name: _plot(table, name) for _, name in setting.weeks},
        table=f"{said(setting)}\n\n{attained}",
        rows=[
            row
            for week in setting.weeks
            for load in setting.loads
            for policy in POLICIES
            for row in runs.rows((week[1], load, policy), week=week[1], load=load, policy=policy)
        ],
        bounds=[{"week": week, **one} for (week, _), ones in table.ceilings.items() for one in ones],
    )


def said(setting: Setting) -> str:
    """What the tables are of."""
    return (
        f"{setting.said()} Shares of the offered requests within the SLO (5 × alone, by class); in brackets "
        "as a share of the clairvoyant bound of the very same requests and watts (`heron bound --sample`: "
        "minute by minute, no queue, no start). *Offered*: what really came, as a share of the cluster's "
        "peak; blocks meet other hours than the mean one. Sites governed; before `round_robin` and "
        "`static_weighted` `gpu_idling`, which serves them better. `planned` has its planner, `heron` "
        "none, as is the default. `heron` is told the SLO, and sorts out by it; the others refuse what finds "
        "no room at once, which serves them best (docs/policies.md)."
    )


def _ceilings(setting: Setting, week: Week, load: float) -> list[dict[str, Any]]:
    return [
        bounds(
            read_inputs(setting.cell(week, OURS, load, seed), setting.resolve()), [load], kinds=["within_slo"]
        )
        for seed in setting.seeds
    ]


def attained_table(table: Table, places: list[tuple[str, float]]) -> str:
    """A row for each week and load, a column for each policy."""
    rows = [
        [
            one[0],
            f"{one[1]:g}",
            f"{table.offered(*one):.2f}",
            *(_attained(table, *one, policy) for policy in POLICIES),
            table.share(*one, BOUND).text(),
            table.lead(*one).text("{:+.1%}"),
            way_text(table, *one),
        ]
        for one in places
    ]
    policies = [f"`{policy}`" for policy in POLICIES]
    last = ["bound", f"`{OURS}` less the best baseline", "its part of the way to the bound"]
    return markdown(["week", "load", "*offered*", *policies, *last], rows)


def _attained(table: Table, week: str, load: float, policy: str) -> str:
    of_bound = table.share_of_bound(week, load, policy).mean
    return f"{table.share(week, load, policy).text()} ({of_bound:.0%})"


def _plot(table: Table, week: str) -> str:
    return plots.lines(
        {
            policy: [(load, attained * load) for load, attained in table.curve(week, policy)]
            for policy in (*POLICIES, BOUND)
        },
        title=f"{week}: goodput against offered load",
        x="offered load, share of the cluster's peak",
        y="within the SLO, share of the peak",
        diagonal=True,
    )
