"""A whole fleet of real processes under many random faults at once: does what Heron promises still hold?

    .venv/bin/python -m benchmarks.chaos --seconds 300 --seed 1

Two routers (one with two workers), a feed, three sites with emulated engines and a Redis, on loopback; every
kind of request, each answer checked word by word; faults from a seeded schedule, several at a time. Exit 0
where nothing was found. Logs stay in --keep, or for a run that found something in a directory that is named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import uvloop

from benchmarks.chaos.fleet import LEVELS, FleetError
from benchmarks.chaos.report import document, request_lines, section, write
from benchmarks.chaos.run import Setting, run
from benchmarks.chaos.schedule import make_schedule


def main() -> int:
    """Exit 0: nothing found; 1: violations; 2: it could not be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults (default 300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="a fault begins (default 1)"
    )
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--kinds", default="", metavar="A,B", help="only faults whose names begin so")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave logs and results there")
    parser.add_argument("--show", action="store_true", help="print the schedule, and run nothing")
    parser.add_argument(
        "--record", action="store_true", help="put the result into RESULTS.md and results.json"
    )
    options = parser.parse_args()
    schedule = make_schedule(
        seed=options.seed,
        seconds=options.seconds,
        every_seconds=options.every,
        levels=LEVELS,
        kinds=[kind for kind in options.kinds.split(",") if kind],
    )
    if options.show:
        print("\n".join(fault.describe() for fault in schedule.faults))
        return 0
    directory = (
        Path(tempfile.mkdtemp(prefix="heron-chaos-")) if options.keep is None else options.keep.resolve()
    )
    try:
        result = uvloop.run(run(schedule, directory, Setting(clients=options.clients)))
    except FleetError as error:
        print(f"the fleet could not be run: {error}; logs: {directory}", file=sys.stderr)
        return 2
    text = section(result)
    print(text)
    values = document(result)
    (directory / "result.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    (directory / "faults.txt").write_text("\n".join(result.log) + "\n")
    with (directory / "requests.jsonl").open("w") as requests:
        requests.writelines(json.dumps(line) + "\n" for line in request_lines(result))
    incidents = [asdict(one) for one in result.incidents]
    (directory / "incidents.json").write_text(json.dumps(incidents, indent=1) + "\n")
    if options.record:
        write(text, values)
    if result.violations or options.keep is not None:
        print(f"logs, schedule and result: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
