"""`python -m benchmarks.governor year|speed|live`: see RESULTS.md.

python -m benchmarks.governor year --wind ../shared/data/wind/fts213_Wind_data.csv --days 100:103
python -m benchmarks.governor year --wind FILE --days 365 --workers 2 --keep days.jsonl --json out.json
python -m benchmarks.governor speed
python -m benchmarks.governor live --steps 100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.governor import speed
from benchmarks.governor.year import (
    DAY_SECONDS,
    START_SECONDS,
    DayResult,
    nameplate_watts,
    reference_model,
    run_day,
)
from fleet.parent import die_with_parent
from power_feed.wind_files import read_wind_file
from simulator.code_state import files_state
from simulator.wind import Turbulence
from site_agent.controls import DEFAULT_CONTROL, SITE_CONTROLS
from site_agent.situation import GovernorRule


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.governor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    year = kinds.add_parser("year", help="the pure governor on real wind")
    year.add_argument("--wind", type=Path, required=True, help="a wind file (FTS-213, RTS-GMLC, plain CSV)")
    year.add_argument("--site", help="its column; default: every site of the file")
    year.add_argument("--days", default="100:103", help="FIRST:LAST (not included), or a number from day 0")
    year.add_argument("--percentile", type=float, default=40.0, help="of power that the server is sized to")
    year.add_argument("--trips-per-day", type=float, default=3.0)
    year.add_argument("--turbulence", type=float, default=0.03, help="its standard deviation ÷ the power")
    year.add_argument("--further-fall-ratio", type=float, default=GovernorRule().further_fall_ratio)
    year.add_argument("--control", choices=sorted(SITE_CONTROLS), default=DEFAULT_CONTROL)
    year.add_argument("--seed", default="0")
    year.add_argument("--json", type=Path)
    year.add_argument("--in-turn", action="store_true", help="one site each day, in turn, not every site")
    year.add_argument("--workers", type=int, default=1, help="processes")
    year.add_argument("--keep", type=Path, help="finished days, one JSON line each: a broken run goes on")
    kinds.add_parser("speed", help="microseconds per decision")
    live = kinds.add_parser("live", help="a real agent over emulated engines: steps to 20 %% of power")
    live.add_argument("--steps", type=int, default=5)
    live.add_argument("--drain-seconds", type=float, help="left out: 0.1; the ladder's default is 1.5")
    live.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.kind == "speed":
        speed.print_table()
        return 0
    if options.kind == "live":
        return _live(options)
    return _year(options)


def _live(options: argparse.Namespace) -> int:
    from benchmarks.governor.live import DRAIN_SECONDS, run_live  # of no year, nor of its `code`

    drain_seconds = DRAIN_SECONDS if options.drain_seconds is None else options.drain_seconds
    found = asyncio.run(run_live(options.steps, drain_seconds))
    _keep(options.json, found)
    return 0 if found["exceeded_seconds"] == 0 else 1


def _year(options: argparse.Namespace) -> int:
    wind = read_wind_file(options.wind)
    first, _, last = options.days.rpartition(":")
    days = range(int(first or 0), int(last))
    sites = [options.site] if options.site else list(wind.sites)
    chosen = ("percentile", "trips_per_day", "turbulence", "further_fall_ratio", "control", "seed")
    circumstances = {name: getattr(options, name) for name in chosen} | {
        "wind": files_state([options.wind]),
        "code": loaded_state(),
    }
    tasks = [
        (site, day)
        for number, site in enumerate(sites)
        for day in days
        if not options.in_turn or day % len(sites) == number
    ]
    kept = _kept_days(options.keep, circumstances)
    done = {task: kept[task] for task in tasks if task in kept}
    left = [task for task in tasks if task not in done]
    print(f"{wind.name}, days {days.start}:{days.stop}, {options.control}, seed {options.seed}")
    began = time.perf_counter()
    with ProcessPoolExecutor(options.workers, initializer=_begin, initargs=(options, os.getpid())) as pool:
        for task, result in zip(left, pool.map(_run, left), strict=True):
            done[task] = result
            if options.keep is not None:
                line = {"of": circumstances, "site": task[0], "day": task[1], "result": asdict(result)}
                with options.keep.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            if sys.stderr.isatty():
                print(f"\r{len(done)} of {len(tasks)} days", end="", file=sys.stderr, flush=True)
    print(f"\r{'site':<12} {'days':>4} {'exceeded s':>10} {'idle s':>6} {'energy':>7} {'ideal':>7}", end="")
    print(f" {'episodes':>8} {'trips':>6} {'starts/h':>8} {'clocks/h':>8}")
    rows: dict[str, dict[str, object]] = {}
    whole = DayResult()
    for site in sites:
        total = DayResult()
        for task, result in done.items():
            if task[0] == site:
                total.add(result)
        _print_row(site, total)
        rows[site] = asdict(total) | {"energy_ratio": total.energy_ratio, "ideal_ratio": total.ideal_ratio}
        whole.add(total)
    _print_row("all", whole)
    if left:
        print(f"{time.perf_counter() - began:.0f} s for {len(left)} days in {options.workers} processes")
    _keep(options.json, {"options": {k: str(v) for k, v in vars(options).items()}, "sites": rows})
    return 0 if whole.exceeded_seconds == 0 else 1


_worker: dict[str, Any] = {}
"""Of a worker process: the options, and the wind that they name."""


def _begin(options: argparse.Namespace, parent_pid: int) -> None:
    if sys.platform == "linux" and not die_with_parent(parent_pid):
        sys.exit(1)
    _worker.update(options=options, wind=read_wind_file(options.wind))


def _run(task: tuple[str, int]) -> DayResult:
    """One site's day."""
    site, day = task
    options, wind = _worker["options"], _worker["wind"]
    model, samples = reference_model(), list(wind.ratios[site])
    return run_day(
        model,
        samples,
        period_seconds=wind.period_seconds,
        start_seconds=float(day * DAY_SECONDS),
        seconds=DAY_SECONDS,
        nameplate=nameplate_watts(model, samples, options.percentile),
        rule=GovernorRule(start_seconds=START_SECONDS, further_fall_ratio=options.further_fall_ratio),
        trips_per_day=options.trips_per_day,
        turbulence=Turbulence(intensity_ratio=options.turbulence),
        seed=f"{options.seed}/{site}/{day}",
        control=options.control,
    )


