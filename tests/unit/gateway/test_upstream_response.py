"""An answer that is read whole."""

from __future__ import annotations

import asyncio
from typing import Any

from support.memory import traced_bytes

from gateway.origin import Origin
from gateway.upstream_response import UpstreamResponse


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
