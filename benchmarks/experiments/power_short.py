"""Experiment 2: the minutes in which some site lacks power for its share of the load."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.experiments.setting import (
    BASELINES,
    POLICIES,
    Setting,
    markdown,
    number,
    run_all,
    slim,
    write,
)
from simulator import plots
from simulator.quantiles import at, at_equal_completion

HEAD = (
    *("policy", "attained", "shed", "broken", "resumed", "TTFT p50", "p99", "E2E p50", "p99"),
    *("E2E p99 at equal completion", "over cap s", "J/token", "wind used", "curtailed kWh"),
)


def run(setting: Setting) -> None:
    """Of the paper table's cells the highest load."""
    load = setting.loads[-1]
    text = [
        "# Power-short minutes",
        "",
        _said(setting, load),
        "",
    ]
    rows: list[dict[str, Any]] = []
    figures = {}
    for week in setting.weeks:
        cells = {policy: setting.cell(week, policy, load, setting.seeds[0]) for policy in POLICIES}
        found = run_all(setting, list(cells.values()))
        results = {policy: found[cell]["result"] for policy, cell in cells.items()}
        name = week[1]
        text += [f"## {name}", "", _table(results), "", _claim(results), ""]
        rows += [
            {"week": name, "load": load, "policy": policy, **slim({"result": one})}
            for policy, one in results.items()
        ]
        if all(one["power_short"]["offered"] for one in results.values()):
            figures[name] = plots.distributions(
                {policy: one["power_short"]["e2e_sketch"] for policy, one in results.items()},
                title=f"{name}: E2E in power-short minutes",
                x="seconds",
            )
    write(setting, "power_short", data=rows, text="\n".join(text), plots=figures)


def _said(setting: Setting, load: float) -> str:
    return (
        f"Load {load:g}, blocks `{setting.sample}`, seed {setting.seeds[0]}. Times in seconds; shed and "
        "broken requests count as infinite (∞). At equal completion: the quantile of each policy's best "
        "requests, as many as the policy that served fewest completed. Watts, joules and wind of all minutes."
    )


def _completion(results: dict[str, Any]) -> float:
    return min(one["power_short"]["served_ratio"] or 0.0 for one in results.values())


def _table(results: dict[str, Any]) -> str:
    least = _completion(results)
    lines = []
    for policy, one in results.items():
        part = one["power_short"]
        equal = at_equal_completion(part["e2e_sketch"], 0.99, least)
        wind = one["wind_available_kilowatt_hours"]
        lines.append(
            [
                policy,
                number(part["slo_attainment_ratio"], "{:.1%}", "–"),
                *(f"{part[name]}" for name in ("shed", "broken", "resumed")),
                *(number(part["ttft_seconds"][name]) for name in ("p50", "p99")),
                *(number(part["e2e_seconds"][name], "{:.1f}") for name in ("p50", "p99")),
                "–" if math.isnan(equal) else number(equal if math.isfinite(equal) else None, "{:.1f}"),
                f"{one['cap_exceeded_seconds']:.1f}",
                number(one["joules_per_output_token"], missing="–"),
                f"{one['wind_used_kilowatt_hours'] / wind:.1%}" if wind else "–",
                f"{one['wind_curtailed_kilowatt_hours']:.0f}",
            ]
        )
    return markdown(HEAD, lines)


def _claim(results: dict[str, Any]) -> str:
    """The successor's best claim: P99 E2E against the strongest baseline."""
    least = _completion(results)
    ours = at_equal_completion(results["heron"]["power_short"]["e2e_sketch"], 0.99, least)
    others = {
        policy: at_equal_completion(results[policy]["power_short"]["e2e_sketch"], 0.99, least)
        for policy in BASELINES
    }
    best = min(others, key=lambda policy: others[policy])
    plain = at(results["heron"]["power_short"]["e2e_sketch"], 0.99)
    if not others[best] or math.isnan(ours):
        return "No minute was short of power."
    return (
        f"P99 E2E of heron at equal completion: {ours:.1f} s, {ours / others[best]:.2f} × that of the "
        f"strongest baseline ({best}, {others[best]:.1f} s); the goal is 0.48 ×. With shed and broken "
        f"requests as infinite: {'∞' if math.isinf(plain) else f'{plain:.1f} s'}."
    )
