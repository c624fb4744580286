"""What a deployment starts, read as its service reads it: command line by the parser, file by its reader."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import power_feed.config
import router.config
import site_agent.config
from cli import main


def read_as_started(
    command: Sequence[str], environment: Mapping[str, str], here: Callable[[Path], Path]
) -> tuple[argparse.Namespace, Any]:
    """The parsed command line, and the service's own table; `here`: a path in the container → where it lies.

    Raises:
        ConfigError: as the service would end with.
        SystemExit: the command line is none of Heron's.
    """
    arguments = main.parse(list(command))
    path = here(Path(arguments.config))
    if arguments.command == "router":
        return arguments, router.config.load(path, environment)[1]
    if arguments.command == "power-feed":
        return arguments, power_feed.config.load(path, environment)[1]
    return arguments, site_agent.config.load(path, arguments.site, environment)[1]
