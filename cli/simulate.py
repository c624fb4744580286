"""`heron simulate`: policies × seeds on wind and load, on a virtual clock: a table, JSON, an HTML page."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import exit_codes
from cli.data import resolve
from cli.files import check_writable
from cli.simulate_show import show
from cli.sites_file import read_sites_file
from cli.wind_notes import tell
from fleet.config import ConfigError
from power_feed.wind_series import WindFileError
from replay.trace import TraceError
from router.parameter_file import read_parameters
from router.policy.parameters import PolicyParameterError
from router.policy.policies import DEFAULT_POLICY, POLICIES, check_parameters
from simulator.batch import Result, Store, cache_directory, run_batch
from simulator.cell import Cell, CellError, Sample, pairs, seconds_of
from simulator.inputs import Inputs, blocks_of, read_inputs, wind_series
from simulator.report import write_report
from simulator.settings import FAULT_KINDS, Fault
from simulator.traces import SIZE_SETS
from simulator.weeks import WIND_SETS, WeekError, named_days
from simulator.workload import MODES
from site_agent.controls import DEFAULT_CONTROL, SITE_CONTROLS

DEFAULT_SAMPLE = "6h:15m:5m"
FAULT_EXAMPLE = "crash:farm1:4m:2m"
MEBIBYTE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron simulate`."""
    what = parser.add_argument_group("what is simulated")
    what.add_argument(
        "--wind",
        default="synthetic-far",
        help="wind file or name (`heron data list`), synthetic-far, synthetic-near",
    )
    what.add_argument("--days", default="1:7", help="A:B from 1 (%(default)s), or a week's name, as fts-127")
    what.add_argument(
        "--sample",
        default=DEFAULT_SAMPLE,
        help="EVERY:LENGTH:WARM_UP[:OFFSET] of blocks (%(default)s), or all",
    )
    what.add_argument(
        "--trace", default="synthetic-conv", help="load: file, conv-2024, both-2024, synthetic-conv, …"
    )
    what.add_argument("--sizes", choices=SIZE_SETS, default="2023", help="which year's token counts")
    what.add_argument("--arrivals", choices=MODES, default="bursty", help="how requests come inside a bin")
    what.add_argument("--load", type=float, default=0.5, help="mean load ÷ the cluster's peak (0.5)")
    what.add_argument(
        "--size-percentile", type=float, help="a site's peak draw is its farm's power at this one"
    )
    what.add_argument(
        "--sites", type=Path, help="TOML: count, [site], [[sites]], [governor], …: docs/simulator.md"
    )
    _add_circumstances(parser)
    who = parser.add_argument_group("who decides")
    who.add_argument("--policy", default=DEFAULT_POLICY, help="comma-separated (%(default)s), or all")
    who.add_argument(
        "--policy-parameters", type=Path, help="TOML: a table of parameters per policy, as of heron router"
    )
    who.add_argument("--site-control", choices=sorted(SITE_CONTROLS), default=DEFAULT_CONTROL)
    who.add_argument(
        "--resume", choices=("on", "off"), default="on", help="continue broken streams elsewhere"
    )
    who.add_argument("--server-switch", choices=("on", "off"), default="on", help="may switch servers off")
    who.add_argument(
        "--planner", choices=("on", "off"), help="make plans (default: where a policy is nothing without)"
    )
    how = parser.add_argument_group("how it is run")
    how.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="each draws turbulence, trips and requests anew, in the same hours (1)",
    )
    how.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    how.add_argument("--no-cache", action="store_true", help="run again what was run before")
    how.add_argument("--json", type=Path, help="write all results here")
    how.add_argument("--report", type=Path, help="write an HTML page here")


