"""A worker as its parent sees it: one process, two sockets, its page of the shared memory, and what it last
said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import orjson

from fleet.quota_book import Spending
from router.live.site_counts import SiteCounts
from router.workers.frames import Frame, Kind, encode
from router.workers.link import Link
from router.workers.merge import Page, from_json
from router.workers.setup import WorkerSetup
from router.workers.shared import SharedMemory, WorkerPage

logger = logging.getLogger(__name__)


class Child:
    """One life of one worker; a restart is a new object."""

    def __init__(
        self,
        setup: WorkerSetup,
        memory: SharedMemory,
        *,
        on_event: Callable[[int, list[Any]], None],
        on_break: Callable[[str, str, int], None],
        on_ready: Callable[[], None],
        on_spent: Callable[[Child, bytes], None],
    ) -> None:
        self.index = setup.index
        self.page: WorkerPage = memory.pages[setup.index]
        self.is_ready = False
        """It serves."""
        self.counted = asyncio.Event()
        """It has ended, and what it counted is in the parent's books."""
        self.held = 0
        self.policy = ""
        """The one that it said it routes by."""
        self.cpu_seconds = 0.0
        self.sites: dict[str, SiteCounts] = {}
        self.demand: list[list[Any]] = []
        """What clients asked of it so far (`router.live.demand_meter`)."""
        self.metrics: Page = {}
        self.spendings: dict[str, Spending] = {}
        """What it spent of each API key's quotas, as it last said."""
        self._setup = setup
        self._memory = memory
        self._on_event = on_event
        self._on_break = on_break
        self._on_ready = on_ready
        self._on_spent = on_spent
        self._handed = 0
        self._hand: socket.socket | None = None
        self._link = Link(self._take, self._lost)
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[int, asyncio.Future[None]] = {}

    @property
    def pid(self) -> int | None:
        """None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def open_connections(self) -> int | None:
        """None while it takes none."""
        return self._handed - self.page.closed if self.is_ready else None

    async def start(self) -> None:
        """Launch it and tell it who it is.

        Raises:
            OSError: the process cannot be made.
        """
        control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        hand, their_hand = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            descriptors = (their_control.fileno(), their_hand.fileno(), self._memory.descriptor)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router.workers.worker", str(os.getpid()), *map(str, descriptors)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        except OSError:
            control.close()
            hand.close()
            raise
        finally:
            their_control.close()
            their_hand.close()
        hand.setblocking(False)
        self._hand = hand
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=control)
        self._link.send(encode(Kind.SETUP, self._setup.to_json()))

    async def wait(self) -> int:
        """Until it ends; its exit code, negative: the signal that ended it."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def kill(self) -> None:
        """End it now."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """It has ended: let go of its sockets and of whoever waits for its word."""
        self.is_ready = False
        self._link.close()
        if self._hand is not None:
            self._hand.close()
            self._hand = None
        self._lost()

    def send(self, frame: bytes) -> None:
        """Tell it something; one that does not read what it is told is killed, and its successor told all."""
        if self._link.is_stuck:
            logger.error("a worker does not read: it is ended", extra={"worker": self.index})
            self.kill()
            return
        self._link.send(frame)

    def hand(self, connection: socket.socket) -> bool:
        """Give it a connection; False if it cannot take it now. Either way our own end stays the caller's."""
        if self._hand is None:
            return False
        try:
            socket.send_fds(self._hand, [b"\0"], [connection.fileno()])
        except OSError:  # it is full, or gone: another worker takes it
            return False
        self._handed += 1
        return True

    def ask(self, number: int, kind: Kind) -> asyncio.Future[None]:
        """Done when it has answered or ended."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        answered.add_done_callback(lambda _: self._asked.pop(number, None))
        self.send(encode(Kind.ASK, orjson.dumps([number, kind])))
        return answered

    def stop(self, grace_seconds: float) -> None:
        """Ask it to finish within the grace."""
        self.is_ready = False
        self._link.send(encode(Kind.STOP, orjson.dumps(grace_seconds)))

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.READY:
                self.is_ready = True
                self._on_ready()
            case Kind.EVENT:
                self._on_event(self.index, orjson.loads(frame.body))
            case Kind.BREAK:
                self._on_break(*orjson.loads(frame.body))
            case Kind.SPENT:
                self._on_spent(self, frame.body)
            case Kind.STATE:
                value = orjson.loads(frame.body)
                self.held, self.sites = value["held"], value["sites"]
                self.policy = value["policy"]
                self.cpu_seconds, self.demand = value["cpu_seconds"], value["demand"]
                self._answered(value["ask"])
            case Kind.METRICS:
                value = orjson.loads(frame.body)
                self.metrics = from_json(value["page"])
                self._answered(value["ask"])
            case _:
                raise AssertionError(f"{frame.kind!r} is not for a parent")

    def _answered(self, number: int) -> None:
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(None)

    def _lost(self) -> None:
        self.is_ready = False
        for number in list(self._asked):
            self._answered(number)
