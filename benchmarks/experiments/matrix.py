"""Experiment 3: router policy × site control × resume, so that it is plain what brings what."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.setting import Setting, markdown, number, run_all, slim, write
from simulator import plots

POLICIES = ("heron", "least_loaded", "power_weighted", "static_weighted")
CONTROLS = ("governed", "power_cap_only", "gpu_idling", "dynamo_like")


def run(setting: Setting) -> None:
    """On the first far week at its middle load; quick: two policies, resume off for our control alone."""
    week, load, seed = setting.weeks[0], setting.middle_load, setting.seeds[0]
    cells = {
        (policy, control, resume): setting.cell(week, policy, load, seed, control=control, resume=resume)
        for policy in (POLICIES[:2] if setting.is_quick else POLICIES)
        for control in CONTROLS
        for resume in (True, False)
        if resume or control == "governed" or not setting.is_quick
    }
    found = run_all(setting, list(cells.values()))
    lines, rows = [], []
    bars: dict[str, list[float]] = {}
    for (policy, control, resume), cell in cells.items():
        one: dict[str, Any] = found[cell]["result"]
        whole = one["all"]
        lines.append(
            [
                policy,
                control,
                "on" if resume else "off",
                f"{whole['slo_attainment_ratio']:.1%}",
                f"{one['power_short']['slo_attainment_ratio'] or 0:.1%}",
                *(f"{whole[name]}" for name in ("shed", "broken", "resumed")),
                number(whole["e2e_seconds"]["p99"], "{:.1f}"),
                f"{one['cap_exceeded_seconds']:.1f}",
                number(one["joules_per_output_token"], missing="–"),
            ]
        )
        rows.append({"policy": policy, "control": control, "resume": resume, **slim(found[cell])})
        if resume:
            bars[f"{policy}, {control}"] = [whole["slo_attainment_ratio"]]
    head = (
        *("policy", "site control", "resume", "attained", "in power-short minutes"),
        *("shed", "broken", "resumed", "E2E p99", "over cap s", "J/token"),
    )
    text = (
        f"# Policy × site control × resume\n\nWeek {week[1]}, load {load:g}, blocks `{setting.sample}`.\n\n"
    )
    plot = plots.bars(bars, title=f"{week[1]}, load {load:g}, resume on", x="share within the SLO")
    write(setting, "matrix", data=rows, text=text + markdown(head, lines), plots={"attained": plot})