def _add_circumstances(parser: argparse.ArgumentParser) -> None:
    """What goes wrong, and how far what is known is off."""
    how = parser.add_argument_group("circumstances")
    how.add_argument(
        "--fault",
        action="append",
        default=[],
        help=f"KIND:SITE:AT:FOR, as {FAULT_EXAMPLE}; AT is time within each block, its warm-up included",
    )
    how.add_argument("--report-delay-seconds", type=float, default=0.02, help="from site to router (0.02)")
    how.add_argument("--report-loss-ratio", type=float, default=0.0, help="of the sites' reports (0)")
    how.add_argument(
        "--turbulence-ratio", type=float, default=0.03, help="of the wind's power, between its samples (0.03)"
    )
    how.add_argument("--trips-per-day", type=float, default=0.0, help="sudden falls of each farm's power (0)")
    how.add_argument(
        "--constant-power", action="store_true", help="the grid instead of the wind: full power always"
    )
    how.add_argument("--forecast-error-ratio", type=float, default=0.0, help="σ of a factor on forecasts (0)")
    how.add_argument(
        "--length-error-ratio", type=float, default=0.0, help="the same on expected lengths of answers (0)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run, show, write."""
    check_writable("--json", arguments.json)
    check_writable("--report", arguments.report)
    try:
        cells = cells_of(arguments)
        inputs = read_inputs(cells[0], resolve)
        tell(inputs.series)
        _check_faults(inputs)
        results = run_with_progress(cells, resolve, jobs=arguments.jobs, is_cached=not arguments.no_cache)
    except (CellError, WindFileError, TraceError, WeekError, PolicyParameterError) as error:
        raise ConfigError(str(error)) from None
    show(results)
    show_cost(results)
    if arguments.json is not None:
        arguments.json.write_text(as_json(results))
    if arguments.report is not None:
        write_report(arguments.report, results, title=" ".join(["heron", *sys.argv[1:]]))
        print(f"report: {arguments.report}")
    return exit_codes.DONE


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """One per policy and seed.

    Raises:
        CellError, PolicyParameterError, WeekError: what cannot be meant.
    """
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise CellError("--seeds and --jobs must be at least 1")
    names = sorted(POLICIES) if arguments.policy == "all" else arguments.policy.split(",")
    given = {} if arguments.policy_parameters is None else read_parameters(arguments.policy_parameters)
    fleet = read_sites_file(arguments.sites)
    first, last, percentile = _days(arguments)
    sample = None if arguments.sample == "all" else Sample.parse(arguments.sample)
    faults = tuple(_fault(text) for text in arguments.fault)
    for name in names:
        check_parameters(name, given.get(name, {}))
    first_one = Cell(
        wind=arguments.wind,
        first_day=first,
        last_day=last,
        size_percentile=percentile,
        trace=arguments.trace,
        sizes=arguments.sizes,
        mode=arguments.arrivals,
        load=arguments.load,
        sample=sample,
        control=arguments.site_control,
        control_parameters=fleet.governor,
        resume=arguments.resume == "on",
        planner=None if arguments.planner is None else arguments.planner == "on",
        planner_parameters=fleet.planner,
        server_switch=arguments.server_switch == "on",
        site_count=fleet.count,
        sites_per_farm=fleet.sites_per_farm,
        round_trip_seconds=fleet.round_trip_seconds,
        report_delay_seconds=arguments.report_delay_seconds,
        report_loss_ratio=arguments.report_loss_ratio,
        turbulence_ratio=arguments.turbulence_ratio,
        trips_per_day=arguments.trips_per_day,
        constant_power=arguments.constant_power,
        forecast_error_ratio=arguments.forecast_error_ratio,
        length_error_ratio=arguments.length_error_ratio,
        faults=faults,
        site_overrides=fleet.site,
        each_site=fleet.each_site,
        router_overrides=fleet.router,
    )
    first_one.check()
    return [
        first_one.with_(policy=name, parameters=pairs(given.get(name, {})), seed=seed)
        for name in names
        for seed in range(1, arguments.seeds + 1)
    ]


def _days(arguments: argparse.Namespace) -> tuple[int, int, float]:
    """First day, last day, and the percentile that sites are sized by."""
    known = WIND_SETS.get(arguments.wind)
    percentile = known.size_percentile if known is not None else 40.0
    if arguments.size_percentile is not None:
        percentile = arguments.size_percentile
    parts = arguments.days.split(":")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[1]), percentile
    if known is None:
        raise CellError(
            f"--days {arguments.days}: expected A:B; weeks have names only in {', '.join(WIND_SETS)}"
        )
    days = named_days(known, wind_series(arguments.wind, resolve), arguments.days)
    return days.first, days.last, percentile


def _fault(text: str) -> Fault:
    parts = text.split(":")
    if len(parts) != 4 or parts[0] not in FAULT_KINDS:
        raise CellError(f"--fault {text}: expected KIND:SITE:AT:FOR, KIND one of {', '.join(FAULT_KINDS)}")
    kind, site, at, seconds = parts
    return Fault(
        kind=kind,
        site_id=None if site == "all" else site,
        at_seconds=seconds_of(at),
        seconds=seconds_of(seconds),
    )


def _check_faults(inputs: Inputs) -> None:
    """Every fault is of a site that there is, and begins before a block ends."""
    names = [site.site_id for site in inputs.sites]
    block_seconds = max(seconds for _, seconds, _ in blocks_of(inputs.cell))
    for fault in inputs.cell.faults:
        if fault.site_id is not None and fault.site_id not in names:
            raise CellError(f"--fault: no site {fault.site_id}; there are {', '.join(names)}, and all")
        if fault.at_seconds >= block_seconds:
            raise CellError(
                f"--fault {fault.kind}:{fault.site_id or 'all'}: AT is {fault.at_seconds:,.0f} s, and a block"
                f" lasts {block_seconds:,} s, its warm-up included"
            )


def run_with_progress(
    cells: Sequence[Cell], files: Callable[[str], Path], *, jobs: int, is_cached: bool
) -> list[Result]:
    """All results, in the order of the cells, behind a progress bar."""
    store = Store(cache_directory(), files) if is_cached else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("simulating", total=None)
        found = dict(
            run_batch(
                cells,
                files,
                jobs=jobs,
                store=store,
                on_unkept=_tell_unkept,
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    return [found[cell] for cell in cells]


def _tell_unkept(error: OSError) -> None:
    print(
        f"{cache_directory()}: results cannot be kept, and will be run anew: {error.strerror};"
        " HERON_CACHE moves them",
        file=sys.stderr,
    )


def as_json(results: Sequence[Result]) -> str:
    """What `--json` writes: the same bytes for the same cells at the same state of the code, so without what
    the runs cost here."""
    cells = [{"cell": one["cell"], "result": one["result"]} for one in results]
    return json.dumps({"cells": cells}, indent=1) + "\n"


def show_cost(results: Sequence[Result]) -> None:
    """What the runs took, on stderr: no part of the result. Of one that was kept, what it took then."""
    costs = [one["cost"] for one in results]
    seconds = sum(cost["cpu_seconds"] for cost in costs)
    rate = min(cost["requests_per_cpu_second"] for cost in costs)
    memory = max(cost["peak_memory_bytes"] for cost in costs) / MEBIBYTE
    print(
        f"cost: {seconds:.1f} s of a core; at the least {rate} simulated requests per second of a core, "
        f"at the most {memory:.0f} MiB",
        file=sys.stderr,
    )
