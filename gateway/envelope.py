"""What every answer of an ASGI application carries: the request's id, and what CORS asks for."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.cors import CorsPolicy, header_of
from gateway.request_id import request_id_of

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Seen = Callable[[Message, bytes, int], None]
"""(scope, request id, status): told of each answer as it begins."""


def enveloped(
    app: Application, *, cors: CorsPolicy | None, rng: random.Random, seen: Seen | None = None
) -> Application:
    """The same application with these headers on every answer."""

    async def run(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request_id = request_id_of(header_of(scope["headers"], b"x-request-id"), rng)

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                if cors is not None:
                    headers += cors.pairs(scope["headers"])
                message = {**message, "headers": headers}
                if seen is not None:
                    seen(scope, request_id, message["status"])
            await send(message)

        await app(scope, receive, send_more)

    return run
