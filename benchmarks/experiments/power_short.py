"""Experiment 2: the minutes in which some site lacks power for its share of the load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.experiments.figures import (
    at_equal_completion,
    markdown,
    mean_of,
    number,
    ratio_of,
    total,
)
from benchmarks.experiments.setting import BASELINES, OURS, POLICIES, Runs, Setting, Week, write
from simulator import plots
from simulator.estimates import Estimate, estimate
from simulator.quantiles import at

PART = "power_short"
GOAL_RATIO = 0.48
"""Our P99 E2E ÷ the strongest baseline's: the successor's best claim."""
RIVALS = ("planned", "reactive")
HEAD = (
    *(
        "policy",
        "attained",
        "`heron` less it",
        "shed",
        "broken",
        "resumed",
        "TTFT p50",
        "p99",
        "E2E p50",
        "p99",
    ),
    *("E2E p99 at equal completion", "over cap s", "J/token", "wind used", "curtailed kWh"),
)
Name = tuple[str, float, str, bool]
"""Week, load, policy, with trips."""


Seeds = dict[str, list[float]]
"""A time of each policy, seed by seed; NaN: no request came."""


@dataclass(frozen=True, slots=True)
class Times:
    """P99 E2E of each policy at one week and load; infinite where one in a hundred was refused."""

    plain: Seeds
    equal: Seeds
    """Of each policy's best requests, as many as the one that served fewest completed."""

    @property
    def is_finite(self) -> bool:
        """Ours and the strongest baseline's."""
        best = strongest(self.plain)
        return math.isfinite(mean(self.plain, OURS)) and math.isfinite(mean(self.plain, best))


def mean(times: Seeds, policy: str) -> float:
    """Over seeds; infinite where any seed's is."""
    return estimate(times[policy]).mean


def strongest(times: Seeds) -> str:
    """The baseline with the least; of several alike the first."""
    return min(BASELINES, key=lambda policy: mean(times, policy))


def ratio(times: Seeds) -> Estimate:
    """Ours ÷ the strongest baseline's, of the same requests."""
    return ratio_of(times[OURS], times[strongest(times)])


def run(setting: Setting) -> None:
    """The paper table's cells at every load; with trips a far and a near week at the highest."""
    places = [(week, *one) for week in setting.weeks for one in _variants(setting, week)]
    runs = Runs(
        setting,
        {
            (week[1], load, policy, has_trips): setting.cell(
                week, policy, load, 1, trips_per_day=setting.trips_per_day if has_trips else 0.0
            )
            for week, load, has_trips in places
            for policy in POLICIES
        },
    )
    text = ["# Power-short minutes", "", _said(setting), ""]
    figures: dict[str, str] = {}
    times: dict[tuple[str, float, bool], Times] = {}
    for (_, week), load, has_trips in places:
        one = (week, load, has_trips)
        times[one] = _times(runs, *one)
        title = f"{week}, load {load:g}" + (", with trips" if has_trips else "")
        text += [f"## {title}", "", _table(runs, times[one], *one), ""]
        sketches = {
            policy: runs.of((week, load, policy, has_trips))[0][PART]["e2e_sketch"] for policy in POLICIES
        }
        if all(sketches.values()):
            stem = f"{week}-{load:g}" + ("-trips" if has_trips else "")
            figures[stem] = plots.distributions(
                sketches, title=f"{title}: E2E in power-short minutes", x="seconds"
            )
    claims = _claims(times)
    goals = "\n".join(_goal(setting, wind.is_far, week, times) for wind, week in setting.weeks)
    text += ["## P99 of E2E", "", claims, "", goals]
    write(
        setting,
        "power_short",
        text="\n".join(text),
        summary="\n".join([_said(setting), "", _short_table(setting, runs, times), "", claims, "", goals]),
        plots=figures,
        rows=[
            row
            for (_, week), load, has_trips in places
            for policy in POLICIES
            for row in runs.rows(
                (week, load, policy, has_trips), week=week, load=load, policy=policy, trips=has_trips
            )
        ],
    )


