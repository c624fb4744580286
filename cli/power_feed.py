"""`heron power-feed [run | test | backtest]`: the service, a look at a farm's source, or at the forecast."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING

from cli import backtest, exit_codes, services
from fleet.config import ConfigError

if TYPE_CHECKING:
    from power_feed.config import FarmConfig, FeedConfig

OPTIONS = {
    "run": ("config", "log_level"),
    "test": ("config", "farm", "seconds"),
    "backtest": ("wind", "json"),
}
"""Of each action."""
DEFAULT_TEST_SECONDS = 10.0
MAX_TEST_SECONDS = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a service, and what the other actions ask for."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=tuple(OPTIONS),
        default="run",
        help="run: serve (default); test: read one farm's source for a while and say what comes; "
        "backtest: how good the forecast is on a record",
    )
    services.add_arguments(parser)
    backtest.wind_argument(parser)
    parser.add_argument("--farm", metavar="NAME", help="test: which farm; needed where there are several")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help=f"test: how long to look (default: {DEFAULT_TEST_SECONDS:g})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM, or look and return: 0 the source can be used, 1 it cannot; 0 after a back-test.

    Raises:
        ConfigError: the configuration is wrong.
    """
    _refuse_options_of_others(arguments)
    if arguments.action == "run":
        return services.run(arguments)
    if arguments.action == "backtest":
        return backtest.run(arguments)
    return _test(arguments)


def _refuse_options_of_others(arguments: argparse.Namespace) -> None:
    """An option that does nothing is a mistake; a file that the environment names is nobody's."""
    given = {name for names in OPTIONS.values() for name in names if getattr(arguments, name)}
    if str(arguments.config) == os.environ.get(services.CONFIG_VARIABLE):
        given.discard("config")
    for name in sorted(given.difference(OPTIONS[arguments.action])):
        actions = " and ".join(action for action, names in OPTIONS.items() if name in names)
        option = "--" + name.replace("_", "-")
        raise ConfigError(f"heron power-feed {arguments.action}: {option} is for {actions} only")


def _test(arguments: argparse.Namespace) -> int:
    import logging

    from power_feed.config import load

    logging.disable(logging.CRITICAL)  # what matters is printed, in an operator's words
    _, config = load(arguments.config)
    farm = _chosen(config, arguments.farm)
    return asyncio.run(_look(config, farm, arguments.seconds or DEFAULT_TEST_SECONDS))


async def _look(config: FeedConfig, farm: FarmConfig, seconds: float) -> int:
    from power_feed.probe import Probe

    def say(line: str) -> None:
        print(line, flush=True)

    probe = Probe(config, farm, say)
    result = await probe.run(seconds)
    faults = sum(result.faults.values())
    say("")
    say(f"{result.measurements} measurements ({result.good} good), {faults} faults in {seconds:g} s")
    for line in probe.advice():
        say(f"  {line}")
    if result.is_usable:
        say("The feed can use this source." if not faults else "The feed can use this source, but see above.")
        return exit_codes.DONE
    say("The feed cannot use this source.")
    return exit_codes.BAD_RUN


def _chosen(config: FeedConfig, name: str | None) -> FarmConfig:
    """The farm of that name, or the only one."""
    names = [farm.farm_id for farm in config.farms]
    if name is None:
        if len(names) > 1:
            raise ConfigError(f"there are several farms: choose one with --farm: {', '.join(names[:20])}")
        return config.farms[0]
    for farm in config.farms:
        if farm.farm_id == name:
            return farm
    raise ConfigError(f"--farm {name}: there is no such farm; there are {', '.join(names[:20])}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= MAX_TEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: more than 0 and at most {MAX_TEST_SECONDS:g} seconds")
    return value
