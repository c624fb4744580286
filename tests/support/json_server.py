"""A real HTTP server whose one answer a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response

from gateway.server import HttpServer


class JsonServer:
    """`GET /anything` answers `body` with `status`, after `delay_seconds`."""

    def __init__(self) -> None:
        self.body: bytes = b"{}"
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay_seconds = 0.0
        self.requests: list[Request] = []
        self.port = 0
        self._server: HttpServer | None = None
        self._app = FastAPI()

        @self._app.get("/{path:path}")
        async def answer(request: Request) -> Response:
            self.requests.append(request)
            await asyncio.sleep(self.delay_seconds)
            return Response(self.body, self.status, headers=self.headers, media_type="application/json")

    def say(self, document: Any) -> None:
        """The answer from now on."""
        self.body = orjson.dumps(document)

    async def start(self) -> None:
        """The first time on any port, later on the same."""
        self._server = HttpServer(self._app, host="127.0.0.1", port=self.port)
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0.5)
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/data"


@asynccontextmanager
async def json_server() -> AsyncIterator[JsonServer]:
    """For as long as the block lasts."""
    server = JsonServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
