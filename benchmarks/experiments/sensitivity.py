"""Experiment 5: forecast error, report delay, site count, round trip, output-length error."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.setting import Setting, markdown, run_all, slim, write
from simulator import plots

POLICIES = ("heron", "least_loaded", "power_weighted")
FULL: dict[str, tuple[Any, ...]] = {
    "forecast_error_ratio": (0.0, 0.1, 0.2, 0.4),
    "report_delay_seconds": (0.1, 1.0, 3.0, 10.0, 30.0),
    "site_count": (2, 5, 10, 20, 50, 100),
    "round_trip_seconds": (0.005, 0.02, 0.05, 0.15),
    "length_error_ratio": (0.0, 0.25, 0.5, 1.0),
}
QUICK: dict[str, tuple[Any, ...]] = {
    "forecast_error_ratio": (0.0, 0.4),
    "report_delay_seconds": (0.02, 3.0, 30.0),
    "site_count": (2, 10),
    "round_trip_seconds": (0.005, 0.15),
    "length_error_ratio": (0.0, 1.0),
}
UNITS = {"report_delay_seconds": "s", "round_trip_seconds": "s", "site_count": "sites"}


def run(setting: Setting) -> None:
    """On the first far week at its middle load; sites beyond the record's columns read them days later."""
    week, load, seed = setting.weeks[0], setting.middle_load, setting.seeds[0]
    grid = QUICK if setting.is_quick else FULL
    policies = POLICIES[:2] if setting.is_quick else POLICIES
    cells = {
        (name, value, policy): setting.cell(week, policy, load, seed, **{name: value})
        for name, values in grid.items()
        for value in values
        for policy in policies
    }
    found = run_all(setting, list(cells.values()))
    lines, rows, figures = [], [], {}
    for name, values in grid.items():
        curves: dict[str, list[tuple[float, float]]] = {policy: [] for policy in policies}
        for value in values:
            line = [name, f"{value:g} {UNITS.get(name, '')}".strip()]
            for policy in policies:
                one = found[cells[name, value, policy]]
                part = one["result"]["all"]
                line.append(
                    f"{part['slo_attainment_ratio']:.1%} (shed {part['shed']}, broken {part['broken']})"
                )
                curves[policy].append((float(value), part["slo_attainment_ratio"]))
                rows.append({"parameter": name, "value": value, "policy": policy, **slim(one)})
            lines.append(line)
        figures[name.replace("_", "-")] = plots.lines(
            curves, title=f"{week[1]}, load {load:g}", x=name.replace("_", " "), y="share within the SLO"
        )
    text = f"# Sensitivity\n\nWeek {week[1]}, load {load:g}, blocks `{setting.sample}`, seed {seed}.\n\n"
    write(
        setting,
        "sensitivity",
        data=rows,
        text=text + markdown(["parameter", "value", *policies], lines),
        plots=figures,
    )
