"""Ctrl-C and SIGTERM as events: the first asks for an orderly end, the second for a quick one.

SIGHUP counts too, unless it is ignored: who starts a command with `nohup` wants it to outlive the terminal.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

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


_early: list[signal.Signals] = []
"""Came while signals were held, by way of a thread that does not hold them."""


@contextmanager
def signals_held() -> Iterator[None]:
    """From here to `stop_request` a signal waits. While a loop starts, one that comes between its handlers
    and ours would be lost, and the command would run on to its end. The mask is this thread's alone: the
    system may hand the signal to another one (numpy has some), so it is noted, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here
        return
    _early.clear()
    former = {
        number: signal.signal(number, lambda taken, _frame: _early.append(signal.Signals(taken)))
        for number in SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Take over the signals in the running loop; the former handling is back afterwards."""
    loop = asyncio.get_running_loop()
    request = StopRequest()
    numbers = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, request._take, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    while _early:
        request._take(_early.pop(0))
    try:
        yield request
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def run_until_told(work: Coroutine[Any, Any, None]) -> bool:
    """Whether a signal ended it: the first cancels it, and what it then puts right is waited for.

    Later signals change nothing. In another thread than the main one no signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        await work
        return False
    with stop_request() as stop:
        working = asyncio.create_task(work)
        told = asyncio.create_task(stop.requested.wait())
        await asyncio.wait((working, told), return_when=asyncio.FIRST_COMPLETED)
        for task in (told, working):
            task.cancel()
        await asyncio.wait((working,))
    if working.cancelled():
        return True
    working.result()
    return False
