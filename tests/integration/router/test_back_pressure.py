"""A client that does not read stops its site from writing; nothing is lost, and nothing is judged by it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson
import pytest
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, StubSite, stop_after
from support.wait import until

EVENT_TEXT = "x" * 16_384
EVENTS = 4096
"""64 MiB: several times what kernels hold for the two connections."""


class FloodSite(StubSite):
    """Answers a stream that is not scripted as fast as it is read, with more than buffers hold."""

    written = 0
    """Events taken by its own connection."""

    async def _stream(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes
    ) -> bool:
        if behaviour != self.default:
            return await super()._stream(writer, behaviour, path, raw)
        for index in range(EVENTS):
            choice: dict[str, Any] = {"index": 0, "token_ids": [7]}
            choice["finish_reason"] = "stop" if index == EVENTS - 1 else None
            if path == "/v1/completions":
                choice["text"] = EVENT_TEXT
            else:
                choice["delta"] = {"content": EVENT_TEXT}
            event = b"data: " + orjson.dumps({"id": "f", "prompt_token_ids": [1], "choices": [choice]})
            writer.write(b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event))
            await writer.drain()
            self.written += 1
        end = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        await writer.drain()
        return True


async def until_still(fleet: RouterFleet) -> int:
    """How many events the sites had written when they could write no more: a hundred looks, no change."""
    written, looks = -1, 0
    async with asyncio.timeout(60):
        while looks < 100:
            await asyncio.sleep(0.005)
            now = sum(site.written for site in fleet.sites if isinstance(site, FloodSite))
            looks = looks + 1 if now == written and now else 0
            written = now
    return written


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_a_client_that_does_not_read_stops_its_site(store: Any, is_resumed: bool):
    """Also after a resume. It may pause for longer than a stream may stall, then it reads all."""
    options: dict[str, Any] = {"stall_timeout_seconds": 0.6, "first_byte_timeout_seconds": 0.6}
    async with router_fleet(store, "a", "b", make_site=FloodSite, **options) as fleet:
        if is_resumed:
            shared = fleet.sites[0].script
            shared.append(stop_after(4))
            fleet.sites[1].script = shared
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", fleet.router.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=65_536)
        body = orjson.dumps(chat(stream=True, max_tokens=EVENTS + 4))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await until(lambda: any(one.is_paused for one in fleet.router.forwarder.active), what="it is full")
        written = await until_still(fleet)
        assert written < EVENTS // 2
        [exchange] = fleet.router.forwarder.active
        stalled_at = loop.time() + 3 * options["stall_timeout_seconds"]
        await until(lambda: loop.time() > stalled_at, what="a stalled stream would have been ended")
        assert exchange.is_paused
        assert sum(site.written for site in fleet.sites if isinstance(site, FloodSite)) == written
        got, tail = 0, b""
        while not tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            piece = await reader.read(1 << 20)
            assert piece, tail
            got += piece.count(b"x")
            tail = (tail + piece)[-64:]
        assert got >= EVENTS * len(EVENT_TEXT)
        writer.close()
        totals = await fleet.settled(completed=1)
        assert (totals["retried"], totals["resumed"]) == (0, is_resumed)