def loaded_state() -> str:
    """Of all sources of this project that are loaded: they can change a result."""
    root = Path(__file__).resolve().parents[2]
    own = [root / name for name in ("benchmarks", "fleet", "power_feed", "replay", "simulator", "site_agent")]
    loaded = [found for one in list(sys.modules.values()) if (found := getattr(one, "__file__", None))]
    files = {source_of(Path(found)) for found in loaded}
    return files_state(sorted(path for path in files if set(own) & set(path.parents)))


def source_of(loaded: Path) -> Path:
    """Of a compiled module the source beside it, which it was made of; any other file itself.

    So the digest is the same for the same sources, compiled or not, and never that of a newer working tree.
    """
    return loaded.with_name(loaded.name.partition(".")[0] + ".py") if loaded.suffix == ".so" else loaded


def _kept_days(path: Path | None, circumstances: dict[str, object]) -> dict[tuple[str, int], DayResult]:
    """What was run before in these circumstances."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (one["site"], one["day"]): DayResult(**one["result"]) for one in lines if one["of"] == circumstances
    }


def _print_row(name: str, one: DayResult) -> None:
    hours = max(one.seconds, 1) / 3600
    print(
        f"{name:<12} {one.seconds // DAY_SECONDS:>4} {one.exceeded_seconds:>10.2f} "
        f"{one.below_idle_seconds:>6.1f} {one.energy_ratio:>7.4f} {one.ideal_ratio:>7.4f} "
        f"{one.episodes:>8} {one.trips:>6} {one.starts / hours:>8.2f} {one.clock_changes / hours:>8.1f}"
    )


def _keep(path: Path | None, found: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
