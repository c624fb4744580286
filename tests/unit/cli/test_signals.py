"""Ctrl-C counts, whenever it comes."""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop

from cli.signals import signals_held, stop_request


def test_a_signal_that_comes_while_the_loop_starts_is_not_lost() -> None:
    """It waits until somebody listens; afterwards nothing is held."""

    async def work() -> signal.Signals | None:
        with stop_request() as stop:
            async with asyncio.timeout(10):
                await stop.requested.wait()
            return stop.signal

    with signals_held():
        os.kill(os.getpid(), signal.SIGINT)
        assert uvloop.run(work()) is signal.SIGINT
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
