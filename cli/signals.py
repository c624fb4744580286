"""Ctrl-C and SIGTERM as events: the first asks for an orderly end, the second for a quick one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP: the terminal was closed."""


class StopRequest:
    """What was asked from outside."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.is_urgent = asyncio.Event()
        self.signal: signal.Signals | None = None
        """The first one that came."""

    def _take(self, number: signal.Signals) -> None:
        if self.requested.is_set():
            self.is_urgent.set()
            return
        self.signal = number
        self.requested.set()


@contextmanager
def signals_held() -> Iterator[None]:
    """From here to `stop_request` a signal waits. While a loop starts, one that comes between its handlers
    and ours would be lost, and the command would run on to its end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Take over the signals in the running loop; the former handling is back afterwards."""
    loop = asyncio.get_running_loop()
    request = StopRequest()
    for number in SIGNALS:
        loop.add_signal_handler(number, request._take, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield request
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
