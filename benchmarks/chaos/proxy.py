"""A TCP connection's way through a bad network: delayed, held, reset, half open, or cut after some bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 << 10
LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection that is closed with a reset."""

Mode = Literal["pass", "slow", "blackhole", "reset", "cut"]


class Link:
    """Listens on `port`, and passes to `upstream_port` what the mode of the moment lets through."""

    def __init__(self, name: str, port: int, upstream_port: int) -> None:
        self.name = name
        self.port = port
        self._upstream_port = upstream_port
        self._mode: Mode = "pass"
        self._delay_seconds = 0.0
        self._cut_bytes = 0
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._pairs)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._take, LOOPBACK, self.port, limit=CHUNK_BYTES)

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for pair in tuple(self._pairs):
            pair.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def set_pass(self) -> None:
        """All is well again; what was held goes on its way."""
        self._mode = "pass"
        self._may_pass.set()

    def set_slow(self, delay_seconds: float) -> None:
        """Whatever comes waits so long, both ways."""
        self._mode, self._delay_seconds = "slow", delay_seconds

    def set_blackhole(self) -> None:
        """Connections are taken, and nothing moves."""
        self._mode = "blackhole"
        self._may_pass.clear()

    def set_reset(self) -> None:
        """Every connection is reset, and every new one."""
        self._mode = "reset"
        for pair in tuple(self._pairs):
            pair.reset()

    def set_cut(self, after_bytes: int) -> None:
        """Each connection is closed after so many more bytes of answers."""
        self._mode, self._cut_bytes = "cut", after_bytes
        for pair in self._pairs:
            pair.left_bytes = after_bytes

    def half_open(self) -> None:
        """The other side of every connection goes, and this side is not told."""
        for pair in self._pairs:
            pair.half_open()

    async def pause(self) -> None:
        """Wait as the mode of the moment says."""
        if self._mode == "slow":
            await asyncio.sleep(self._delay_seconds)
        await self._may_pass.wait()

    @property
    def is_cutting(self) -> bool:
        return self._mode == "cut"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(self, reader, writer, left_bytes=self._cut_bytes)
        self._pairs.add(pair)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            if self._mode == "reset":
                pair.reset()
            else:
                await pair.run(self._upstream_port)
        finally:
            pair.close()
            self._pairs.discard(pair)


class _Pair:
    """One connection and its continuation."""

    def __init__(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, left_bytes: int
    ) -> None:
        self._link = link
        self._near = reader, writer
        self._far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._over = asyncio.Event()
        self._is_half_open = False
        self.left_bytes = left_bytes

    async def run(self, upstream_port: int) -> None:
        """Until either side ends it, or the link does."""
        over = asyncio.create_task(self._over.wait())
        pumping = asyncio.create_task(self._pump(upstream_port))
        try:
            await asyncio.wait((over, pumping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            pumping.cancel()
            await asyncio.gather(over, pumping, return_exceptions=True)

    async def _pump(self, upstream_port: int) -> None:
        with suppress(OSError):
            await self._link.pause()
            self._far = await asyncio.open_connection(LOOPBACK, upstream_port, limit=CHUNK_BYTES)
            ways = [
                asyncio.create_task(self._pass_on(self._near[0], self._far[1], is_answer=False)),
                asyncio.create_task(self._pass_on(self._far[0], self._near[1], is_answer=True)),
            ]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._link.pause()
            if self._is_half_open:
                continue
            if is_answer and self._link.is_cutting:
                data = data[: self.left_bytes]
                self.left_bytes -= len(data)
            writer.write(data)
            await writer.drain()
            if is_answer and self._link.is_cutting and self.left_bytes <= 0:
                self._over.set()
                return
        await self._link.pause()
        if self._is_half_open and is_answer:
            await self._over.wait()  # nobody is told
        self._over.set()  # what talks here closes both ways at once

    def half_open(self) -> None:
        self._is_half_open = True
        if self._far is not None:
            self._far[1].transport.abort()

    def reset(self) -> None:
        """Close both sides with a reset."""
        for side in (self._near, self._far):
            if side is None:
                continue
            peer = side[1].get_extra_info("socket")
            if peer is not None:
                with suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            side[1].transport.abort()
        self._over.set()

    def close(self) -> None:
        """Close both sides; what was written still goes out."""
        self._over.set()
        for side in (self._near, self._far):
            if side is not None:
                side[1].close()

    def abort(self) -> None:
        """Close both sides at once."""
        self._over.set()
        for side in (self._near, self._far):
            if side is not None:
                side[1].transport.abort()
