"""Experiment 3: router policy × site control × resume, so that it is plain what brings what."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.figures import markdown, mean_of, number, total
from benchmarks.experiments.setting import POLICIES, Runs, Setting, write
from simulator import plots

CONTROLS = ("governed", "power_cap_only", "gpu_idling", "dynamo_like")
QUICK_POLICIES = ("heron", "least_loaded")
HEAD = (
    *("week", "policy", "site control", "resume", "attained", "less governed, resume on"),
    *("in power-short minutes", "shed", "broken", "resumed", "E2E p99", "over cap s", "J/token"),
)


def run(setting: Setting) -> None:
    """On a far and a near week, with trips; quick: two policies, resume off for our control alone."""
    load = setting.loads[-1]
    variants = [
        (policy, control, resume)
        for policy in (QUICK_POLICIES if setting.is_quick else POLICIES)
        for control in CONTROLS
        for resume in (True, False)
        if resume or control == "governed" or not setting.is_quick
    ]
    runs = Runs(
        setting,
        {
            (week[1], *one): setting.cell(
                week, one[0], load, 1, control=one[1], resume=one[2], trips_per_day=setting.trips_per_day
            )
            for week in setting.far_and_near
            for one in variants
        },
    )
    lines, rows, figures = [], [], {}
    for _, week in setting.far_and_near:
        bars: dict[str, list[float]] = {}
        for policy, control, resume in variants:
            name = (week, policy, control, resume)
            lines.append(_line(runs, name))
            rows += runs.rows(name, week=week, policy=policy, control=control, resume=resume)
            if resume:
                bars[f"{policy}, {control}"] = runs.attained(name)
        figures[week] = plots.bars(
            bars, title=f"{week}, load {load:g}, trips, resume on", x="share within the SLO"
        )
    said = (
        f"{setting.said()} Load {load:g}, {setting.trips_per_day:g} sudden falls of power a day at "
        "each farm. Counts are sums over seeds. *Over cap*: beyond the ride-through of 5 s, in counted "
        "minutes."
    )
    table = markdown(HEAD, lines)
    write(
        setting,
        "matrix",
        text=f"# Policy × site control × resume\n\n{said}\n\n{table}\n",
        summary=f"{said}\n\n{table}",
        plots=figures,
        rows=rows,
    )


def _line(runs: Runs, name: tuple[str, str, str, bool]) -> list[str]:
    week, policy, control, resume = name
    results: list[dict[str, Any]] = runs.of(name)
    reference = (week, policy, "governed", True)
    joules = [one["joules_per_output_token"] for one in results]
    return [
        week,
        f"`{policy}`",
        f"`{control}`",
        "on" if resume else "off",
        runs.share(name).text(),
        "" if name == reference else runs.lead(name, reference).text("{:+.1%}"),
        runs.share(name, "power_short").text(),
        *(f"{total(results, 'all', key):,}" for key in ("shed", "broken", "resumed")),
        number(mean_of([one["all"]["e2e_seconds"]["p99"] for one in results]), "{:.1f}"),
        f"{sum(one['cap_exceeded_seconds'] for one in results):.1f}",
        number(mean_of(joules), missing="–"),
    ]
