"""µs of processor time per decision and per snapshot update:

.venv/bin/python -m benchmarks.decision [--out benchmarks/decision/results.json] [--rounds 7]

*steady*: many requests between two reports. *all new*: before each decision every site has a newer report and
reading, so that nothing which a policy worked out before is of use: the dearest case. Each figure is the best
of the rounds: other processes only ever add time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.decision.fleet import FEATURES, MODEL, BenchFleet
from fleet.records import SiteReport
from router.policy.dispatch import choose
from router.policy.output_length import OutputLengths
from router.policy.policies import POLICIES, make_policy

SITES = (5, 100, 1000)
DECISION_BARS = {5: 15.0, 100: 60.0, 1000: 200.0}
UPDATE_BAR = 50.0
DECISIONS = {5: 4000, 100: 600, 1000: 600}
NEW_DECISIONS = {5: 400, 100: 40, 1000: 8}
UPDATES = 1000


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
        made.observe(MODEL, "tenant", 256, number % 300)

    def both(number: int) -> None:
        made.observe(MODEL, "tenant", 256, number % 300)
        made.expect(MODEL, "tenant", 256)

    learn = least_microseconds(rounds, 20_000, observe)
    return {"observe": learn, "expect": least_microseconds(rounds, 20_000, both) - learn}


def main() -> int:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--rounds", type=int, default=7, help="the best of so many (default: 7)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "decisions": {},
        "updates": {},
        "lengths": lengths(options.rounds),
    }
    for name in POLICIES:
        result["decisions"][name] = {}
    for count in SITES:
        for name in POLICIES:
            steady, new = decision(BenchFleet(count), name, options.rounds)
            result["decisions"][name][count] = {"steady": steady, "all_new": new}
        result["updates"][count] = updates(BenchFleet(count), options.rounds)
    sys.stdout.write(table(result))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def table(result: dict[str, Any]) -> str:
    """As Markdown."""
    head = " | ".join(f"{count} sites: steady, all new" for count in SITES)
    lines = [f"| µs per decision | {head} |", "|---" * (len(SITES) + 1) + "|"]
    for name, figures in result["decisions"].items():
        cells = (f"{figures[count]['steady']:.1f}, {figures[count]['all_new']:.1f}" for count in SITES)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
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
