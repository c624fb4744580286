"""An engine that tells what it makes of requests, and answers none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.api_paths import RENDER_PATH
from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from site_agent.drivers.inline_system import MESSAGES_RENDER_PATH

TEMPLATES: dict[str, Callable[[list[dict[str, str]]], str | None]] = {
    "in_place": lambda messages: "|".join(one["role"][0] + one["content"] for one in messages),
    # What one that wants the system prompt first makes of others: nothing.
    "merged": lambda messages: (
        None
        if any(one["role"] == "system" for one in messages[1:])
        else "|".join(one["role"][0] + one["content"] for one in messages)
    ),
    "backwards": lambda messages: "|".join(one["role"][0] + one["content"] for one in reversed(messages)),
    "blind": lambda messages: messages[-1]["content"],
}


def rendering_engine(
    template: str, *, native: str, model: str = "m", status: int = 200, raw: bytes | None = None
) -> HttpServer:
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
            if path == "/health":
                request.respond(200, (), b"")
                return
            if path == "/v1/models":
                request.respond(404, (), b"")
                return
            if path == "/openapi.json":
                request.respond(200, (), orjson.dumps({"paths": {RENDER_PATH: {}, "/v1/messages": {}}}))
                return
            fields = orjson.loads(request.body)
            assert fields["model"] == model
            if path == MESSAGES_RENDER_PATH:
                request.respond(status, (), ids(of_messages(fields)) if raw is None else raw)
            else:
                assert path == RENDER_PATH
                body = ids(fields["messages"])
                request.respond(400 if b"error" in body else 200, (), body)

        return answer

    return HttpServer(hot=route)
