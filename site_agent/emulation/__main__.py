"""`python -m site_agent.emulation --config JSON`: the process of a site's fake hardware.

Prints one JSON line with its control port when it is up. It ends with its parent, whatever kills that: by the
kernel's parent-death signal (`parent_pid` in the settings) and when standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys

import orjson
import uvloop
from pydantic import ValidationError

from fleet.log import configure_logging
from fleet.parent import die_with_parent
from site_agent.emulation.config import HostSettings
from site_agent.emulation.control import create_server
from site_agent.emulation.host import FakeHost

EXIT_FAILED = 1
EXIT_USAGE = 2
MAX_SETTINGS_BYTES = 1 << 20


def main(argv: list[str] | None = None) -> int:
    """Run until a signal or the parent's end."""
    parser = argparse.ArgumentParser(
        prog="python -m site_agent.emulation",
        description="FAKE hardware of one site: emulated vLLM engines and GPUs.",
        epilog="""example: python -m site_agent.emulation --keep --config '{"site_id": "north", """
        """"model": "llama-3.1-70b", "profile": "llama-3.1-70b/h100/tp4", "start_seconds": 0, """
        """"engines": [{"instance_id": "north-0", "port": 8101, "gpu_indices": [0, 1, 2, 3]}]}'""",
    )
    parser.add_argument("--config", required=True, metavar="JSON", help="settings; '-': a line of stdin")
    parser.add_argument("--keep", action="store_true", help="stay when standard input ends")
    arguments = parser.parse_args(argv)
    text = arguments.config
    if text == "-":
        text = sys.stdin.buffer.readline(MAX_SETTINGS_BYTES).decode(errors="replace")
    try:
        settings = HostSettings.model_validate_json(text)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            where = ".".join(str(part) for part in fault["loc"]) or "settings"
            print(f"--config: {where}: {fault['msg']}", file=sys.stderr)  # noqa: T201 -- to a person
        return EXIT_USAGE
    configure_logging("fake-hardware", settings.log_level)
    try:
        if settings.parent_pid is not None and not die_with_parent(settings.parent_pid):
            return EXIT_FAILED
        uvloop.run(_serve(settings, is_tied=not arguments.keep))
    except OSError as error:
        print(f"fake hardware of {settings.site_id}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    return 0


async def _serve(settings: HostSettings, *, is_tied: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if is_tied:
        loop.add_reader(sys.stdin.fileno(), _watch_stdin, ended)
    host = FakeHost(settings)
    server = create_server(host)
    meter = asyncio.create_task(host.run())
    meter.add_done_callback(lambda _: ended.set())
    try:
        await server.start()
        line = orjson.dumps({"fake": True, "control_port": server.port, "pid": os.getpid()})
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        await ended.wait()
        if meter.done():
            meter.result()  # the log could not be written: say so and end
    finally:
        loop.remove_reader(sys.stdin.fileno())
        meter.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await meter
        await host.aclose()
        await server.stop(0.0)


def _watch_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ended.set()


if __name__ == "__main__":
    sys.exit(main())
