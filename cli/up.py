"""`heron up`: a whole fleet from one configuration file, kept up until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli import exit_codes
from cli.services import CONFIG_VARIABLE
from fleet.config import ConfigError

if TYPE_CHECKING:
    from cli.supervisor import Service, Supervisor
    from cli.topology import Topology

EXAMPLE = Path(__file__).with_name("example_fleet.toml")
HURRIED_GRACE_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron up`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        help=f"the fleet's configuration in TOML (default: ${CONFIG_VARIABLE})",
    )
    parser.add_argument("--example", action="store_true", help="print a configuration that works, and end")
    parser.add_argument(
        "--no-redis", action="store_true", help="never start a Redis: one answers at [fleet] redis_url"
    )
    parser.add_argument(
        "--log-dir",
        metavar="DIR",
        type=Path,
        help="where each service logs (default: beside FILE, heron-logs)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Start everything, restart what dies, stop everything in order; 0 after a stop that was asked for.

    Raises:
        ConfigError: the configuration is wrong, or there is none.
    """
    if arguments.example:
        sys.stdout.write(EXAMPLE.read_text())
        return exit_codes.DONE
    if arguments.config is None:
        raise ConfigError("heron up: no configuration: give --config FILE; `heron up --example` prints one")
    import uvloop

    from cli.signals import signals_held
    from cli.topology import build_topology

    path = Path(arguments.config).resolve()
    log_directory = path.parent / "heron-logs" if arguments.log_dir is None else arguments.log_dir.resolve()
    redis = _redis(path, log_directory, may_start_redis=not arguments.no_redis)
    topology = build_topology(path, os.environ, redis=redis)
    _make_writable(log_directory)
    _say(f"logs: {log_directory}")
    with signals_held():
        return uvloop.run(_up(topology, log_directory))


def _make_writable(log_directory: Path) -> None:
    try:
        log_directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(log_directory, os.W_OK | os.X_OK):
            return
        reason = "permission denied"
    raise ConfigError(f"heron up: logs cannot be written to {log_directory}: {reason}; choose with --log-dir")


async def _up(topology: Topology, log_directory: Path) -> int:
    from cli.signals import stop_request
    from cli.supervisor import StartError, Supervisor

    supervisor = Supervisor(
        topology.stages,
        log_directory=log_directory,
        environment=os.environ,
        report=_say,
        restart=True,
    )
    with stop_request() as stop:
        starting = asyncio.create_task(supervisor.start())
        stopping = asyncio.create_task(stop.requested.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _say(f"up: {topology.base_url} (console: {topology.console_url}); Ctrl-C stops it")
                await stopping
        except StartError as error:
            _say(str(error))
            return exit_codes.BAD_RUN
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            _say("stopping")
            await stop_in_order(supervisor, stop.is_urgent)
            _say("stopped")
    return exit_codes.DONE


async def stop_in_order(supervisor: Supervisor, is_urgent: asyncio.Event) -> None:
    """Stop everything within its graces; from the moment of `is_urgent`, within a second."""
    orderly = asyncio.create_task(supervisor.stop())
    urgent = asyncio.create_task(is_urgent.wait())
    await asyncio.wait((orderly, urgent), return_when=asyncio.FIRST_COMPLETED)
    if not orderly.done():
        orderly.cancel()
        await asyncio.gather(orderly, return_exceptions=True)
        await supervisor.stop(longest_grace_seconds=HURRIED_GRACE_SECONDS)
    else:
        orderly.result()
    urgent.cancel()


def _redis(path: Path, directory: Path, *, may_start_redis: bool) -> Service | None:
    """The Redis to start; None where one answers already.

    Raises:
        ConfigError: none answers, and none may or can be started.
    """
    from redis import Redis
    from redis.exceptions import RedisError

    from cli.supervisor import PROBE_SECONDS
    from cli.topology import is_local, redis_service
    from fleet.config import load_fleet, read_file, without_password

    url = load_fleet(read_file(path), str(path), os.environ).redis_url
    shown = without_password(url)
    try:
        with Redis.from_url(url, socket_connect_timeout=PROBE_SECONDS, socket_timeout=PROBE_SECONDS) as redis:
            redis.ping()
    except RedisError as error:
        if not may_start_redis or not is_local(url):
            raise ConfigError(
                f"{path}: [fleet] redis_url = {shown!r}: no Redis answers there: {error}"
            ) from None
    else:
        _say(f"using the Redis that answers at {shown}")
        return None
    return redis_service(url, directory)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