def _variants(setting: Setting, week: Week) -> list[tuple[float, bool]]:
    """Loads, and whether with trips."""
    has_trips = setting.trips_per_day > 0 and week in setting.far_and_near
    trips = [(setting.loads[-1], True)] if has_trips else []
    return [(load, False) for load in setting.loads] + trips


def _said(setting: Setting) -> str:
    return (
        f"{setting.said()} Times in seconds, watts and wind of these minutes alone; shed and broken requests "
        "count as infinite (∞), so a P99 is ∞ once one in a hundred was refused. *At equal completion*: the "
        "quantile of each policy's best requests, as many as the policy that served fewest completed. *With "
        f"trips*: {setting.trips_per_day:g} sudden falls a day at each farm (`simulator/trips.py`). *Over "
        "cap*: beyond the ride-through of 5 s, in counted minutes. Counts are sums over seeds, other figures "
        "means; intervals of times and their ratios are over seeds, where there are several."
    )


def _times(runs: Runs, week: str, load: float, has_trips: bool) -> Times:
    every = {policy: runs.of((week, load, policy, has_trips)) for policy in POLICIES}
    plain, equal = {}, {}
    least = [
        min(every[policy][seed][PART]["served_ratio"] or 0.0 for policy in POLICIES)
        for seed in range(len(every[OURS]))
    ]
    for policy, results in every.items():
        sketches = [one[PART]["e2e_sketch"] for one in results]
        plain[policy] = [at(sketch, 0.99) for sketch in sketches]
        equal[policy] = [
            at_equal_completion(sketch, 0.99, part) for sketch, part in zip(sketches, least, strict=True)
        ]
    return Times(plain=plain, equal=equal)


def _table(runs: Runs, times: Times, week: str, load: float, has_trips: bool) -> str:
    lines = []
    ours = (week, load, OURS, has_trips)
    for policy in POLICIES:
        name = (week, load, policy, has_trips)
        results = runs.of(name)
        lines.append(
            [
                f"`{policy}`",
                runs.share(name, PART).text(),
                "" if policy == OURS else runs.lead(ours, name, PART).text("{:+.1%}"),
                *(f"{total(results, PART, key):,}" for key in ("shed", "broken", "resumed")),
                *(number(_quantile(results, "ttft_seconds", key)) for key in ("p50", "p99")),
                *(number(_quantile(results, "e2e_seconds", key), "{:.1f}") for key in ("p50", "p99")),
                number(mean(times.equal, policy), "{:.1f}"),
                f"{sum(one[PART]['cap_exceeded_seconds'] for one in results):.1f}",
                *_energy(runs, name),
            ]
        )
    return markdown(HEAD, lines)


def _quantile(results: list[dict[str, Any]], kind: str, name: str) -> float:
    found = [one[PART][kind][name] for one in results if one[PART]["offered"]]
    return mean_of(found) if found else math.nan


def _energy(runs: Runs, name: Name) -> list[str]:
    available = sum(runs.values(name, "wind_available_kilowatt_hours", PART))
    used = sum(runs.values(name, "wind_used_kilowatt_hours", PART))
    joules = estimate(runs.values(name, "joules_per_output_token", PART)).mean
    curtailed = estimate(runs.values(name, "wind_curtailed_kilowatt_hours", PART)).mean
    return [
        number(joules),
        f"{used / available:.1%}" if available else "–",
        f"{curtailed:.0f}",
    ]


def _claims(times: dict[tuple[str, float, bool], Times]) -> str:
    """P99 E2E of heron against the strongest baseline, both ways, at every load."""
    rows = []
    for (week, load, has_trips), one in times.items():
        row = [week, f"{load:g}" + (", trips" if has_trips else "")]
        for kind in (one.plain, one.equal):
            row += [
                number(mean(kind, OURS), "{:.1f}"),
                _strongest_text(kind),
                ratio_text(kind),
                *(number(mean(kind, rival), "{:.1f}") for rival in RIVALS),
            ]
        rows.append(row)
    columns = ("`heron`", "strongest baseline", "ratio", *(f"`{rival}`" for rival in RIVALS))
    head = ["week", "load", f"plain: {columns[0]}", *columns[1:], f"at equal completion: {columns[0]}"]
    return markdown([*head, *columns[1:]], rows)


