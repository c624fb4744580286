"""Experiment 5: forecast and length errors, report delay and loss, number and size of sites, round trip.

Every site brings its load, so 100 sites have 20 times the requests of five and take 20 times as long: from
LARGE sites on the first seed's blocks are all that is simulated, and the table says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.experiments.figures import markdown, total
from benchmarks.experiments.setting import OURS, Runs, Setting, write
from simulator import plots
from simulator.weeks import SENSITIVITY_PERCENTILE

POLICIES = ("heron", "least_loaded", "power_weighted")
FULL: dict[str, tuple[Any, ...]] = {
    "forecast_error_ratio": (0.0, 0.1, 0.2, 0.4),
    "report_delay_seconds": (0.1, 1.0, 3.0, 10.0, 30.0),
    "report_loss_ratio": (0.0, 0.1, 0.3, 0.5, 0.9),
    "site_count": (2, 5, 10, 20, 50, 100),
    "round_trip_seconds": (0.005, 0.02, 0.05, 0.15),
    "length_error_ratio": (0.0, 0.25, 0.5, 1.0),
    "size_percentile": (SENSITIVITY_PERCENTILE, 40.0, 50.0),
}
QUICK: dict[str, tuple[Any, ...]] = {
    "forecast_error_ratio": (0.0, 0.4),
    "report_delay_seconds": (0.02, 3.0, 30.0),
    "report_loss_ratio": (0.0, 0.5),
    "site_count": (2, 10),
    "round_trip_seconds": (0.005, 0.15),
    "length_error_ratio": (0.0, 1.0),
    "size_percentile": (SENSITIVITY_PERCENTILE, 40.0),
}
LARGE = 50
UNITS = {"report_delay_seconds": "s", "round_trip_seconds": "s", "site_count": "sites"}


def run(setting: Setting) -> None:
    """At the middle load of a far and a near week; quick: the far one.

    Sites beyond the record's columns read them days later.
    """
    weeks = setting.far_and_near[:1] if setting.is_quick else setting.far_and_near
    load = setting.middle_load
    grid = QUICK if setting.is_quick else FULL
    policies = POLICIES[:2] if setting.is_quick else POLICIES
    cells = {
        (week[1], name, value, policy): setting.cell(week, policy, load, 1, **{name: value})
        for week in weeks
        for name, values in grid.items()
        for value in values
        for policy in policies
    }
    small = Runs(setting, {one: cell for one, cell in cells.items() if not _is_large(*one[1:3])})
    few = replace(setting, seeds=setting.seeds[:1])
    large = Runs(few, {one: cell for one, cell in cells.items() if _is_large(*one[1:3])})
    lines, rows, figures = [], [], {}
    for _, week in weeks:
        for name, values in grid.items():
            curves: dict[str, list[tuple[float, float]]] = {policy: [] for policy in policies}
            for value in values:
                runs = large if _is_large(name, value) else small
                seeds = " (first seed)" if runs is large and not setting.is_quick else ""
                line = [week, name, f"{value:g} {UNITS.get(name, '')}{seeds}".strip()]
                for policy in policies:
                    one = (week, name, value, policy)
                    attained = runs.share(one)
                    counts = (total(runs.of(one), "all", key) for key in ("shed", "broken"))
                    line.append(f"{attained.text()} (shed {next(counts):,}, broken {next(counts):,})")
                    if policy != OURS:
                        line.append(runs.lead((week, name, value, OURS), one).text("{:+.1%}"))
                    curves[policy].append((float(value), attained.mean))
                    rows += runs.rows(one, week=week, parameter=name, value=value, policy=policy)
                lines.append(line)
            figures[f"{week}-{name}".replace("_", "-")] = plots.lines(
                curves, title=f"{week}, load {load:g}", x=name.replace("_", " "), y="share within the SLO"
            )
    said = f"{setting.said()} Load {load:g}, no trips. Counts are sums over seeds."
    head = ["week", "parameter", "value", f"`{OURS}`"]
    for policy in policies[1:]:
        head += [f"`{policy}`", f"`{OURS}` less it"]
    table = markdown(head, lines)
    write(
        setting,
        "sensitivity",
        text=f"# Sensitivity\n\n{said}\n\n{table}\n",
        summary=f"{said}\n\n{table}",
        plots=figures,
        rows=rows,
    )


def _is_large(name: str, value: Any) -> bool:
    return name == "site_count" and value >= LARGE
