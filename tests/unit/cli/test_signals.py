"""Ctrl-C counts, whenever it comes."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, os, signal, uvloop
from cli.signals import signals_held, stop_request

async def work():
    with stop_request() as stop:
        async with asyncio.timeout(10):
            await stop.requested.wait()
        return stop.signal

with signals_held():
    os.kill(os.getpid(), signal.SIGINT)
    assert uvloop.run(work()) is signal.SIGINT
assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def test_a_signal_that_comes_while_the_loop_starts_is_not_lost() -> None:
    """It waits until somebody listens; afterwards nothing is held.

    In a process of its own: here other threads might take the signal.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
