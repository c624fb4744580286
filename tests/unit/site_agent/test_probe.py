"""Whether an engine is well, by its own answer."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from gateway.upstream import Origin
from site_agent.drivers.probe import Prober

LATE_SECONDS = 1.5
"""vLLM's HTTP server was seen to take longer than a second, computing on the same cores."""


async def test_a_late_answer_is_an_answer() -> None:
    """A busy engine is not a hung one: to kill it for that breaks off every stream that it has."""

    def route(_method: str, _path: str) -> HotHandler:
        async def answer(request: ClientRequest) -> None:
            await asyncio.sleep(LATE_SECONDS)
            request.respond(200, (), b"")

        return answer

    server, prober = HttpServer(hot=route), Prober()
    await server.start()
    origin = Origin.parse(f"http://127.0.0.1:{server.port}")
    assert await prober.is_healthy(origin)
    await server.stop(0)
    assert not await prober.is_healthy(origin)
    await prober.aclose()


@pytest.mark.parametrize(
    ("said", "known"), [(4096, 4096), (4294967295, None), (True, None), ("4096", None), (-1, None)]
)
async def test_a_length_that_cannot_be_is_unknown(said: object, known: int | None) -> None:
    """External engines are other people's; a record must hold what is believed of them."""

    def route(_method: str, _path: str) -> HotHandler:
        async def answer(request: ClientRequest) -> None:
            request.respond(200, (), orjson.dumps({"data": [{"id": "m", "max_model_len": said}]}))

        return answer

    server, prober = HttpServer(hot=route), Prober()
    await server.start()
    cards = await prober.models(Origin.parse(f"http://127.0.0.1:{server.port}"))
    assert cards is not None
    assert [card.max_model_len for card in cards] == [known]
    await server.stop(0)
    await prober.aclose()
