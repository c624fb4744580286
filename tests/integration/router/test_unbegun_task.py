"""A request whose task was made and has not begun: whoever ends it then must release what it holds.

A task that is cancelled before its first step never runs its `finally`: the entry would stay open.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from support.router_fleet import RouterFleet, chat, router_fleet

from gateway.client_request import ClientRequest
from router.policy.body import Api


class _Connection:
    """Keeps the rest of a request instead of running it, and what is written."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.written = b""

    def run_task(self, request: ClientRequest, rest: Any) -> None:
        raise AssertionError("nobody asked for a task")

    def date_header(self) -> bytes:
        return b""

    def on_response_complete(self) -> None:
        return

    def write(self, data: bytes) -> None:
        self.written += data

    def __getattr__(self, name: str) -> Any:
        return lambda *_: b""


def begin(fleet: RouterFleet) -> tuple[ClientRequest, _Connection, Any]:
    """A chat that finds no room, and its coroutine, of which no step has run."""
    connection: Any = _Connection()
    now = asyncio.get_running_loop().time()
    request = ClientRequest(
        connection,
        lambda _: None,
        "POST",
        "/v1/chat/completions",
        b"",
        [],
        {},
        keep_alive=True,
        is_chunked=True,
        received_at=now,
    )
    request.body = orjson.dumps(chat())
    rest = fleet.router.forwarder.begin(Api.CHAT, request)
    assert rest is not None
    assert fleet.router.ledger.in_flight == 1
    return request, connection, rest


async def test_its_client_leaves(store: Any):
    """Counted as that, and nothing is in flight."""
    async with router_fleet(store, "a") as fleet:
        await fleet.set_state("a", "dark")
        request, _, rest = begin(fleet)
        request.disconnected = True
        assert request.on_gone is not None
        request.on_gone()
        rest.close()
        await fleet.settled(client_cancelled=1)


async def test_the_router_shuts_down(store: Any):
    """The client is told so."""
    async with router_fleet(store, "a") as fleet:
        await fleet.set_state("a", "dark")
        _, connection, rest = begin(fleet)
        await fleet.router.forwarder.terminate()
        rest.close()
        assert connection.written.startswith(b"HTTP/1.1 503 ")
        await fleet.settled(shed=1)
