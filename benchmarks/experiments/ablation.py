"""Experiment 4: `heron` with one part taken out at a time."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.figures import markdown, mean_of, number, total
from benchmarks.experiments.setting import UNTOLD, Runs, Setting, write
from simulator import plots
from simulator.cell import pairs

WITHOUT: dict[str, dict[str, Any]] = {
    "whole": {},
    "the promise": {"router_slo": False, "router_overrides": UNTOLD},
    "triage": {"parameters": pairs({"burst_seconds": 0.0})},
    "the cheap before the dear": {"parameters": pairs({"cheapness_exponent": 0.0})},
    "live signals": {"parameters": pairs({"room_exponent": 0.0, "time_exponent": 0.0})},
    "forecast": {"parameters": pairs({"forecast": False})},
    "clock scaling": {"control": "gpu_idling"},
    "server switch": {"server_switch": False},
    "resume": {"resume": False},
    "(with plan)": {"planner": True},
    "(least_loaded)": {"policy": "least_loaded", "router_overrides": UNTOLD},
    "(least_loaded, holds for 20 s)": {"policy": "least_loaded"},
    "(least_loaded, told the SLO)": {"policy": "least_loaded", "router_slo": True},
    "(two sites a farm)": {"sites_per_farm": 2},
    "(two sites a farm) without packing": {"sites_per_farm": 2, "parameters": pairs({"packing": 0.0})},
}
"""What is taken out, and how; rows in brackets add or replace something. The promise: `heron` is not told the
SLO, and refuses what finds no room at once, as the baselines. Live signals: the policy then weighs by the
forecast alone. Forecast: the router's; sites go on using theirs."""
WHOLE = {"(two sites a farm) without packing": "(two sites a farm)"}
"""What a row is compared with, where it is not `whole`."""
PACKING = (
    "Packing is between the sites of one farm: its rows have two servers at each farm, twice the farm and "
    "twice the load, and the one without is compared with the other."
)
HEAD = (
    *("week", "variant", "attained", "less whole", "shed", "broken", "resumed", "TTFT p99", "E2E p99"),
    *("over cap s", "J/token"),
)


def run(setting: Setting) -> None:
    """On every week at its highest load, with trips."""
    load = setting.loads[-1]
    runs = Runs(
        setting,
        {
            (week[1], name): setting.cell(week, "heron", load, 1, trips_per_day=setting.trips_per_day).with_(
                **changes
            )
            for week in setting.weeks
            for name, changes in WITHOUT.items()
        },
    )
    lines, rows, figures = [], [], {}
    for _, week in setting.weeks:
        for name in WITHOUT:
            lines.append(_line(runs, week, name))
            rows += runs.rows((week, name), week=week, without=name)
        figures[week] = plots.bars(
            {name: runs.attained((week, name)) for name in WITHOUT},
            title=f"{week}, load {load:g}, trips: heron without …",
            x="share within the SLO",
        )
    said = (
        f"{setting.said()} Load {load:g}, {setting.trips_per_day:g} sudden falls of power a day at "
        "each farm. Counts are sums over seeds. *Over cap*: beyond the ride-through of 5 s, in counted "
        f"minutes. {PACKING}"
    )
    table = markdown(HEAD, lines)
    write(
        setting,
        "ablation",
        text=f"# What each part of heron brings\n\n{said}\n\n{table}\n",
        summary=f"{said}\n\n{table}",
        plots=figures,
        rows=rows,
    )


def _line(runs: Runs, week: str, name: str) -> list[str]:
    results = runs.of((week, name))
    whole = (week, WHOLE.get(name, "whole"))
    return [
        week,
        name if name == "whole" or name.startswith("(") else f"without {name}",
        runs.share((week, name)).text(),
        "" if name == "whole" else runs.lead((week, name), whole).text("{:+.1%}"),
        *(f"{total(results, 'all', key):,}" for key in ("shed", "broken", "resumed")),
        number(mean_of([one["all"]["ttft_seconds"]["p99"] for one in results])),
        number(mean_of([one["all"]["e2e_seconds"]["p99"] for one in results]), "{:.1f}"),
        f"{sum(one['cap_exceeded_seconds'] for one in results):.1f}",
        number(mean_of([one["joules_per_output_token"] for one in results]), missing="–"),
    ]
