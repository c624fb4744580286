"""One thread for a library whose calls block, and may hang for ever.

Rules: calls run one after another, in their order; the thread is a daemon, so that one that hangs does not
hold up the end of the process; and once abandoned, no call begins any more, when that one ends after all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class CallThread:
    """Started by the first call."""

    def __init__(self, name: str) -> None:
        self.is_abandoned = False
        """Seen by calls of several steps too: no further step then."""
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """What it returns or raises, for the loop that asks."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 -- raised again where it is awaited
                _tell(loop, future, future.set_exception, error)
            else:
                _tell(loop, future, future.set_result, value)

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(run)
        return future

    def close(self) -> None:
        """The thread ends after the calls that are queued."""
        self._calls.put(None)

    def abandon(self) -> None:
        """It ends after the call that runs; what is queued is dropped."""
        self.is_abandoned = True
        self.close()

    def _run(self) -> None:
        while (run := self._calls.get()) is not None:
            if self.is_abandoned:
                return
            run()


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], tell: Callable[[Any], None], what: Any
) -> None:
    def settle() -> None:
        if not future.done():  # else nobody waits any more
            tell(what)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        if not loop.is_closed():
            raise
