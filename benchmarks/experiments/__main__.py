"""`python -m benchmarks.experiments NAME [--quick]`: one experiment, or all; goes on where it was.

`document` puts the summaries of all results that there are into docs/results.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

from benchmarks.experiments import document
from benchmarks.experiments.setting import ALL_WEEKS, Setting
from simulator.sizing_cost import Prices
from simulator.traces import SIZE_SETS
from simulator.workload import MODES

EXPERIMENTS = (
    "bound",
    "paper_table",
    "power_short",
    "matrix",
    "ablation",
    "sensitivity",
    "grid",
    "queueing",
)


def parser() -> argparse.ArgumentParser:
    """All arguments."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    found.add_argument("name", choices=(*EXPERIMENTS, "all", "document"))
    size = found.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one far and one near week, one seed, two loads")
    size.add_argument(
        "--smoke", action="store_true", help="a minute of a synthetic day: only that everything runs"
    )
    found.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    found.add_argument(
        "--data", type=Path, help="folder of the official files (else HERON_OFFICIAL_DATA, heron data)"
    )
    found.add_argument("--load", type=float, action="append", help="only this one; may be repeated")
    found.add_argument("--seeds", type=int, help="so many, 1 and up")
    found.add_argument("--all-weeks", action="store_true", help="with --quick: all five")
    found.add_argument("--week", action="append", help="only this one, as fts-148; may be repeated")
    found.add_argument("--trace", help="conv-2024 (default), code-2024, both-2024, …; files get its name")
    found.add_argument("--sizes", choices=SIZE_SETS, help="which year's token counts (2023)")
    found.add_argument("--arrivals", choices=MODES, help="how requests come inside a bin (bursty)")
    found.add_argument(
        "--size-percentile", type=float, help="of all farms (40 for FTS, 50 for RTS; 30: sensitivity)"
    )
    found.add_argument(
        "--trips-per-day", type=float, help="sudden falls of each farm's power, where there are any (96)"
    )
    found.add_argument("--out", type=Path, help="where results go (benchmarks/experiments/results)")
    prices = found.add_argument_group("prices of `grid` (defaults with sources: heron size, docs/sizing.md)")
    for one in fields(Prices):
        prices.add_argument(f"--{one.name.replace('_', '-')}", type=float, metavar="X")
    return found


def setting_of(arguments: argparse.Namespace) -> Setting:
    """What was asked for."""
    size = "smoke" if arguments.smoke else "quick" if arguments.quick else "full"
    setting = Setting.make(size=size, jobs=arguments.jobs, data=arguments.data)
    given = {
        "trace": arguments.trace,
        "sizes": arguments.sizes,
        "mode": arguments.arrivals,
        "size_percentile": arguments.size_percentile,
        "trips_per_day": arguments.trips_per_day,
        "folder": arguments.out,
        "loads": tuple(sorted(set(arguments.load))) if arguments.load else None,
        "seeds": tuple(range(1, arguments.seeds + 1)) if arguments.seeds else None,
        "weeks": ALL_WEEKS if arguments.all_weeks else None,
    }
    if arguments.week:
        given["weeks"] = tuple(week for week in ALL_WEEKS if week[1] in arguments.week)
        if len(given["weeks"]) != len(set(arguments.week)):
            raise SystemExit(f"--week: known are {', '.join(name for _, name in ALL_WEEKS)}")
    prices = {
        one.name: value for one in fields(Prices) if (value := getattr(arguments, one.name)) is not None
    }
    given["prices"] = replace(setting.prices, **prices)
    return replace(setting, **{name: value for name, value in given.items() if value is not None})


def main(words: Sequence[str] | None = None) -> None:
    """Run what was asked for."""
    arguments = parser().parse_args(words)
    setting = setting_of(arguments)
    if arguments.name == "document":
        document.fill(setting.folder)
        return
    for name in EXPERIMENTS if arguments.name == "all" else (arguments.name,):
        began = time.perf_counter()
        import_module(f"benchmarks.experiments.{name}").run(setting)
        print(f"{name}: {time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
