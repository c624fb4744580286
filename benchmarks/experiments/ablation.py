"""Experiment 4: `heron` with one part taken out at a time."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.setting import Setting, markdown, number, run_all, slim, write
from simulator import plots
from simulator.cell import pairs

WITHOUT: dict[str, dict[str, Any]] = {
    "whole": {},
    "triage": {"parameters": pairs({"burst_seconds": 0.0})},
    "the cheap before the dear": {"parameters": pairs({"cheapness_exponent": 0.0})},
    "live signals": {"parameters": pairs({"room_exponent": 0.0, "time_exponent": 0.0})},
    "forecast": {"parameters": pairs({"forecast": False})},
    "packing": {"parameters": pairs({"packing": 0.0})},
    "clock scaling": {"control": "gpu_idling"},
    "server switch": {"server_switch": False},
    "resume": {"resume": False},
    "(with plan)": {"planner": True},
    "(least_loaded)": {"policy": "least_loaded"},
    "(least_loaded, told the SLO)": {"policy": "least_loaded", "router_slo": True},
}
"""What is taken out, and how; rows in brackets add or replace something. Live signals: the policy then weighs
by the forecast alone."""


def run(setting: Setting) -> None:
    """On every week at its middle load; quick: on the first."""
    weeks = setting.weeks[:1] if setting.is_quick else setting.weeks
    load, seed = setting.middle_load, setting.seeds[0]
    cells = {
        (week[1], name): setting.cell(week, "heron", load, seed).with_(**changes)
        for week in weeks
        for name, changes in WITHOUT.items()
    }
    found = run_all(setting, list(cells.values()))
    lines, rows, figures = [], [], {}
    for week in weeks:
        whole = found[cells[week[1], "whole"]]["result"]["all"]["slo_attainment_ratio"]
        bars = {}
        for name in WITHOUT:
            one = found[cells[week[1], name]]["result"]
            part = one["all"]
            lines.append(
                [
                    week[1],
                    name if name == "whole" else f"without {name}".replace("without (", "("),
                    f"{part['slo_attainment_ratio']:.1%}",
                    f"{part['slo_attainment_ratio'] - whole:+.1%}",
                    *(f"{part[key]}" for key in ("shed", "broken")),
                    number(part["ttft_seconds"]["p99"]),
                    number(part["e2e_seconds"]["p99"], "{:.1f}"),
                    f"{one['cap_exceeded_seconds']:.1f}",
                    number(one["joules_per_output_token"], missing="–"),
                ]
            )
            rows.append({"week": week[1], "without": name, **slim(found[cells[week[1], name]])})
            bars[name] = [part["slo_attainment_ratio"]]
        figures[week[1]] = plots.bars(bars, title=f"{week[1]}: heron without …", x="share within the SLO")
    head = (
        *("week", "variant", "attained", "against whole", "shed", "broken", "TTFT p99", "E2E p99"),
        *("over cap s", "J/token"),
    )
    text = (
        f"# What each part of heron brings\n\nLoad {load:g}, blocks `{setting.sample}`, seed {seed}. One "
        "farm has one site here, so packing (which is between the sites of a farm) has nothing to do.\n\n"
    )
    write(setting, "ablation", data=rows, text=text + markdown(head, lines), plots=figures)
