"""A run as a table, as JSON, and as a section of RESULTS.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.run import Result
from benchmarks.chaos.schedule import KINDS
from benchmarks.router.report import command_line, machine, today
from benchmarks.router.table import with_section

HERE = Path(__file__).parent
SHOWN_CHARACTERS = 1500
SITES_HEAD = (
    "| site | above the cap, s | beyond the ride-through, s | of it below idle, s | episodes "
    "| without any reading, s |"
)


def _by_group(counts: Counter[str]) -> Counter[str]:
    groups: Counter[str] = Counter()
    for name, count in counts.items():
        groups[KINDS[name].group] += count
    return groups


def _recovery_seconds(result: Result) -> float:
    return max(result.recovery.values(), default=0.0)


def section(result: Result) -> str:
    """For people."""
    schedule = result.schedule
    outcomes: Counter[str] = Counter()
    for name, count in result.outcomes.items():
        outcomes[name.partition(": ")[2]] += count
    requests = sum(outcomes.values())
    lines = [
        f"## Seed {schedule.seed}, {schedule.seconds:g} s",
        "",
        f"`{command_line()}`, {today()}, on {machine()}.",
        "",
        "| faults | done | not done: nothing to do it to |",
        "|---|---|---|",
        *(
            f"| {name} | {result.done[name]} | {result.not_done[name]} |"
            for name in KINDS
            if result.done[name] + result.not_done[name]
        ),
        f"| all | {result.done.total()} | {result.not_done.total()} |",
        "",
        f"{requests:,} requests; how they ended, as the clients saw it:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in outcomes.most_common()),
        *(f"| of these excused: {name} | {count:,} |" for name, count in sorted(result.excused.items())),
        "",
        SITES_HEAD,
        "|---|---|---|---|---|---|",
        *(
            f"| {one.site_id} | {one.power.above_cap_seconds:.1f} | {one.power.cap_exceeded_seconds:.2f} "
            f"| {one.power.below_idle_seconds:.2f} | {one.power.episodes} | {one.blind_seconds:.0f} |"
            for one in result.sites
        ),
        "",
        f"Well again {_recovery_seconds(result):.1f} s after the last fault"
        + "".join(f"; last, {name}" for name in list(result.recovery)[-1:])
        + f". Then {result.calm_requests} requests of all kinds.",
        f"The harness's own loop was late by {result.lag_seconds:.2f} s at most.",
        "Ledgers of the routers' last lives: "
        + "; ".join(
            f"{name}: "
            + ", ".join(
                f"{key} {value:,}" for key, value in ledger.items() if value or key in ("lost", "in_flight")
            )
            for name, ledger in result.ledgers.items()
        )
        + ".",
        "",
        "| lived through it | open files before, after | MiB before, after |",
        "|---|---|---|",
        *(
            f"| {name} | {was.open_files}, {now.open_files} "
            f"| {was.resident_mib:.0f}, {now.resident_mib:.0f} |"
            for name, was, now in result.footprints
        ),
        "",
        f"Violations: {len(result.violations) or 'none'}.",
        *(f"- {violation[:SHOWN_CHARACTERS]}" for violation in result.violations),
    ]
    return "\n".join(lines)


def document(result: Result) -> dict[str, Any]:
    """For programs."""
    return {
        "date": today(),
        "machine": machine(),
        "command": command_line(),
        "seed": result.schedule.seed,
        "seconds": result.schedule.seconds,
        "faults": {
            name: {"done": result.done[name], "not_done": result.not_done[name]}
            for name in sorted({*result.done, *result.not_done})
        },
        "fault_groups": dict(_by_group(result.done)),
        "outcomes": dict(sorted(result.outcomes.items())),
        "excused": dict(sorted(result.excused.items())),
        "sites": {
            one.site_id: {**asdict(one.power), "blind_seconds": one.blind_seconds} for one in result.sites
        },
        "ledgers": result.ledgers,
        "recovery_seconds": _recovery_seconds(result),
        "recovery": result.recovery,
        "calm_requests": result.calm_requests,
        "lag_seconds": result.lag_seconds,
        "violations": result.violations,
        "began_at_unix_seconds": result.began_at,
    }


def request_lines(result: Result) -> Iterator[dict[str, Any]]:
    """Every request, for whoever looks for what happened to one."""
    for one in result.records:
        yield {
            "request_id": one.request_id,
            "kind": one.ask.kind,
            "router": one.router,
            "life": one.life,
            "began_seconds": round(one.began_at - result.began_at, 2),
            "ended_seconds": round(one.ended_at - result.began_at, 2),
            "heading": one.verdict.heading,
            "wrong": one.verdict.wrong,
        }


def write(text: str, values: dict[str, Any]) -> None:
    """Put it beside the others."""
    name = f"seed {values['seed']}"
    path = HERE / "RESULTS.md"
    path.write_text(with_section(path.read_text(), name, text))
    results = HERE / "results.json"
    before = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(json.dumps({**before, name: values}, indent=1, ensure_ascii=False) + "\n")
