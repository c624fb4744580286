"""`heron doctor`: looks one site over, and says what to do about what is wrong.

Exit code 0 when nothing fails (warnings are no failure), 1 when something does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cli import exit_codes
from cli.services import CONFIG_VARIABLE

if TYPE_CHECKING:
    from site_agent.promises import Finding

_MARKS = {"pass": "ok  ", "warn": "WARN", "fail": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which site, and how to print."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        help=f"configuration in TOML (default: ${CONFIG_VARIABLE})",
    )
    parser.add_argument("--site", metavar="NAME", help="which of the file's sites")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print.

    Raises:
        ConfigError: the configuration is wrong; what it says is the first finding.
    """
    from site_agent import doctor
    from site_agent.config import load

    fleet, site = load(arguments.config, arguments.site)
    found = asyncio.run(doctor.examine(fleet, site))
    print(as_json(site.site_id, found) if arguments.json else as_lines(site.site_id, found))
    return exit_codes.BAD_RUN if any(one.status == "fail" for one in found) else exit_codes.DONE


def as_lines(site_id: str, found: list[Finding]) -> str:
    """For a person."""
    lines = [f"site {site_id}"]
    for one in found:
        lines.append(f"  {_MARKS[one.status]} {one.check}: {one.message}")
        if one.action:
            lines.append(f"       do: {one.action}")
    counts = {status: sum(one.status == status for one in found) for status in _MARKS}
    lines.append(f"{counts['pass']} well, {counts['warn']} to look at, {counts['fail']} failing")
    return "\n".join(lines)


def as_json(site_id: str, found: list[Finding]) -> str:
    """For a program."""
    return json.dumps({"site_id": site_id, "findings": [asdict(one) for one in found]}, indent=2)
