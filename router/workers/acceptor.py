"""Accepts every client of a router and hands each connection to a worker.

Why the parent accepts: workers that accept for themselves get what the kernel's hash or a race gives them,
with 64 connections far from even (docs/decisions/0005). Here each connection goes to the worker with the
fewest.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable, Sequence

from router.workers.child import Child
from router.workers.pick import pick_worker

logger = logging.getLogger(__name__)

MAX_ACCEPTED_AT_ONCE = 64
"""In one turn of the loop."""
PAUSE_SECONDS = 0.02
"""When no worker takes anything: clients wait in the kernel's backlog."""


class Acceptor:
    """Around one listening socket."""

    def __init__(self, children: Callable[[], Sequence[Child | None]]) -> None:
        self._children = children
        self._last = -1
        self._listener: socket.socket | None = None
        self._waiting: socket.socket | None = None
        """Accepted, and no worker could take it."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from now on."""
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Hand over what has come already, then take no more."""
        listener = self._listener
        if listener is None:
            return
        self._listener = None
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._accept_from(listener)
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        listener.close()

    def _accept(self) -> None:
        if self._listener is not None and not self._accept_from(self._listener):
            self._pause(self._listener)

    def _accept_from(self, listener: socket.socket) -> bool:
        """Until nobody waits there; False when no worker takes anything."""
        for _ in range(MAX_ACCEPTED_AT_ONCE):
            if self._waiting is None:
                try:
                    self._waiting, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return True
                except OSError as error:
                    logger.error("cannot accept a connection: %s", error)  # noqa: TRY400 -- no descriptors left
                    return False
            if not self._hand(self._waiting):
                return False
            self._waiting.close()  # the worker has its own descriptor of it
            self._waiting = None
        return True

    def _hand(self, connection: socket.socket) -> bool:
        children = self._children()
        counts = [None if child is None else child.open_connections for child in children]
        while (index := pick_worker(counts, self._last)) is not None:
            child = children[index]
            assert child is not None, "what has a count is there"
            if child.hand(connection):
                self._last = index
                return True
            counts[index] = None
        return False

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        self._timer = loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
            self._accept()


def is_anybody_waiting(listener: socket.socket) -> bool:
    """Whether a client has connected that nobody has accepted yet."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
