"""Whether an engine is well, by its own answer."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from support.rendering_engine import rendering_engine

from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from gateway.upstream import Origin
from site_agent.drivers.inline_system import ask_inline_system
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


@pytest.mark.parametrize(
    ("engine", "known"),
    [
        (rendering_engine("in_place", native="in_place"), "in_place"),
        (rendering_engine("in_place", native="merged"), "merged"),
        (rendering_engine("merged", native="merged"), "merged"),
        (rendering_engine("backwards", native="in_place"), "in_place"),
        (rendering_engine("blind", native="in_place"), None),
        (rendering_engine("in_place", native="in_place", status=404), None),
        (rendering_engine("in_place", native="in_place", raw=b"nonsense"), None),
        (rendering_engine("in_place", native="in_place", raw=b"[]"), None),
        (rendering_engine("in_place", native="in_place", raw=b'{"token_ids": [1]}'), None),
    ],
)
async def test_an_engine_is_asked_what_becomes_of_system_messages(
    engine: HttpServer, known: str | None
) -> None:
    """By what it makes of one request and of both chats."""
    prober = Prober()
    await engine.start()
    described = await prober.describe(Origin.parse(f"http://127.0.0.1:{engine.port}"), "m")
    assert described.inline_system == known
    assert described.is_answered
    await engine.stop(0)
    await prober.aclose()


async def test_an_engine_that_goes_away_has_not_said_it() -> None:
    """Nothing is raised."""
    engine = rendering_engine("in_place", native="in_place")
    await engine.start()
    origin, prober = Origin.parse(f"http://127.0.0.1:{engine.port}"), Prober()
    await engine.stop(0)
    assert await ask_inline_system(prober, origin, "m") is None
    await prober.aclose()