def _strongest_text(times: Seeds) -> str:
    best = mean(times, strongest(times))
    alike = [policy for policy in BASELINES if mean(times, policy) == best]
    name = "all" if len(alike) == len(BASELINES) else ", ".join(f"`{policy}`" for policy in alike)
    return number(best, "{:.1f}") + (f" ({name})" if name else "")


def ratio_text(times: Seeds) -> str:
    """`0.48 × ± 0.05`; a dash where neither has an end."""
    ours, theirs = mean(times, OURS), mean(times, strongest(times))
    if math.isnan(ours) or math.isnan(theirs) or math.isinf(theirs) or not theirs:
        return "–"
    return "∞" if math.isinf(ours) else ratio(times).text("{:.2f} ×")


def _goal(setting: Setting, is_far: bool, week: str, times: dict[tuple[str, float, bool], Times]) -> str:
    """The goal's own load, and what it says of it."""
    at_loads = {load: times[week, load, False] for load in setting.loads}
    finite = [load for load, one in at_loads.items() if one.is_finite]
    said = [f"* **{week}** ({'far' if is_far else 'near: shown, no goal'}):"]
    if all(math.isnan(mean(one.plain, OURS)) for one in at_loads.values()):
        return f"{said[0]} no minute was short of power."
    if finite:
        load, one = finite[-1], at_loads[finite[-1]]
        kinds = (one.plain, one.equal)
        is_met = all(ratio(kind).mean <= GOAL_RATIO for kind in kinds)
        is_sure = all(ratio(kind).is_sure(GOAL_RATIO) for kind in kinds)
        state = _met(is_met) + ("" if is_sure else " by the mean, not surely")
        said.append(
            f"highest load at which both are finite {load:g}: {ratio_text(one.plain)} plain, "
            f"{ratio_text(one.equal)} at equal completion; goal {GOAL_RATIO} ×"
            + (f": {state}." if is_far else ".")
        )
    else:
        highest = at_loads[setting.loads[-1]]
        said.append(
            "at no load that was run are both finite, so the goal's own load is none of them; at equal "
            f"completion at load {setting.loads[-1]:g} {ratio_text(highest.equal)}; goal {GOAL_RATIO} ×"
            + (": **missed**." if is_far else ".")
        )
    worse = [
        f"{load:g} ({kind}, `{rival}`)"
        for load, one in at_loads.items()
        for kind, found in (("plain", one.plain), ("equal completion", one.equal))
        for rival in RIVALS
        if mean(found, OURS) > mean(found, rival)
    ]
    state = f"**missed** at {', '.join(worse)}" if worse else "met"
    said.append(f"Never worse than `planned` or `reactive`: {state}.")
    return " ".join(said)


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _short_table(setting: Setting, runs: Runs, times: dict[tuple[str, float, bool], Times]) -> str:
    """What docs/results.md shows: the highest load, without trips, all weeks side by side."""
    load = setting.loads[-1]
    head = ["policy"]
    rows = [[f"`{policy}`"] for policy in POLICIES]
    for _, week in setting.weeks:
        head += [f"{week}, load {load:g}: attained", "shed", "E2E p50", "p99", "p99 at equal completion"]
        for row, policy in zip(rows, POLICIES, strict=True):
            name = (week, load, policy, False)
            results = runs.of(name)
            row += [
                runs.share(name, PART).text(),
                f"{total(results, PART, 'shed'):,}",
                *(number(_quantile(results, "e2e_seconds", key), "{:.1f}") for key in ("p50", "p99")),
                number(mean(times[week, load, False].equal, policy), "{:.1f}"),
            ]
    return markdown(head, rows)
