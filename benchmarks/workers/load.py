"""A closed loop over plain sockets: so many connections, each sends as soon as it has its answer."""

from __future__ import annotations

import asyncio

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 80}'


def _head(connection: str) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"connection: {connection}\r\ncontent-length: {len(BODY)}\r\n\r\n"
    ).encode()


KEEP_ALIVE, CLOSE = _head("keep-alive") + BODY, _head("close") + BODY


class ClosedLoop:
    """Counts what completes while it runs."""

    def __init__(self, port: int, *, connections: int, is_kept: bool) -> None:
        self.completed = 0
        self.faults = 0
        self._port = port
        self._connections = connections
        self._is_kept = is_kept
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """All connections begin."""
        one = self._keep if self._is_kept else self._renew
        self._tasks = [asyncio.create_task(one()) for _ in range(self._connections)]

    async def stop(self) -> None:
        """Cut what is under way."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one

    async def _keep(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                await self._ask(reader, writer, KEEP_ALIVE)
        finally:
            writer.transport.abort()

    async def _renew(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await self._ask(reader, writer, CLOSE)
            finally:
                writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if head.startswith(b"HTTP/1.1 200"):
            self.completed += 1
        else:
            self.faults += 1
