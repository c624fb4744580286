"""What could be served at all, of whole weeks: the ceiling of any gain, before a policy is run."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.figures import markdown
from benchmarks.experiments.setting import Setting, write
from simulator import plots
from simulator.bounds import OLD_POWER, bounds
from simulator.code_state import code_state
from simulator.inputs import read_inputs

TITLES = {"within_slo": "Within the SLO", "any_latency": "However late"}
"""Of `simulator.bounds.KINDS`."""
ABSTRACT = "+80 %"


def run(setting: Setting) -> None:
    """Every week at every load: no policy, no sample, no seed."""
    found: dict[str, dict[str, Any]] = {}
    for week in setting.weeks:
        cell = setting.cell(week, "heron", setting.loads[0], 1).with_(sample=None)
        found[week[1]] = bounds(read_inputs(cell, setting.resolve()), setting.loads)
    sized = "" if setting.size_percentile is None else f", sites sized at p{setting.size_percentile:g}"
    said = (
        f"Load `{setting.trace}` with {setting.sizes}'s sizes{sized}; whole weeks in the record's steps and "
        f"the expected load, no seed (`heron bound`); code state `{code_state()}`. Shares of the offered "
        "requests that a clairvoyant fluid serves, and fluid baselines; *sustained*: the load at which so "
        "much of it is, all classes alike."
    )
    text = ["# What could be served at all", "", said, ""]
    for kind, title in TITLES.items():
        text += [f"## {title}", "", _table(setting, found, kind), ""]
    text += ["## Ceiling of the gain over static weights", "", _ceilings(setting, found)]
    summary = [said, "", _short(setting, found), "", _ceilings(setting, found)]
    write(
        setting,
        "bound",
        text="\n".join(text),
        summary="\n".join(summary),
        plots={week: _plot(one, week) for week, one in found.items()},
        weeks=[{"week": week, **one} for week, one in found.items()],
    )


def _table(setting: Setting, found: dict[str, dict[str, Any]], kind: str) -> str:
    rows = []
    for week, one in found.items():
        loads, sustained = one[kind]["by_load"], one[kind]["sustained"]
        unknown = [""] * len(sustained["bound_same_mix"])
        rows.append([week, "*bound*", *(f"{row['bound']:.1%}" for row in loads), *unknown])
        same = [row["bound_same_mix"] for row in loads]
        rows.append([week, "*bound, same mix*", *_texts(same, sustained["bound_same_mix"])])
        for name in loads[0]["baselines"]:
            shares = [row["baselines"][name] for row in loads]
            rows.append([week, name, *_texts(shares, sustained[name])])
    levels = next(iter(found.values()))[kind]["sustained"]["bound_same_mix"]
    head = [f"load {load:g}" for load in setting.loads]
    return markdown(["week", "", *head, *(f"sustained at {float(one):.0%}" for one in levels)], rows)


def _short(setting: Setting, found: dict[str, dict[str, Any]]) -> str:
    """What docs/results.md shows: one row a week, within the SLO."""
    names = ("static_weighted", "power_weighted", OLD_POWER)
    rows = [
        [
            week,
            *(
                f"**{row['bound']:.1%}** ({_listed([row['baselines'][name] for name in names])})"
                for row in one["within_slo"]["by_load"]
            ),
        ]
        for week, one in found.items()
    ]
    head = [f"week: **bound** ({', '.join(names)})", *(f"load {load:g}" for load in setting.loads)]
    return markdown(head, rows)


def _listed(shares: list[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


def _texts(shares: list[float], sustained: dict[str, float]) -> list[str]:
    return [*(f"{share:.1%}" for share in shares), *(f"{load:.2f}" for load in sustained.values())]


def _ceilings(setting: Setting, found: dict[str, dict[str, Any]]) -> str:
    """One row a week, beside the abstract's claim."""
    rows = []
    for week, one in found.items():
        gains = [
            f"{row['bound'] / static - 1:+.0%}" if (static := row["baselines"]["static_weighted"]) else "–"
            for row in one["within_slo"]["by_load"]
        ]
        rows.append([week, *gains, ABSTRACT])
    head = [f"load {load:g}" for load in setting.loads]
    return markdown(["week: bound over fluid `static_weighted`", *head, "paper's abstract"], rows)


def _plot(one: dict[str, Any], week: str) -> str:
    rows = one["within_slo"]["by_load"]
    points = {
        name: [(row["load"], row["baselines"][name] * row["load"]) for row in rows]
        for name in rows[0]["baselines"]
    }
    return plots.lines(
        points | {plots.BOUND: [(row["load"], row["bound"] * row["load"]) for row in rows]},
        title=f"{week}: what a fluid serves within the SLO",
        x="offered load, share of the cluster's peak",
        y="served, share of the peak",
        diagonal=True,
    )
