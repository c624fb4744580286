"""An answer that is read whole."""

from __future__ import annotations

import asyncio
from typing import Any

from support.memory import traced_bytes

from gateway.origin import Origin
from gateway.upstream_response import BUFFER_HIGH_BYTES, UpstreamResponse


class Connection:
    """Carries nothing."""

    transport: Any = None
    is_closed = is_reused = False

    def cut(self) -> None:
        """Nothing to close."""

    def release(self, response: UpstreamResponse) -> None:
        """Nothing to give back."""


async def test_an_answer_in_tiny_pieces_takes_little_more_than_its_bytes() -> None:
    """Each by itself would take 27 times as much."""
    loop = asyncio.get_running_loop()
    response = UpstreamResponse(Connection(), Origin.parse("http://127.0.0.1:1"), loop)
    reading = loop.create_task(response.read(1_000_000))
    await asyncio.sleep(0)
    with traced_bytes() as held_bytes:
        for number in range(20_000):
            response.take(b"%02d" % (number % 100))
        assert held_bytes() < 100_000
    response.complete()
    assert await reading == b"".join([b"%02d" % (number % 100) for number in range(20_000)])


class Transport:
    """Knows whether it is read."""

    is_reading = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def test_a_reader_that_pauses_at_what_came_before_it_is_not_read_for() -> None:
    """Its client's buffer is full by the first pieces: what had come before the relay began."""
    loop = asyncio.get_running_loop()
    connection = Connection()
    connection.transport = Transport()
    response = UpstreamResponse(connection, Origin.parse("http://127.0.0.1:1"), loop)
    for _ in range(3):
        response.take(b"x" * BUFFER_HIGH_BYTES)
    assert not connection.transport.is_reading
    relaying = loop.create_task(response.relay(lambda _: response.pause()))
    await asyncio.sleep(0)
    assert not connection.transport.is_reading
    response.resume()
    assert connection.transport.is_reading
    response.complete()
    await relaying
