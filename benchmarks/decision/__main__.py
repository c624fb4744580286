"""µs of processor time per decision and per snapshot update:

.venv/bin/python -m benchmarks.decision [--out benchmarks/decision/results.json] [--plot FILE] [--rounds 7]

*steady*: many requests between two reports. *all new*: before each decision every site has a newer report and
reading, so that nothing which a policy worked out before is of use: the dearest case. Each figure is the best
of the rounds: other processes only ever add time.

*promised*: steady, for requests with an SLO, which the default policy sorts out by (`router.policy.triage`),
as it does in production; they come at about half of what the sites sustain. *asked again*: one that waits
because no site is open to it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.decision.fleet import FEATURES, MODEL, BenchFleet
from fleet.records import SiteReport
from fleet.request import ClassSlo
from router.policy.dispatch import NotYet, choose
from router.policy.output_length import OutputLengths
from router.policy.policies import DEFAULT_POLICY, POLICIES, make_policy
from router.policy.snapshot import FRESH_SECONDS, ModelView
from simulator import plots

SITES = (5, 100, 1000)
DECISION_BARS = {5: 15.0, 100: 60.0, 1000: 200.0}
UPDATE_BAR = 50.0
DECISIONS = {5: 4000, 100: 600, 1000: 600}
NEW_DECISIONS = {5: 400, 100: 40, 1000: 8}
UPDATES = 1000
SLO = ClassSlo(ttft_seconds=2.0, e2e_seconds=20.0)
PROMISED_GAP_SECONDS = 1.5
"""Between two requests for one site."""
PROMISED_ROUNDS = 16
"""They are short: as long as a report is fresh."""
FULL_SECONDS = 50.0
"""Of work before every site."""


def least_microseconds(rounds: int, count: int, run: Callable[[int], None]) -> float:
    """Of `run(0)` … `run(count - 1)`, per call, in the best of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for number in range(count):
            run(number)
        best = min(best, (time.process_time() - started) / count)
    return best * 1e6


def decision(fleet: BenchFleet, name: str, rounds: int) -> tuple[float, float]:
    """One policy at one size: steady, and with everything new each time."""
    policy = make_policy(name)
    snapshots = [fleet.snapshot]

    def decide(number: int) -> None:
        snapshot = snapshots[number % len(snapshots)]
        choose(
            snapshot.models[MODEL],
            fleet.loads,
            policy=policy,
            features=FEATURES,
            excluded={},
            is_resume=False,
            reserve_ratio=0.1,
            turn=number,
            now=101.0,
            rng=fleet.rng,
            context=snapshot,
        )

    steady = least_microseconds(rounds, DECISIONS[len(fleet.names)], decide)
    for _ in range(2):
        for site_id in fleet.names:
            fleet.take_report(fleet.report(site_id), 100.0)
            fleet.take_power(fleet.reading(site_id), 100.0)
        snapshots.append(fleet.snapshot)
    return steady, least_microseconds(rounds, NEW_DECISIONS[len(fleet.names)], decide)


def promised(count: int, rounds: int) -> dict[str, float]:
    """The default policy's decision for a request with an SLO, the share of them that were placed, and the
    answer to one that waits."""
    fleet, policy = BenchFleet(count), make_policy(DEFAULT_POLICY)
    for load in fleet.loads.values():
        load.round_trip_seconds = 0.02
    features = FEATURES._replace(slo=SLO)
    now, gap = 101.0, PROMISED_GAP_SECONDS / count
    found: list[float] = []

    def decide(number: int, *, is_patient: bool = False) -> ModelView | NotYet | None:
        return choose(
            fleet.snapshot.models[MODEL],
            fleet.loads,
            policy=policy,
            features=features,
            excluded={},
            is_resume=False,
            reserve_ratio=0.1,
            turn=number,
            now=now,
            rng=fleet.rng,
            context=fleet.snapshot,
            is_patient=is_patient,
        )

    decisions = min(DECISIONS[count], int(FRESH_SECONDS / gap))
    placed = 0
    for _ in range(PROMISED_ROUNDS * rounds):
        now += 100.0  # all work is done by then
        for site_id in fleet.names:
            fleet.take_report(fleet.report(site_id), now)
            fleet.take_power(fleet.reading(site_id), now)
        decide(0)  # what is worked out once per report
        started = time.process_time()
        for number in range(decisions):
            placed += isinstance(decide(number), ModelView)
            now += gap
        found.append((time.process_time() - started) / decisions)
    for load in fleet.loads.values():
        load.give_work(FULL_SECONDS, now, FULL_SECONDS)
    decide(0)

    def ask_again(number: int) -> None:
        decide(number, is_patient=True)

    again = least_microseconds(rounds, 1000, ask_again)
    return {
        "promised": min(found) * 1e6,
        "placed_ratio": placed / (decisions * len(found)),
        "asked_again": again,
    }


