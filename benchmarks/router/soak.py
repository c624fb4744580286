"""Minutes of mixed load on one Heron router: does anything grow, is anything lost?

    .venv/bin/python -m benchmarks.router.soak --seconds 600

The load: answers in one piece, streams, streams that the client leaves, prompts of 1 MB, bodies that are no
JSON, models that there are not; and one request in a hundred meets a fault of its site (500, closed
connection, 503, an answer cut in its middle), which the router must mend.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from statistics import median

import uvloop

from benchmarks.router import arguments, measure
from benchmarks.router.heron import HERON, operations_port
from benchmarks.router.measure import MIB
from benchmarks.router.mixed_load import MixedLoad
from benchmarks.router.process import Process, run_command
from benchmarks.router.report import command_line, machine, today, write_json, write_section

WARM_UP_SECONDS = 60.0
"""By then the allocator has taken most of what such a load needs at once; the rest comes in ever rarer
steps."""
REST_SECONDS = 8.0
"""Longer than a pooled connection lives."""
SAMPLE_SECONDS = 5.0
FAULT_EVERY = 101
"""Odd, so that it does not keep step with the kinds of requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The router with nothing to do."""

    resident_mib: float
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One soak."""

    seconds: float
    before: Rest
    after: Rest
    first_third_mib: float
    """Median of the resident set in the first third of the time under load."""
    last_third_mib: float
    most_mib: float
    outcomes: dict[str, int]
    """`kind: how it ended`, as the clients saw it."""
    ledger: dict[str, int]
    cpu_ratio: float

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        ledger = self.ledger
        found = [f"{count} × {name}" for name, count in self.outcomes.items() if name.endswith("WRONG")]
        if ledger["in_flight"]:
            found.append(f"{ledger['in_flight']} requests still in flight at rest")
        if ledger["lost"]:
            found.append(f"{ledger['lost']} requests lost by the ledger")
        return found


def main() -> int:
    """Exit 0 when nothing was lost or wrong."""
    parser = arguments.parser("benchmarks.router.soak", __doc__, seconds=600.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    setting = arguments.setting(options)
    with (
        measure.upstream(setting, fault_every=FAULT_EVERY) as ports,
        measure.proxy(HERON, setting, ports) as (process, place),
    ):
        load = MixedLoad(place.port, clients=options.clients, rng=random.Random(options.seed))
        result = uvloop.run(_soak(load, process, operations_port(place), options.seconds))
    text = _section(result)
    print(f"\n{text}")
    if not options.dry:
        document = {"date": today(), "machine": machine(), "command": command_line(), "seed": options.seed}
        write_json({"soak": {**document, **asdict(result), "faults": result.faults}})
        write_section("soak", text)
    return 1 if result.faults else 0


async def _soak(load: MixedLoad, process: Process, port: int, seconds: float) -> Result:
    await load.run(WARM_UP_SECONDS)
    before = await _rest(process)
    warm_up = _ledger(port)
    load.outcomes.clear()
    samples: list[float] = []
    cpu, began = process.clocks().cpu_seconds, time.monotonic()
    sampler = asyncio.create_task(_sample(process, samples, load.outcomes))
    await load.run(seconds)
    sampler.cancel()
    lasted = time.monotonic() - began
    cpu = process.clocks().cpu_seconds - cpu
    after = await _rest(process)
    ledger = {name: count - warm_up[name] for name, count in _ledger(port).items()}
    third = max(1, len(samples) // 3)
    return Result(
        seconds=lasted,
        before=before,
        after=after,
        first_third_mib=median(samples[:third]),
        last_third_mib=median(samples[-third:]),
        most_mib=max(samples),
        outcomes=dict(sorted(load.outcomes.items())),
        ledger=ledger,
        cpu_ratio=cpu / lasted,
    )


async def _sample(process: Process, samples: list[float], outcomes: Counter[str]) -> None:
    while True:
        samples.append(process.resident_bytes() / MIB)
        print(f"{sum(outcomes.values()):,} requests, {samples[-1]:.1f} MiB, {process.open_files()} files")
        sys.stdout.flush()
        await asyncio.sleep(SAMPLE_SECONDS)


async def _rest(process: Process) -> Rest:
    await asyncio.sleep(REST_SECONDS)
    return Rest(resident_mib=process.resident_bytes() / MIB, open_files=process.open_files())


def _ledger(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/heron/v1/ledger", timeout=10) as answer:
        totals: dict[str, int] = json.load(answer)
        return totals


def _growth(name: str, before: float, after: float, digits: int = 1) -> str:
    return f"| {name} | {before:.{digits}f} | {after:.{digits}f} | {after - before:+.{digits}f} |"


def _section(result: Result) -> str:
    before, after = result.before, result.after
    requests = sum(result.outcomes.values())
    ledger = ", ".join(f"{name} {count:,}" for name, count in result.ledger.items())
    thirds = result.first_third_mib, result.last_third_mib
    lines = [
        "## Soak",
        "",
        f"`{command_line()}`, {today()}, on {machine()}.",
        "",
        "| | before | after | growth |",
        "|---|---|---|---|",
        _growth("resident at rest, MiB", before.resident_mib, after.resident_mib),
        _growth("resident under load, first and last third of the time, MiB", *thirds),
        _growth("open files at rest", before.open_files, after.open_files, 0),
        "",
        f"{result.seconds:.0f} s, {requests:,} requests ({requests / result.seconds:.0f}/s),",
        f"{result.cpu_ratio:.0%} of the router's core; most memory {result.most_mib:.1f} MiB.",
        f"*Before* is after {WARM_UP_SECONDS:g} s of the same load and a rest of {REST_SECONDS:g} s.",
        "",
        "| how requests ended, as the clients saw it | |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in result.outcomes.items()),
        "",
        f"The router's ledger over the same time: {ledger}.",
        "",
        f"Faults: {'; '.join(result.faults) or 'none'}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
