"""`heron router`, `heron site-agent`, `heron power-feed`: one service, in this process, until SIGTERM.

Each reads the same kind of file (fleet/config.py); without one, defaults and the environment.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from cli import exit_codes
from fleet.config import ConfigError

CONFIG_VARIABLE = "HERON_CONFIG"
CANNOT_LISTEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
"""What a wrong host or port looks like; any other OSError is unexpected."""
DEFAULT_LOG_LEVEL = "info"
MAX_WORKERS = 64
"""As in router/config.py, which is not imported for a `--help`."""
LOG_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a service; only a site agent has a site."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        help=f"configuration in TOML (default: ${CONFIG_VARIABLE}); `heron up --example` prints one",
    )
    if parser.prog.endswith("site-agent"):
        parser.add_argument(
            "--site", metavar="NAME", help="which of the file's sites; needed where it has several"
        )
    if parser.prog.endswith("router"):
        parser.add_argument(
            "--workers",
            type=workers,
            metavar="N",
            help="processes that forward, behind one port (default: the file's, 1)",
        )
        parser.add_argument(
            "--policy", metavar="NAME", help="who gets requests: docs/policies.md (default: the file's)"
        )
        parser.add_argument(
            "--policy-parameters",
            metavar="FILE",
            type=Path,
            help="parameters of policies, in TOML, a table for each (default: those in the file)",
        )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        help="what is logged, as JSON on stderr (default: the file's, info)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the service until SIGTERM or SIGINT; 0 after a graceful stop.

    Raises:
        ConfigError: the configuration is wrong.
    """
    import uvloop

    from fleet.failure import ServiceError
    from fleet.log import configure_logging
    from gateway.open_files import raise_open_files_limit

    service, log_level = _load(arguments)
    configure_logging(arguments.command, arguments.log_level or log_level)
    raise_open_files_limit()
    try:
        uvloop.run(service)
    except ServiceError as error:
        print(f"heron {arguments.command}: {error}", file=sys.stderr)
        return exit_codes.BAD_RUN
    except OSError as error:
        if error.errno not in CANNOT_LISTEN:
            raise
        print(f"heron {arguments.command}: {error.strerror or error}", file=sys.stderr)
        return exit_codes.BAD_RUN
    return exit_codes.DONE


def _load(arguments: argparse.Namespace) -> tuple[Coroutine[Any, Any, None], str]:
    """The service's `serve`, its configuration read; and the log level that the file asks for."""
    path: Path | None = arguments.config
    if arguments.command == "router":
        from router.app import serve as serve_router
        from router.config import load as load_router
        from router.policy.policies import POLICIES

        environ = dict(os.environ)
        if arguments.workers is not None:
            environ["HERON_ROUTER_WORKERS"] = str(arguments.workers)
        if arguments.policy is not None:
            if arguments.policy not in POLICIES:
                names = ", ".join(sorted(POLICIES))
                raise ConfigError(f"--policy {arguments.policy}: no such policy; allowed are {names}")
            environ["HERON_ROUTER_POLICY"] = arguments.policy
        fleet, router = load_router(path, environ, parameters=arguments.policy_parameters)
        return serve_router(fleet, router), router.log_level
    if arguments.command == "site-agent":
        from site_agent.app import serve as serve_site
        from site_agent.config import load as load_site

        return serve_site(*load_site(path, arguments.site)), DEFAULT_LOG_LEVEL
    from power_feed.app import serve as serve_feed
    from power_feed.config import load as load_feed

    return serve_feed(*load_feed(path)), DEFAULT_LOG_LEVEL


def workers(text: str) -> int:
    """The value of `--workers`."""
    value = int(text)
    if not 1 <= value <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text}: allowed are 1 to {MAX_WORKERS}")
    return value
