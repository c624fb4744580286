"""Whether an engine is well, by its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.api_paths import RENDER_PATH
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from gateway.upstream import Origin
from site_agent.drivers.inline_system import MESSAGES_RENDER_PATH, ask_inline_system
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


TEMPLATES: dict[str, Callable[[list[dict[str, str]]], str | None]] = {
    "in_place": lambda messages: "|".join(one["role"][0] + one["content"] for one in messages),
    # What one that wants the system prompt first makes of others: nothing.
    "merged": lambda messages: (
        None
        if any(one["role"] == "system" for one in messages[1:])
        else "|".join(one["role"][0] + one["content"] for one in messages)
    ),
    "neither": lambda messages: "|".join(one["role"][0] + one["content"] for one in reversed(messages)),
    "blind": lambda messages: messages[-1]["content"],
}


def _engine(template: str, *, native: str, status: int = 200, raw: bytes | None = None) -> HttpServer:
    """One that renders; `native` is what it does with a message's system messages."""

    def ids(messages: list[dict[str, str]]) -> bytes:
        text = TEMPLATES[template](messages)
        return orjson.dumps({"error": "no"} if text is None else {"token_ids": list(text.encode())})

    def of_messages(fields: dict[str, Any]) -> list[dict[str, str]]:
        given = fields["messages"]
        late = [one["content"] for one in given if one["role"] == "system"] if native == "merged" else []
        first = {"role": "system", "content": "".join([fields["system"], *late])}
        return [first, *(one for one in given if not (late and one["role"] == "system"))]

    def route(_method: str, path: str) -> HotHandler:
        async def answer(request: ClientRequest) -> None:
            if path == "/openapi.json":
                request.respond(200, (), orjson.dumps({"paths": {RENDER_PATH: {}, "/v1/messages": {}}}))
                return
            fields = orjson.loads(request.body)
            assert fields["model"] == "m"
            if path == MESSAGES_RENDER_PATH:
                request.respond(status, (), ids(of_messages(fields)) if raw is None else raw)
            else:
                assert path == RENDER_PATH
                body = ids(fields["messages"])
                request.respond(400 if b"error" in body else 200, (), body)

        return answer

    return HttpServer(hot=route)


@pytest.mark.parametrize(
    ("engine", "known"),
    [
        (_engine("in_place", native="in_place"), "in_place"),
        (_engine("in_place", native="merged"), "merged"),
        (_engine("merged", native="merged"), "merged"),
        (_engine("neither", native="in_place"), "in_place"),
        (_engine("blind", native="in_place"), None),
        (_engine("in_place", native="in_place", status=404), None),
        (_engine("in_place", native="in_place", raw=b"nonsense"), None),
        (_engine("in_place", native="in_place", raw=b"[]"), None),
        (_engine("in_place", native="in_place", raw=b'{"token_ids": [1]}'), None),
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
    engine = _engine("in_place", native="in_place")
    await engine.start()
    origin, prober = Origin.parse(f"http://127.0.0.1:{engine.port}"), Prober()
    await engine.stop(0)
    assert await ask_inline_system(prober, origin, "m") is None
    await prober.aclose()
