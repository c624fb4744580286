"""A power feed's direct stream on a real socket, as a test says."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fleet.records import PowerQuality, PowerReading
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from gateway.tls_renewal import RenewedTls

_SEQUENCES = itertools.count(int(time.time() * 1000))


def reading(
    granted_watts: float,
    *,
    sequence: int | None = None,
    site_id: str = "north",
    quality: PowerQuality = "good",
    period_seconds: float = 1.0,
    feed_id: str = "feed-1",
    observed_at: float | None = None,
) -> PowerReading:
    """A valid reading with the next sequence."""
    return PowerReading(
        feed_id=feed_id,
        sequence=next(_SEQUENCES) if sequence is None else sequence,
        site_id=site_id,
        farm_id=f"{site_id}-farm",
        observed_at_unix_seconds=time.time() if observed_at is None else observed_at,
        period_seconds=period_seconds,
        available_power_watts=granted_watts,
        granted_power_watts=granted_watts,
        nameplate_capacity_watts=20_000.0,
        quality=quality,
        source="test",
    )


class StubFeed:
    """Serves `/v1/power/<site>/stream`."""

    def __init__(self, tls: RenewedTls | None = None) -> None:
        self.is_tls = tls is not None
        self.connections = 0
        self.status = 200
        self.paths: list[str] = []
        self.agent_headers: list[bytes | None] = []
        """`x-heron-site-agent` of each request."""
        self._clients: set[ClientRequest] = set()
        self.server = HttpServer(hot=self._route, tls=tls)

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.server.port}"

    def _route(self, _method: str, path: str) -> HotHandler:
        self.paths.append(path)
        return self._serve

    async def _serve(self, request: ClientRequest) -> None:
        self.connections += 1
        self.agent_headers.append(request.fields.get(b"x-heron-site-agent"))
        if self.status != 200:
            request.respond(self.status, (), b"")
            return
        request.start(200, ((b"content-type", b"text/event-stream"),))
        self._clients.add(request)
        try:
            await asyncio.Event().wait()
        finally:
            self._clients.discard(request)

    @property
    def listeners(self) -> int:
        return len(self._clients)

    def send(self, data: bytes) -> None:
        """Raw bytes to everyone who listens."""
        for client in self._clients:
            client.write(data)

    def say(self, record: PowerReading) -> None:
        """One reading as an event."""
        self.send(b"data: " + record.to_json() + b"\n\n")

    def cut(self) -> None:
        """End every stream."""
        self.server.abort_connections()


@asynccontextmanager
async def running_feed(tls: RenewedTls | None = None) -> AsyncIterator[StubFeed]:
    """A feed on a free port."""
    feed = StubFeed(tls)
    await feed.server.start()
    try:
        yield feed
    finally:
        await feed.server.stop(0)
