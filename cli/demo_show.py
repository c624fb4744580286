"""The shell around a demo: its directory, its screen, its last words, its exit code."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli import demo_inputs, exit_codes
from cli.demo_config import DemoOptions, demo_tables, site_directory
from cli.demo_run import DemoCallbacks, DemoRun, DemoTraffic, log_directory
from cli.demo_view import RunView, headless_line, kilowatts, screen
from cli.files import check_writable
from cli.signals import signals_held, stop_request
from cli.supervisor import StartError
from cli.toml_text import to_toml
from cli.topology import REDIS, Topology, build_topology, redis_service
from fleet.config import ConfigError
from replay.load import Load
from replay.outcome import OUTCOMES
from replay.progress import Progress
from replay.report import table
from replay.runner import ReplayPlan, allow_open_files

HEADLESS_SECONDS = 5.0
"""Between two lines without a live screen."""


class DemoShow:
    """One `heron demo`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._console = Console(highlight=False)
        self._is_live = not arguments.headless and self._console.is_terminal
        self._live: Live | None = None
        self._next_line_at = 0.0
        self._topology: Topology | None = None
        self._run: DemoRun | None = None

    def run(self) -> int:
        """Everything; 0 a sound run, 1 not, 130 after Ctrl-C.

        Raises:
            ConfigError: arguments or files that do not fit.
        """
        check_writable("--json", self._arguments.json)
        directory = Path(tempfile.mkdtemp(prefix="heron-demo-"))
        is_kept = True
        try:
            code = self._run_in(directory)
            is_kept = self._arguments.keep or code == exit_codes.BAD_RUN
        except ConfigError:
            is_kept = False
            raise
        else:
            return code
        finally:
            if is_kept:
                self._console.print(f"kept: {directory} (configuration, logs, power logs)", soft_wrap=True)
            else:
                shutil.rmtree(directory, ignore_errors=True)

    def _run_in(self, directory: Path) -> int:
        options = demo_inputs.demo_options(self._arguments, directory)
        config_path = _lay_out(options)
        redis_url = demo_tables(options)["fleet"]["redis_url"]
        redis = redis_service(redis_url, directory / REDIS)
        self._topology = build_topology(config_path, os.environ, redis=redis)
        with demo_inputs.open_traffic(self._arguments) as (load, plan):
            inputs = self._inputs(options, load)
            self._say_inputs(options, inputs, plan)
            traffic = DemoTraffic(plan=plan, counts=load.counts, inputs=inputs)
            try:
                with signals_held():
                    values, is_interrupted = uvloop.run(self._play(options, traffic))
            except StartError as error:
                print(error, file=sys.stderr)
                return exit_codes.BAD_RUN
            if values is None:
                return exit_codes.INTERRUPTED
            if load.report is not None:
                values["load_generator"]["trace_faults"] = load.report.lines()
            self._report(values)
        if is_interrupted:
            return exit_codes.INTERRUPTED
        return exit_codes.BAD_RUN if values["problems"] else exit_codes.DONE

    async def _play(self, options: DemoOptions, traffic: DemoTraffic) -> tuple[dict[str, Any] | None, bool]:
        assert self._topology is not None
        with stop_request() as stop, ExitStack() as stack:
            self._run = DemoRun(
                options,
                self._topology,
                traffic,
                stop=stop,
                callbacks=DemoCallbacks(
                    on_ready=lambda: self._ready(stack),
                    on_tick=self._tick,
                    on_note=self._note,
                    seconds_since_launch=seconds_since_launch,
                ),
            )
            values = await self._run.run()
            return values, stop.requested.is_set()

    def _ready(self, stack: ExitStack) -> None:
        self._console.print(f"ready after {seconds_since_launch():.1f} s; while it runs:")
        for line in self._hints():
            self._console.print(f"  {line}", soft_wrap=True)
        if self._is_live:
            self._live = stack.enter_context(Live(console=self._console, auto_refresh=False, transient=True))

    def _tick(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(screen(self._view(progress)), refresh=True)
        elif progress.elapsed_seconds >= self._next_line_at:
            self._next_line_at = progress.elapsed_seconds + HEADLESS_SECONDS
            self._console.print(headless_line(self._view(progress)), soft_wrap=True)

    def _note(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, soft_wrap=True)

    def _view(self, progress: Progress) -> RunView:
        assert self._run is not None
        arguments = self._arguments
        seconds = arguments.seconds
        if seconds is None and arguments.trace is None:
            seconds = demo_inputs.DEFAULT_SECONDS
        return RunView(
            title=f"heron demo{'' if arguments.scenario is None else f' – {arguments.scenario}'}",
            elapsed_seconds=progress.elapsed_seconds,
            total_seconds=seconds,
            sites=self._run.watch.sites(),
            counts={name: progress.outcomes[name] for name in OUTCOMES},
            in_flight=progress.in_flight,
            requests_per_second=progress.sent_per_second,
            ttft_seconds=(progress.ttft_seconds_p50, progress.ttft_seconds_p99),
            itl_seconds=(progress.itl_seconds_p50, progress.itl_seconds_p99),
            events=self._run.watch.events(),
            hints=self._hints(),
        )

    def _hints(self) -> list[str]:
        assert self._topology is not None
        url, model = self._topology.base_url, demo_inputs.model_name(self._arguments.engine)
        curl = (
            f"curl -N {url}/chat/completions -H 'content-type: application/json' -d '"
            f'{{"model": "{model}", "stream": true, "max_tokens": 20, '
            f'"messages": [{{"role": "user", "content": "Hello"}}]}}\''
        )
        python = (
            f'{shlex.quote(sys.executable)} -c "from openai import OpenAI; '
            f"print(OpenAI(base_url='{url}', api_key='none')"
            f".chat.completions.create(model='{model}', max_tokens=20, "
            "messages=[{'role': 'user', 'content': 'Hello'}]).choices[0].message.content)\""
        )
        return [f"base URL  {url}", f"console   {self._topology.console_url}", curl, python]

    def _inputs(self, options: DemoOptions, load: Load) -> dict[str, Any]:
        return {
            "wind": demo_inputs.describe_wind(options),
            "trace": load.description,
            "engine": demo_inputs.describe_engine(options),
            "scenario": options.scenario,
            "speed": self._arguments.speed or 1.0,
            "wind_speed": None if options.is_wind_scripted else options.wind_speed,
            "seed": options.seed,
        }

    def _say_inputs(self, options: DemoOptions, inputs: dict[str, Any], plan: ReplayPlan) -> None:
        for name in ("wind", "trace", "engine"):
            self._console.print(f"{name + ':':8}{inputs[name]}", soft_wrap=True)
        if not options.is_wind_scripted:
            kilowatt = kilowatts(options.size.floor_cap_watts)
            self._console.print(
                f"        a site has {kilowatt} kW of firm power: the demo's assumption", soft_wrap=True
            )
        self._console.print(f"logs:   {log_directory(options.run_directory)}", soft_wrap=True)
        warning = allow_open_files(plan.max_in_flight)
        if warning is not None:
            self._console.print(warning)

    def _report(self, values: dict[str, Any]) -> None:
        if self._arguments.json is not None:
            self._arguments.json.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")
        self._console.print(table(values, title="Demo"))
        self._console.print(_sites_table(values["sites"]))
        if values["other_clients_requests"]:
            self._console.print(
                f"{values['other_clients_requests']} requests of other clients were served too"
            )
        for line in values["load_generator"].get("trace_faults", ()):
            self._console.print(line)
        for problem in values["problems"]:
            print(f"this run cannot be believed: {problem}", file=sys.stderr)


def seconds_since_launch() -> float:
    """Since the kernel started this process: the interpreter's own start counts."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _lay_out(options: DemoOptions) -> Path:
    """Make the run's directories and its configuration file; returns the file's path."""
    directory = options.run_directory
    for path in (log_directory(directory), directory / REDIS):
        path.mkdir()
    for site_id in options.sites:
        site_directory(directory, site_id).mkdir(parents=True)
    config_path = directory / "heron.toml"
    config_path.write_text(to_toml(demo_tables(options)))
    config_path.chmod(0o600)  # it holds the site token
    return config_path


def _sites_table(sites: dict[str, dict[str, Any]]) -> Table:
    view = Table(title="Sites", title_justify="left")
    view.add_column("site")
    for name in ("requests", "completed", "peak kW", "kWh", "s over cap", "s exceeded"):
        view.add_column(name, justify="right")
    for site_id, site in sites.items():
        energy = site["energy_joules"]
        above = [site["above_cap_seconds"], site["cap_exceeded_seconds"]]
        view.add_row(
            site_id,
            f"{site['requests']:,}",
            f"{site['completed']:,}",
            kilowatts(site["peak_watts"]),
            "–" if energy is None else f"{energy / 3.6e6:.3f}",
            *("–" if seconds is None else f"{seconds:.1f}" for seconds in above),
        )
    return view
