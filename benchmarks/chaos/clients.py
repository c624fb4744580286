"""Clients: each asks one thing after the other of a router that it chooses, and judges every answer.

A client of its own makes: HTTP/1.1 with a connection for each request, so that what a connection does is seen
as it is, a slow reader fills the router's buffers, and every request can go to another worker.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.chaos.answers import End, Got, Verdict, judge
from benchmarks.chaos.asks import LONGEST_TOKENS, PATHS, Ask, make_ask

SILENCE_SECONDS = 45.0
"""Between two reads. Documented limits (fleet.ROUTER_SETTINGS) and room for a busy machine: 20 s of waiting
for room, 20 s for a first event, 20 s of waiting for a resume, each with comments every 5 s once the answer
has begun."""
FIRST_SECONDS = 90.0
"""Until the status of an answer: `request_timeout_seconds` (60), and half as much for a busy machine."""
CONNECT_SECONDS = 20.0
"""A router's parent that stands still takes nobody in."""
LONGEST_SECONDS = 300.0
SLOW_BUFFER_BYTES = 4096
MAX_HEAD_BYTES = 64 << 10
REST_SECONDS = 2.0
"""At most, after a 503: Retry-After is for real clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request that is over."""

    ask: Ask
    verdict: Verdict
    router: str
    life: int
    """Of the router, when it was asked."""
    began_at: float
    """Unix seconds, as `ended_at`."""
    ended_at: float
    request_id: str
    got_tail: str


class Clients:
    """So many, until they are told to stop."""

    def __init__(
        self,
        *,
        model: str,
        key: str,
        ports: dict[str, int],
        lives: Callable[[str], int],
        rng: random.Random,
        longest_tokens: int = LONGEST_TOKENS,
    ) -> None:
        self._model = model
        self._key = key
        self._ports = ports
        self._lives = lives
        self._rng = rng
        self._longest_tokens = longest_tokens
        self.records: list[Record] = []
        self.in_flight = 0

    async def run(self, count: int, until: asyncio.Event) -> None:
        """Until the event is set and every request is over."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._client(number, random.Random(self._rng.getrandbits(64)), until))

    async def ask_each(self, count: int, at_once: int) -> list[Record]:
        """So many requests while all is well; their records."""
        first = len(self.records)
        rng = random.Random(self._rng.getrandbits(64))
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with places:
                ask = make_ask(rng, self._model, calm=True, longest_tokens=self._longest_tokens)
                await self.ask(ask, f"calm-{number}", _chosen(rng, self._ports))

        await asyncio.gather(*(one(number) for number in range(count)))
        return self.records[first:]

    async def _client(self, number: int, rng: random.Random, until: asyncio.Event) -> None:
        count = 0
        while not until.is_set():
            count += 1
            ask = make_ask(rng, self._model, longest_tokens=self._longest_tokens)
            record = await self.ask(ask, f"chaos-{number}-{count}", _chosen(rng, self._ports))
            rest = rng.expovariate(1 / 0.3)
            if record.verdict.ledger in ("shed", "failed", "-"):
                rest += rng.uniform(0.2, REST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await until.wait()

    async def ask(self, ask: Ask, request_id: str, router: str) -> Record:
        """Send it, judge what comes, keep the record."""
        began, life = time.time(), self._lives(router)
        self.in_flight += 1
        try:
            got = await exchange(self._ports[router], ask, key=self._key, request_id=request_id)
        finally:
            self.in_flight -= 1
        verdict = judge(ask, got)
        record = Record(
            ask=ask,
            verdict=verdict,
            router=router,
            life=life,
            began_at=began,
            ended_at=time.time(),
            request_id=request_id,
            got_tail="" if verdict.heading == "right" else repr(got.body[-300:]),
        )
        self.records.append(record)
        return record

    def table(self) -> Counter[str]:
        """`kind: how it ended`, counted."""
        return Counter(f"{one.ask.kind}: {one.verdict.heading}" for one in self.records)


def _chosen(rng: random.Random, ports: dict[str, int]) -> str:
    return rng.choice(sorted(ports))


async def exchange(port: int, ask: Ask, *, key: str, request_id: str) -> Got:
    """One request over a connection of its own. Never raises for what the network does."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    peer.setblocking(False)
    if ask.pause_seconds:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(
                sock=peer, limit=SLOW_BUFFER_BYTES if ask.pause_seconds else MAX_HEAD_BYTES
            )
    except TimeoutError:
        peer.close()
        return Got(end="silent", headers={})
    except OSError:
        peer.close()
        return Got(end="refused", headers={})
    exchanging = _Exchange(ask, reader)
    try:
        writer.write(_head(ask, key=key, request_id=request_id) + ask.body)
        async with asyncio.timeout(LONGEST_SECONDS):
            end = await exchanging.read()
    except TimeoutError:
        end = "silent"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        end = "cut"
    finally:
        writer.transport.abort()
    return Got(end=end, status=exchanging.status, headers=exchanging.headers, body=bytes(exchanging.body))


def _head(ask: Ask, *, key: str, request_id: str) -> bytes:
    lines = (
        f"POST {PATHS[ask.api]} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"x-request-id: {request_id}",
        f"content-length: {len(ask.body)}",
        "connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()


class _Exchange:
    """Reads one answer."""

    def __init__(self, ask: Ask, reader: asyncio.StreamReader) -> None:
        self._ask = ask
        self._reader = reader
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def read(self) -> End:
        """Until its end, or its client's.

        Raises:
            TimeoutError: nothing came for too long.
            OSError, ValueError, IncompleteReadError: the connection ended before, or what came is no HTTP.
        """
        if self._ask.leaves_after_events is not None and not self._ask.is_stream:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ask.leaves_after_events / 30):
                    return await self._read()
            return "left"
        return await self._read()

    async def _read(self) -> End:
        async with asyncio.timeout(FIRST_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        self.status = int(lines[0].split()[1])
        if self.headers.get("transfer-encoding") != "chunked":
            left = int(self.headers.get("content-length", "0"))
            while left:
                left -= await self._take(left)
            return "whole"
        while size := int(await self._line(), 16):
            while size:
                size -= await self._take(size)
                if self._has_seen_enough():
                    return "left"
            await self._line()
        await self._line()
        return "whole"

    async def _line(self) -> bytes:
        async with asyncio.timeout(SILENCE_SECONDS):
            return (await self._reader.readuntil(b"\r\n"))[:-2]

    async def _take(self, most: int) -> int:
        if self._ask.pause_seconds and self._ask.is_stream:
            await asyncio.sleep(self._ask.pause_seconds)
        async with asyncio.timeout(SILENCE_SECONDS):
            data = await self._reader.read(most)
        if not data:
            raise ConnectionResetError("the answer is not whole")
        self.body += data
        return len(data)

    def _has_seen_enough(self) -> bool:
        leaves_after = self._ask.leaves_after_events
        return leaves_after is not None and self.body.count(b"data: ") > leaves_after
