"""One request on a hot path, as its handler sees it; the answer goes straight to the client's transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

HotHandler = Callable[["ClientRequest"], Coroutine[Any, Any, None] | None]
"""Called when the request is whole. It returns what is still to be done, or None: it has answered, or will in
callbacks (then it sets `on_gone`)."""
HotRoute = Callable[[str, str], HotHandler | None]
"""(method, path) → the handler, or None for the ASGI application."""


class ClientConnection(Protocol):
    """What a request needs of the connection it came by."""

    transport: asyncio.Transport

    def date_header(self) -> bytes:
        """The `Date` line."""

    def on_response_complete(self) -> None:
        """The answer is whole: the next request's turn."""

    def run_task(self, request: ClientRequest, rest: Coroutine[Any, Any, None]) -> None:
        """Run the rest of a request as its task."""


class _NoEvent:
    """uvicorn's protocol sets its cycle's `message_event`; a hot request has no use for one."""

    @staticmethod
    def set() -> None:
        return


class ClientRequest:
    """One request on a hot path, owned by its handler; answers go straight to the transport."""

    # uvicorn's protocol treats it as its current "cycle": disconnected, response_complete, keep_alive, …
    message_event = _NoEvent

    # Defaults live in the class: an instance is made per request, and sets only what differs.
    size = 0
    body = b""
    disconnected = False
    response_complete = False
    started = False
    is_whole = False
    is_turn = False
    on_pause: Callable[[], None] | None = None
    on_resume: Callable[[], None] | None = None
    on_gone: Callable[[], None] | None = None
    """Called when the client leaves a request that has no task."""
    task: asyncio.Task[None] | None = None

    def __init__(
        self,
        protocol: ClientConnection,
        handler: HotHandler,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
        is_chunked: bool,
        received_at: float,
    ) -> None:
        self._protocol = protocol
        self._is_chunked = is_chunked
        self._pieces: list[bytes] = []
        self.handler = handler
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.received_at = received_at
        self.keep_alive = keep_alive

    def run(self, rest: Coroutine[Any, Any, None]) -> None:
        """Go on in a task."""
        self._protocol.run_task(self, rest)

    @property
    def is_disconnected(self) -> bool:
        """Whether the client has gone."""
        return self.disconnected

    def header(self, name: bytes) -> bytes | None:
        """First value of a header (lower-case name)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer; `content-length` is added."""
        parts = self._head(status, headers)
        parts += (b"content-length: ", str(len(body)).encode(), b"\r\n\r\n")
        if len(body) > 65_536:
            self._protocol.transport.writelines((b"".join(parts), body))
        else:
            parts.append(body)
            self._protocol.transport.write(b"".join(parts))
        self._end()

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin an answer of unknown length."""
        parts = self._head(status, headers)
        if self._is_chunked:
            parts.append(b"transfer-encoding: chunked\r\n\r\n")
        else:  # HTTP/1.0: the end of the connection is the end of the answer
            self.keep_alive = False
            parts.append(b"\r\n")
        self._protocol.transport.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Write one piece of it; nothing happens once the client has gone."""
        if self.disconnected or not data:
            return
        if self._is_chunked:
            self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._protocol.transport.write(data)

    def finish(self) -> None:
        """End it properly."""
        if self.disconnected:
            return
        if self._is_chunked:
            self._protocol.transport.write(b"0\r\n\r\n")
        self._end()

    def abort(self) -> None:
        """Close the connection without the final chunk: the other side sees a cut, not an end."""
        self.response_complete = True
        self.keep_alive = False
        if not self.disconnected:
            self._protocol.transport.close()

    def _head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        if self.started:
            raise RuntimeError(f"{self.method} {self.path}: the answer has begun already")
        self.started = True
        parts = [STATUS_LINE[status], self._protocol.date_header()]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        return parts

    def _end(self) -> None:
        self.response_complete = True
        if self.disconnected:
            return
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()

    # the protocol's side
    def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.size += len(piece)

    def make_whole(self) -> None:
        self.is_whole = True
        pieces = self._pieces
        self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
