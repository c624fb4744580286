"""`heron demo`: a whole fleet on this machine, real requests through it, and what happens when wind fails."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from cli.demo_config import DARK_SECONDS, SCENARIOS
from cli.services import workers as _workers

DEFAULT_SECONDS = 60.0
VLLM_COMMAND_VARIABLE = "HERON_VLLM_COMMAND"
VLLM_MODEL_VARIABLE = "HERON_VLLM_MODEL"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron demo`."""
    parser.add_argument(
        "--seconds",
        type=_positive,
        metavar="N",
        help=f"how long to send (default {DEFAULT_SECONDS:g}; with --trace the whole trace)",
    )
    parser.add_argument("--headless", action="store_true", help="a line now and then, no live screen")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="of the router (default %(default)s)"
    )
    parser.add_argument("--engine", choices=("emulated", "vllm"), default="emulated")
    parser.add_argument(
        "--seed", type=_whole, default=0, help="of the load, the wind and the fake GPUs' noise"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the run's directory (configuration, logs, power logs)"
    )

    wind = parser.add_argument_group("wind")
    wind.add_argument(
        "--scenario",
        choices=tuple(SCENARIOS),
        help="; ".join(f"{name}: {what}" for name, what in SCENARIOS.items()),
    )
    wind.add_argument("--wind", type=Path, metavar="FILE", help="wind CSV, or a `heron data` name")
    wind.add_argument(
        "--dark-seconds",
        type=_positive,
        metavar="N",
        help=f"scenario all-dark: how long at most (default {DARK_SECONDS:g})",
    )
    wind.add_argument("--wind-speed", type=_positive, metavar="X", help="seconds of wind in a second")

    load = parser.add_argument_group("load")
    load.add_argument("--trace", type=Path, metavar="FILE", help="Azure LLM trace, or a `heron data` name")
    load.add_argument("--speed", type=_positive, metavar="X", help="seconds of trace and wind in a second")
    load.add_argument("--rate", type=_positive, metavar="R", help="requests a second, without --trace")

    load.add_argument(
        "--slo-factor",
        type=_positive,
        metavar="X",
        help="the router promises X times what a request takes alone: where there is too little for all, it "
        "serves what can be in time, the cheapest first (5 is what the summary judges by)",
    )
    load.add_argument(
        "--client-retries",
        type=_whole,
        default=0,
        metavar="N",
        help="clients send a refused request again, as the openai client does 2 times (default %(default)s)",
    )

    vllm = parser.add_argument_group("with --engine vllm")
    vllm.add_argument(
        "--vllm-command",
        metavar="COMMAND",
        default=os.environ.get(VLLM_COMMAND_VARIABLE),
        help=f"what runs vLLM (default: ${VLLM_COMMAND_VARIABLE}, else `vllm`)",
    )
    vllm.add_argument(
        "--vllm-model",
        metavar="DIR",
        default=os.environ.get(VLLM_MODEL_VARIABLE),
        help=f"model directory or hub id (default: ${VLLM_MODEL_VARIABLE}); two engines load it",
    )
    vllm.add_argument(
        "--vllm-gpus",
        type=_whole,
        metavar="N",
        help="GPUs of each engine (default: 1 where there is one, else 0)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it and show it; 0 when the run can be believed, 1 when not, 130 after Ctrl-C.

    Raises:
        ConfigError: arguments or files that do not fit.
    """
    from cli.demo_show import DemoShow

    return DemoShow(arguments).run()


def _positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value
