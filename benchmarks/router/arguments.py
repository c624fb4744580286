"""What all commands here take: where to run, API keys or none, whether to write results."""

from __future__ import annotations

import argparse
import os
from typing import Any, get_args

from benchmarks.router.measure import Setting
from router.config import RouterConfig


def parser(name: str, document: str | None, *, seconds: float) -> argparse.ArgumentParser:
    """A parser with the common arguments. `name` is the module, `seconds` the default length of a window."""
    made = argparse.ArgumentParser(
        prog=f"python -m {name}", description=document, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument(
        "--seconds", type=float, default=seconds, help=f"of a measured window (default {seconds:g})"
    )
    made.add_argument(
        "--auth",
        choices=["keys", "open"],
        default=best_auth(),
        help="whether Heron checks API keys (default: %(default)s, the most that it can)",
    )
    made.add_argument("--proxy-core", default="1", help="as taskset takes it (default 1)")
    made.add_argument("--load-core", type=int, default=0, help="of load and upstream together (default 0)")
    made.add_argument("--dry", action="store_true", help="print, and leave RESULTS.md and results.json")
    return made


def setting(options: argparse.Namespace, **changes: Any) -> Setting:
    """As the arguments say; this process moves to the load's core."""
    os.sched_setaffinity(0, {options.load_core})
    values = {
        "proxy_core": options.proxy_core,
        "load_core": options.load_core,
        "seconds": options.seconds,
        "use_keys": options.auth == "keys",
    }
    return Setting(**{**values, **changes})


def names(text: str) -> list[str]:
    """`NAME,NAME`."""
    return text.split(",")


def best_auth() -> str:
    """`keys` where this router can check API keys."""
    known = get_args(RouterConfig.model_fields["auth"].annotation)
    return "keys" if "keys" in known else "open"
