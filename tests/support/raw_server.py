"""A TCP server that answers nonsense, nothing, or hangs up: what stands at a wrong address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.ports import LOOPBACK


@asynccontextmanager
async def raw_server(answer: bytes | None, *, hang_up: bool = False) -> AsyncIterator[int]:
    """Its port. Every chunk that comes is answered with `answer` (None: silence)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not hang_up and await reader.read(4096):
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
