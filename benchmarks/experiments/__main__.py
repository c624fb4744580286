"""`python -m benchmarks.experiments NAME [--quick]`: one experiment, or all; goes on where it was."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from benchmarks.experiments.setting import ALL_WEEKS, Setting

EXPERIMENTS = ("paper_table", "power_short", "matrix", "ablation", "sensitivity", "grid")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("name", choices=(*EXPERIMENTS, "all"))
    parser.add_argument("--quick", action="store_true", help="one far and one near week, one seed, two loads")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--data", type=Path, help="folder of the official files (else HERON_OFFICIAL_DATA, heron data)"
    )
    parser.add_argument("--load", type=float, action="append", help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, help="so many, 1 and up")
    parser.add_argument("--all-weeks", action="store_true", help="with --quick: all five")
    arguments = parser.parse_args()
    setting = Setting.make(is_quick=arguments.quick, jobs=arguments.jobs, data=arguments.data)
    if arguments.load:
        setting = replace(setting, loads=tuple(arguments.load))
    if arguments.seeds:
        setting = replace(setting, seeds=tuple(range(1, arguments.seeds + 1)))
    if arguments.all_weeks:
        setting = replace(setting, weeks=ALL_WEEKS)
    for name in EXPERIMENTS if arguments.name == "all" else (arguments.name,):
        began = time.perf_counter()
        import_module(f"benchmarks.experiments.{name}").run(setting)
        print(f"{name}: {time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