def updates(fleet: BenchFleet, rounds: int) -> dict[str, float]:
    """A report and a reading, and what it costs to parse the report before."""
    names = fleet.names
    raw = [fleet.raw_report(names[number % len(names)]) for number in range(UPDATES)]
    reports = [SiteReport.from_json(one) for one in raw]
    readings = [fleet.reading(names[number % len(names)]) for number in range(UPDATES)]

    def report(number: int) -> None:
        fleet.take_report(reports[number], 100.0)

    def reading(number: int) -> None:
        fleet.take_power(readings[number], 100.0)

    def parse(number: int) -> None:
        SiteReport.from_json(raw[number])

    return {run.__name__: least_microseconds(rounds, UPDATES, run) for run in (report, reading, parse)}


def lengths(rounds: int) -> dict[str, float]:
    """Learning from one answer, and asking for one request."""
    made = OutputLengths()

    def observe(number: int) -> None:
        made.observe(MODEL, "tenant", 256, 1000, number % 300)

    def both(number: int) -> None:
        made.observe(MODEL, "tenant", 256, 1000, number % 300)
        made.expect(MODEL, "tenant", 256, 1000)

    learn = least_microseconds(rounds, 20_000, observe)
    return {"observe": learn, "expect": least_microseconds(rounds, 20_000, both) - learn}


def main() -> int:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them as SVG")
    parser.add_argument("--rounds", type=int, default=7, help="the best of so many (default: 7)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "decisions": {},
        "promised": {},
        "updates": {},
        "lengths": lengths(options.rounds),
    }
    for name in POLICIES:
        result["decisions"][name] = {}
    for count in SITES:
        for name in POLICIES:
            steady, new = decision(BenchFleet(count), name, options.rounds)
            result["decisions"][name][count] = {"steady": steady, "all_new": new}
        result["promised"][count] = promised(count, options.rounds)
        result["updates"][count] = updates(BenchFleet(count), options.rounds)
    sys.stdout.write(table(result))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot is not None:
        options.plot.write_text(drawn(result))
    return 0


def drawn(result: Mapping[str, Any]) -> str:
    """Steady decisions by sites, a line for each policy, and what a report's update costs."""
    points = {
        name: [(float(count), figures[count]["steady"]) for count in figures]
        for name, figures in result["decisions"].items()
    }
    points[f"{DEFAULT_POLICY}, with an SLO"] = [
        (float(count), figures["promised"]) for count, figures in result["promised"].items()
    ]
    points["a report's update"] = [
        (float(count), figures["report"]) for count, figures in result["updates"].items()
    ]
    return plots.lines(points, title="Decisions, steady", x="sites", y="CPU µs", log_x=True)


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    head = " | ".join(f"{count} sites: steady, all new" for count in SITES)
    lines = [f"| µs per decision | {head} |", "|---" * (len(SITES) + 1) + "|"]
    for name, figures in result["decisions"].items():
        cells = (f"{figures[count]['steady']:.1f}, {figures[count]['all_new']:.1f}" for count in SITES)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    for name, key in (("with an SLO", "promised"), ("asked again", "asked_again")):
        cells = (f"{result['promised'][count][key]:.1f}" for count in SITES)
        lines.append(f"| `{DEFAULT_POLICY}`, {name} | {' | '.join(cells)} |")
    lines.append(f"| bar | {' | '.join(f'{DECISION_BARS[count]:g}' for count in SITES)} |")
    head = " | ".join(f"{count} sites" for count in SITES)
    lines += ["", f"| µs per update | {head} | bar |", "|---" * (len(SITES) + 2) + "|"]
    for name, bar in (("report", f"{UPDATE_BAR:g}"), ("reading", f"{UPDATE_BAR:g}"), ("parse", "")):
        cells = (f"{result['updates'][count][name]:.1f}" for count in SITES)
        lines.append(f"| {name} | {' | '.join(cells)} | {bar} |")
    learnt = result["lengths"]
    told = f"{learnt['observe']:.2f} µs per answer, {learnt['expect']:.2f} per request"
    lines += ["", f"Output lengths: {told}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
