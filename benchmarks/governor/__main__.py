"""`python -m benchmarks.governor year|speed|live`: see RESULTS.md.

python -m benchmarks.governor year --wind ../shared/data/wind/fts213_Wind_data.csv --days 100:103
python -m benchmarks.governor year --wind FILE --days 365 --json out.json
python -m benchmarks.governor speed
python -m benchmarks.governor live --steps 100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.governor import speed
from benchmarks.governor.live import run_live
from benchmarks.governor.year import (
    DAY_SECONDS,
    START_SECONDS,
    DayResult,
    nameplate_watts,
    reference_model,
    run_day,
)
from power_feed.wind_files import read_wind_file
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
    kinds.add_parser("speed", help="microseconds per decision")
    live = kinds.add_parser("live", help="a real agent over emulated engines: steps to 20 %% of power")
    live.add_argument("--steps", type=int, default=5)
    live.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.kind == "speed":
        speed.print_table()
        return 0
    if options.kind == "live":
        found = asyncio.run(run_live(options.steps))
        _keep(options.json, found)
        return 0 if found["exceeded_seconds"] == 0 else 1
    return _year(options)


def _year(options: argparse.Namespace) -> int:
    wind = read_wind_file(options.wind)
    first, _, last = options.days.rpartition(":")
    days = range(int(first or 0), int(last))
    model = reference_model()
    rule = GovernorRule(start_seconds=START_SECONDS, further_fall_ratio=options.further_fall_ratio)
    rows: dict[str, dict[str, object]] = {}
    whole = DayResult()
    print(f"{wind.name}, days {days.start}:{days.stop}, {options.control}, seed {options.seed}")
    print(f"{'site':<12} {'exceeded s':>10} {'energy':>8} {'episodes':>8} {'trips':>6} {'starts':>6}")
    for site in [options.site] if options.site else wind.sites:
        samples = list(wind.ratios[site])
        total, began = DayResult(), time.perf_counter()
        for day in days:
            if sys.stderr.isatty():
                print(f"\r{site} day {day}", end="", file=sys.stderr, flush=True)
            total.add(
                run_day(
                    model,
                    samples,
                    period_seconds=wind.period_seconds,
                    start_seconds=float(day * DAY_SECONDS),
                    seconds=DAY_SECONDS,
                    nameplate=nameplate_watts(model, samples, options.percentile),
                    rule=rule,
                    trips_per_day=options.trips_per_day,
                    turbulence=Turbulence(intensity_ratio=options.turbulence),
                    seed=f"{options.seed}/{site}/{day}",
                    control=options.control,
                )
            )
        microseconds = (time.perf_counter() - began) / total.decisions * 1e6
        _print_row(site, total, f"{microseconds:.0f} µs/decision, physics included")
        rows[site] = asdict(total) | {"energy_ratio": total.energy_ratio}
        whole.add(total)
    _print_row("all", whole, "")
    _keep(options.json, {"options": {k: str(v) for k, v in vars(options).items()}, "sites": rows})
    return 0 if whole.exceeded_seconds == 0 else 1


def _print_row(name: str, one: DayResult, note: str) -> None:
    print(
        f"\r{name:<12} {one.exceeded_seconds:>10.2f} {one.energy_ratio:>8.4f} {one.episodes:>8} "
        f"{one.trips:>6} {one.starts:>6}  {note}"
    )


def _keep(path: Path | None, found: dict[str, object]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
