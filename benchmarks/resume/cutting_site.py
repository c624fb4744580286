"""A site in front of one engine that can cut a streamed answer at any byte: for measuring resume.

It announces itself by the contract (docs/records.md) and passes bytes on as they are. Armed with a rule, it
closes the connection of the next event stream at the byte that the rule names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis

from gateway.api_paths import DERENDER_PATH, RENDER_PATH, USUAL_PATHS

ANNOUNCE_SECONDS = 0.5
KEY = "heron:default:"

CutRule = Callable[[bytes], int | None]
"""Of the answer's body so far, chunk framing included → where to cut it, or None: not yet."""


@dataclass(slots=True)
class CuttingSite:
    """One TCP proxy and its announcements."""

    site_id: str
    model: str
    engine_port: int
    max_model_len: int
    store: redis.Redis
    is_serving: bool = True
    """False: it reports that it drains, so that nobody sends it anything new."""
    running_requests: int | None = None
    """What it reports, where somebody counts; None: it does not say."""
    takes_ids: bool = True
    """False: it says that its engine knows no token ids, so that streams can only go on by text."""
    parses_ids: bool = False
    """It says that its engine tells what ids mean."""
    rule: CutRule | None = None
    """For the next event stream; None again once it has struck."""
    port: int = 0
    _is_stopping: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _sequence: int = field(default_factory=lambda: int(time.time() * 1000))

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        await self.announce()
        self._keep(self._announce_for_ever())

    async def stop(self) -> None:
        assert self._server is not None
        self._is_stopping = True
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def announce(self) -> None:
        """Write both records now."""
        self._sequence += 1
        common = {
            "schema_version": "1.0",
            "agent_id": f"cutting-{self.site_id}",
            "sequence": self._sequence,
            "site_id": self.site_id,
            "ingress_url": f"http://127.0.0.1:{self.port}",
        }
        model: dict[str, Any] = {"model": self.model, "ready_instances": 1, "max_concurrency": 8}
        if self.running_requests is not None:
            model["running_requests"] = self.running_requests
        report = common | {
            "observed_at_unix_seconds": time.time(),
            "state": "serving" if self.is_serving else "draining",
            "models": [model],
        }
        info = common | {
            "farm_id": self.site_id,
            "region": "local",
            "gpu_model": "none",
            "gpu_count": 0,
            "server_idle_watts": 0.0,
            "overhead_ratio": 1.0,
            "ride_through_seconds": 0.0,
            "ride_through_joules": 0.0,
            "safe_floor_watts": 0.0,
            "max_site_watts": 0.0,
            "capabilities": {
                "token_ids": self.takes_ids,
                "max_model_len": self.max_model_len,
                **({"paths": [*USUAL_PATHS, DERENDER_PATH, RENDER_PATH]} if self.parses_ids else {}),
            },
        }
        await self.store.set(f"{KEY}site-info:{self.site_id}", json.dumps(info))
        await self.store.set(f"{KEY}site:{self.site_id}", json.dumps(report), ex=60)
        await self.store.zadd(f"{KEY}sites", {self.site_id: time.time()})
        await self.store.publish(f"{KEY}events:site", json.dumps(report))

    async def _announce_for_ever(self) -> None:
        while not self._is_stopping:  # a cancellation in the middle of a command is lost in the Redis client
            await asyncio.sleep(ANNOUNCE_SECONDS)
            await self.announce()

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self.engine_port)
        except OSError:
            writer.close()
            return
        relay = _Relay(self)
        upward = asyncio.create_task(relay.upward(reader, engine_writer))
        try:
            await relay.downward(engine_reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # cancelled by `stop` alone, which waits for the end
        finally:
            upward.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await upward
            for one in (writer, engine_writer):
                one.transport.abort() if relay.has_cut else one.close()


class _Relay:
    """One connection, both ways."""

    def __init__(self, site: CuttingSite) -> None:
        self._site = site
        self._head = b""
        self._body: bytearray | None = None
        self.has_cut = False

    async def upward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._head, self._body = b"", None  # a new request: a new answer follows
            writer.write(data)
            await writer.drain()

    async def downward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            cut = self._cut_in(data)
            writer.write(data if cut is None else data[:cut])
            await writer.drain()
            if cut is not None:
                self.has_cut = True
                return

    def _cut_in(self, data: bytes) -> int | None:
        """How much of `data` still passes; None: all of it."""
        if self._site.rule is None:
            return None
        if self._body is None:
            self._head += data
            head, separator, body = self._head.partition(b"\r\n\r\n")
            if not separator or b"text/event-stream" not in head.lower():
                return None
            self._body = bytearray(body)
        else:
            self._body += data
        at = self._site.rule(bytes(self._body))
        if at is None:
            return None
        self._site.rule = None
        return max(0, len(data) - (len(self._body) - at))
