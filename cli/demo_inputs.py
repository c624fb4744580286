"""From the demo's arguments to what it runs and sends; a mistake is a ConfigError before anything starts."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.data import resolve
from cli.demo_config import (
    DARK_SECONDS,
    INSTANCES,
    PROFILE,
    SCENARIOS,
    SITES,
    VLLM_MODEL,
    DemoOptions,
    Engine,
    VllmEngine,
    WindFile,
    ports_needed,
)
from cli.ports import free_ports
from fleet.config import ConfigError
from fleet.version import extra_hint
from power_feed.wind_files import read_wind_file
from power_feed.wind_series import WindFileError
from replay.client import ClientLimits
from replay.load import Load, open_load
from replay.prompts import WordPrompts
from replay.results import Slo
from replay.runner import ReplayPlan
from replay.schedule import ScheduleRule
from replay.synthetic import SyntheticSpec
from replay.trace import TraceError
from site_agent.drivers.tiny_model import TinyModelError, cache_dir, ensure

DEFAULT_SECONDS = 60.0
SYNTHETIC_WIND_SPEED = 60.0
"""A minute of synthetic wind in a second, so that a short demo sees it change."""
GRACE_SECONDS = 90.0
"""For what is in flight when sending ends: longer than anything may wait in the router and then run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """The synthetic load of an engine kind."""

    requests_per_second: float
    mean_prompt_tokens: float
    mean_output_tokens: float
    max_output_tokens: int
    max_model_len: int


LOADS: dict[Engine, LoadShape] = {
    # Two sites of three engines have 96 slots and decode 5,300 tokens/s at 18 ms; this takes 45 % of that,
    # and 12 % of their prefill. Half of what was measured on 2 cores goes to the other processes.
    "emulated": LoadShape(
        requests_per_second=40.0,
        mean_prompt_tokens=150.0,
        mean_output_tokens=60.0,
        max_output_tokens=400,
        max_model_len=PROFILE.max_model_len,
    ),
    # Engines on a CPU, with a model of 2,048 positions; a word of the load is about 3 of its tokens.
    "vllm": LoadShape(
        requests_per_second=2.0,
        mean_prompt_tokens=60.0,
        mean_output_tokens=40.0,
        max_output_tokens=200,
        max_model_len=600,
    ),
}


def demo_options(arguments: argparse.Namespace, run_directory: Path) -> DemoOptions:
    """What to run.

    Raises:
        ConfigError: files that cannot be used, or arguments that do not go together.
    """
    if arguments.scenario is not None and arguments.trace is not None and arguments.seconds is None:
        raise ConfigError(
            "heron demo: --scenario with --trace needs --seconds: a scenario happens at a third of the run"
        )
    engine: Engine = arguments.engine
    return DemoOptions(
        run_directory=run_directory,
        ports=free_ports(ports_needed(engine)),
        site_token=secrets.token_urlsafe(24),
        seconds=DEFAULT_SECONDS if arguments.seconds is None else arguments.seconds,
        scenario=arguments.scenario,
        wind=None if arguments.wind is None else _wind_file(resolve(arguments.wind).resolve(), SITES[engine]),
        wind_speed=wind_speed(arguments),
        engine=engine,
        vllm=_vllm_engine(arguments) if engine == "vllm" else None,
        seed=arguments.seed,
        router_workers=arguments.workers,
        slo_factor=arguments.slo_factor,
        dark_seconds=DARK_SECONDS if arguments.dark_seconds is None else arguments.dark_seconds,
    )


def wind_speed(arguments: argparse.Namespace) -> float:
    """`--wind-speed`; else `--speed`, and generated wind faster still."""
    if arguments.wind_speed is not None:
        return float(arguments.wind_speed)
    speed = 1.0 if arguments.speed is None else float(arguments.speed)
    return speed if arguments.wind is not None else speed * SYNTHETIC_WIND_SPEED


def describe_wind(options: DemoOptions) -> str:
    """Where the wind comes from, for every output."""
    parts = []
    if options.scenario is not None:
        parts.append(f"scenario {options.scenario}: {SCENARIOS[options.scenario]}")
    if options.wind is not None:
        columns = ", ".join(f"{site} = {column}" for site, column in options.wind.columns.items())
        parts.append(f"{options.wind.path.name} ({columns}) at speed {options.wind_speed:g}")
    if not parts:
        parts.append(
            f"synthetic wind, seed {options.seed}, at speed {options.wind_speed:g}: no --wind FILE given"
        )
    return "; over ".join(parts)


