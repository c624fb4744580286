"""`heron bound`: the ceiling of any gain, before a policy is tuned.

Per week and load a clairvoyant bound and fluid baselines, on the very sites, wind and load that `heron
simulate` has for the same arguments. With `--sample` of the very requests and watts of its counted minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli import exit_codes
from cli.data import resolve
from cli.files import check_writable
from cli.sites_file import read_sites_file
from cli.wind_notes import tell
from fleet.config import ConfigError
from power_feed.wind_series import WindFileError
from replay.trace import TraceError
from simulator.cell import Cell, CellError, Sample
from simulator.inputs import read_inputs, wind_series
from simulator.traces import SIZE_SETS
from simulator.weeks import WIND_SETS, Days, WeekError, named_days, week_names
from simulator.workload import MODES

KINDS = {"within_slo": "within the SLO", "any_latency": "however late"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron bound`."""
    parser.add_argument(
        "--wind", default="synthetic-far", help="wind file or name (`heron data list`), synthetic-far, …"
    )
    parser.add_argument(
        "--days",
        help="A:B, counted from 1, or names such as fts-127,fts-median (default: all reported weeks)",
    )
    parser.add_argument("--trace", default="synthetic-conv", help="load: file, conv-2024, both-2024, …")
    parser.add_argument("--sizes", choices=SIZE_SETS, default="2023", help="which year's token counts")
    parser.add_argument(
        "--load", default="0.3,0.5,0.7,0.9", help="mean loads as shares of the cluster's peak"
    )
    parser.add_argument(
        "--size-percentile", type=float, help="a site's peak draw is its farm's power at this one"
    )
    parser.add_argument("--sites", type=Path, help="TOML, as of heron simulate: count, [site] table")
    parser.add_argument(
        "--sample",
        help="EVERY:LENGTH:WARM_UP[:OFFSET], as of heron simulate: its very requests",
    )
    parser.add_argument("--arrivals", choices=MODES, default="bursty", help="with --sample: how they come")
    parser.add_argument("--seed", type=int, default=1, help="with --sample: whose requests (1)")
    parser.add_argument("--json", type=Path, help="write everything here")


def run(arguments: argparse.Namespace) -> int:
    """Compute, show, write.

    Raises:
        ConfigError: arguments or files that cannot be used.
    """
    from simulator.bounds import bounds

    check_writable("--json", arguments.json)
    loads = _loads(arguments.load)
    results = []
    try:
        tell(wind_series(arguments.wind, resolve))
        for cell, name in _cells(arguments):
            results.append({"name": name, **bounds(read_inputs(cell, resolve), loads)})
            _show(results[-1])
    except (CellError, WindFileError, TraceError, WeekError) as error:
        raise ConfigError(f"heron bound: {error}") from None
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"weeks": results}, indent=1) + "\n")
    return exit_codes.DONE


def _loads(text: str) -> list[float]:
    try:
        loads = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"heron bound: --load {text}: expected numbers such as 0.3,0.5") from None
    if not all(0 < load <= 10 for load in loads):
        raise ConfigError(f"heron bound: --load {text}: each must be above 0 and at most 10")
    return loads


def _cells(arguments: argparse.Namespace) -> list[tuple[Cell, str]]:
    known = WIND_SETS.get(arguments.wind)
    sample = None if arguments.sample is None else Sample.parse(arguments.sample)
    percentile = 40.0 if known is None else known.size_percentile
    if arguments.size_percentile is not None:
        percentile = arguments.size_percentile
    fleet = read_sites_file(arguments.sites)
    return [
        (
            Cell(
                wind=arguments.wind,
                first_day=days.first,
                last_day=days.last,
                size_percentile=percentile,
                sample=sample,
                mode=arguments.arrivals,
                seed=arguments.seed,
                trace=arguments.trace,
                sizes=arguments.sizes,
                site_count=fleet.count,
                sites_per_farm=fleet.sites_per_farm,
                site_overrides=fleet.site,
                each_site=fleet.each_site,
            ),
            days.name,
        )
        for days in _days(arguments)
    ]


def _days(arguments: argparse.Namespace) -> list[Days]:
    known = WIND_SETS.get(arguments.wind)
    text = arguments.days
    if text is None:
        text = "1:7" if known is None else ",".join(week_names(known))
    found = []
    for part in text.split(","):
        ends = part.split(":")
        if len(ends) == 2 and all(end.isdecimal() for end in ends):
            found.append(Days(name=f"days {part}", first=int(ends[0]), last=int(ends[1])))
        elif known is None:
            raise WeekError(f"--days {part}: expected A:B; weeks have names only in {', '.join(WIND_SETS)}")
        else:
            found.append(named_days(known, wind_series(arguments.wind, resolve), part))
    return found


def _show(result: dict[str, Any]) -> None:
    console = Console()
    first, last = result["days"]
    console.print(f"\n[bold]{result['name']}[/bold]: days {first}–{last} of {result['wind']}")
    console.print(result["trace"])
    console.print(
        f"{len(result['sites'])} sites sized at p{result['size_percentile']:g}; cluster peak"
        f" {result['cluster_peak_requests_per_second']:.1f} requests/s. Shares of requests served:"
    )
    for kind, title in KINDS.items():
        part = result[kind]
        loads, sustained = part["by_load"], part["sustained"]
        table = Table(title=f"{title}; right: load sustained with so much", title_justify="left")
        table.add_column("")
        for column in (
            *(f"{row['load']:g}" for row in loads),
            *(f"{float(attainment):.0%}" for attainment in sustained["bound_same_mix"]),
        ):
            table.add_column(column, justify="right")
        came = [result["offered_ratios"][f"{row['load']:g}"] for row in loads]
        table.add_row("offered", *_numbers(came))
        table.add_row("bound", *_numbers([row["bound"] for row in loads]))
        table.add_row(
            "bound, same mix",
            *_numbers([*(row["bound_same_mix"] for row in loads), *sustained["bound_same_mix"].values()]),
        )
        for name in loads[0]["baselines"]:
            table.add_row(
                name, *_numbers([*(row["baselines"][name] for row in loads), *sustained[name].values()])
            )
        console.print(table)


def _numbers(values: Iterable[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]