def describe_engine(options: DemoOptions) -> str:
    """What answers, for every output."""
    if options.vllm is not None:
        hardware = f"{options.vllm.gpus_per_instance} GPUs" if options.vllm.gpus_per_instance else "CPU"
        return f"vllm: {len(options.sites)} sites × 1 engine, {options.vllm.model_path} on {hardware}"
    instances = INSTANCES[options.engine]
    return f"emulated: {len(options.sites)} sites × {instances} engines, profile {PROFILE.profile_id}"


def model_name(engine: Engine) -> str:
    """What clients ask for."""
    return VLLM_MODEL if engine == "vllm" else PROFILE.model


@contextmanager
def open_traffic(arguments: argparse.Namespace) -> Iterator[tuple[Load, ReplayPlan]]:
    """The requests, and how to send and judge them.

    Raises:
        ConfigError: the trace or the rate cannot be used, also when that shows only in mid-run.
    """
    engine: Engine = arguments.engine
    shape = LOADS[engine]
    if arguments.trace is not None and arguments.rate is not None:
        raise ConfigError("heron demo: --rate is for the synthetic load; with --trace use --speed")
    seconds = arguments.seconds
    if seconds is None and arguments.trace is None:
        seconds = DEFAULT_SECONDS
    source = _synthetic(arguments, shape) if arguments.trace is None else resolve(arguments.trace)
    rule = ScheduleRule(
        speed=arguments.speed or 1.0, max_seconds=seconds, max_total_tokens=shape.max_model_len
    )
    is_emulated = engine == "emulated"
    prompts = WordPrompts(
        model_name(engine), seed=arguments.seed, is_exact=is_emulated, ignore_eos=not is_emulated
    )
    try:
        with open_load(source, rule, seed=arguments.seed) as load:
            yield (
                load,
                ReplayPlan(
                    requests=load.requests,
                    prompts=prompts,
                    slo=Slo.from_profile(PROFILE) if is_emulated else None,
                    is_verifying=is_emulated,
                    limits=ClientLimits(max_retries=arguments.client_retries),
                    grace_seconds=GRACE_SECONDS,
                ),
            )
    except TraceError as error:
        raise ConfigError(f"heron demo: {error}") from None


def _synthetic(arguments: argparse.Namespace, shape: LoadShape) -> SyntheticSpec:
    try:
        return SyntheticSpec(
            requests_per_second=arguments.rate or shape.requests_per_second,
            arrivals="poisson",
            mean_prompt_tokens=shape.mean_prompt_tokens,
            mean_output_tokens=shape.mean_output_tokens,
            max_output_tokens=shape.max_output_tokens,
        )
    except ValueError as error:
        raise ConfigError(f"heron demo: {error}") from None


def _wind_file(path: Path, sites: tuple[str, ...]) -> WindFile:
    try:
        series = read_wind_file(path)
    except WindFileError as error:
        raise ConfigError(f"heron demo: --wind: {error}") from None
    if len(series.sites) < len(sites):
        raise ConfigError(
            f"heron demo: --wind: {path.name} has {len(series.sites)} columns of wind "
            f"({', '.join(series.sites)}); the demo's {len(sites)} sites ({', '.join(sites)}) need one each"
        )
    return WindFile(path=path, columns=dict(zip(sites, series.sites, strict=False)))


def _vllm_engine(arguments: argparse.Namespace) -> VllmEngine:
    words = shlex.split(arguments.vllm_command or "vllm")
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise ConfigError(
            f"heron demo: --engine vllm: there is no command {words[0] if words else ''!r}. "
            f"On a machine with a GPU: {extra_hint('vllm')}; without one: "
            'HERON_VLLM_COMMAND="$(scripts/vllm-env)" installs vLLM\'s CPU build in your cache (3 GB). '
            "Or name a command with --vllm-command"
        )
    gpus = arguments.vllm_gpus
    if gpus is None:
        gpus = 1 if Path("/dev/nvidia0").exists() else 0
    model = arguments.vllm_model
    if model is None:
        try:
            model = str(ensure(Path(found), cache_dir(os.environ)))
        except TinyModelError as error:
            raise ConfigError(
                f"heron demo: --engine vllm: no --vllm-model is given, and a tiny one cannot be made: {error}"
            ) from None
    return VllmEngine(command=(found, *words[1:]), model_path=model, gpus_per_instance=gpus)
