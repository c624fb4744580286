"""One request on a hot path, as its handler sees it; the answer goes straight to the client's transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.known_heads import KnownHead
from gateway.outlet import Outlet
from gateway.pieces import Pieces
from gateway.request_id import MAX_REQUEST_ID

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MAX_SHOWN_PATH = 200
"""Characters of a path in the log."""
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
    body = b""
    extra_head = b""
    """Lines that the connection adds to the head of the answer (CORS)."""
    empty_piece = b""
    """What means nothing between two pieces of a begun answer (a comment of an event stream)."""
    disconnected = False
    response_complete = False
    started = False
    is_whole = False
    is_turn = False
    known: KnownHead | None = None
    """Its head has come before; None: it was parsed for this request."""
    outlet: Outlet | None = None
    """What every part of its answer passes first."""
    on_pause: Callable[[], None] | None = None
    on_resume: Callable[[], None] | None = None
    on_gone: Callable[[], None] | None = None
    """Called when the client leaves a request that has no task."""
    task: asyncio.Task[None] | None = None
    _let_go_bytes = 0

    def __init__(
        self,
        protocol: ClientConnection,
        handler: HotHandler,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        *,
        keep_alive: bool,
        is_chunked: bool,
        received_at: float,
    ) -> None:
        self._protocol = protocol
        self._is_chunked = is_chunked
        self.pieces: Pieces = []
        """Of the body, until it is whole."""
        self.handler = handler
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.fields = fields
        """The headers by name (lower case), the last where one comes twice."""
        self.received_at = received_at
        self.keep_alive = keep_alive

    @classmethod
    def of_known(
        cls, protocol: ClientConnection, known: KnownHead, body: bytes, received_at: float
    ) -> ClientRequest:
        """One that came whole, with a head that was parsed before."""
        made = cls(
            protocol,
            known.handler,
            "POST",
            known.path,
            known.query,
            known.headers,
            known.fields,
            keep_alive=True,
            is_chunked=True,
            received_at=received_at,
        )
        made.is_turn = made.is_whole = True
        made.known = known
        made.extra_head = known.extra_head
        made.body = body
        return made

    @property
    def about(self) -> dict[str, str | None]:
        """What a line of the log about this request carries."""
        request_id = self.fields.get(b"x-request-id")
        shown = None if request_id is None else request_id[:MAX_REQUEST_ID].decode("latin-1")
        return {"path": self.path[:MAX_SHOWN_PATH], "request_id": shown}

    @property
    def body_bytes(self) -> int:
        """The size of its body, which itself is let go with the end of the answer."""
        return self._let_go_bytes or len(self.body)

    @property
    def is_plain(self) -> bool:
        """Whether its connection goes on after it as HTTP/1.1 has it."""
        return self._is_chunked and self.keep_alive and self.is_whole

    def run(self, rest: Coroutine[Any, Any, None]) -> None:
        """Go on in a task."""
        self._protocol.run_task(self, rest)

    def knock(self) -> None:
        """Send what says nothing, so that a client which has gone is found out.

        Before the answer an interim one: HTTP/1.1 clients skip it (RFC 9110 §15.2), HTTP/1.0 knows none.
        """
        if self.started:
            self.write(self.empty_piece)
        elif self._is_chunked and not self.disconnected:
            self._protocol.transport.write(CONTINUE)

    @property
    def is_disconnected(self) -> bool:
        """Whether the client has gone."""
        return self.disconnected

    def client_gone(self) -> None:
        """The client has left: whoever owns the request is told."""
        if self.task is not None:
            self.task.cancel()
        if self.on_gone is not None:  # nor has its task begun
            self.on_gone()

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer; `content-length` is added."""
        self.respond_lines(status, b"".join([b"%b: %b\r\n" % field for field in headers]), body)

    def respond_lines(self, status: int, lines: bytes, body: bytes) -> None:
        """The same with the headers written out, each with its line end."""
        if self.outlet is not None:
            body = self.outlet.whole(status, body)
        size = len(body)
        if size > 65_536:
            head = b"%bcontent-length: %d\r\n\r\n" % (self._head(status, lines), size)
            self._protocol.transport.writelines((head, body))
        else:
            self._protocol.transport.write(
                b"%bcontent-length: %d\r\n\r\n%b" % (self._head(status, lines), size, body)
            )
        self._end()

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin an answer of unknown length."""
        head = self._head(status, b"".join([b"%b: %b\r\n" % field for field in headers]))
        if self._is_chunked:
            head += b"transfer-encoding: chunked\r\n\r\n"
        else:  # HTTP/1.0: the end of the connection is the end of the answer
            self.keep_alive = False
            head += b"\r\n"
        self._protocol.transport.write(head)

    def write(self, data: bytes) -> None:
        """Write one piece of it; nothing happens once the client has gone."""
        if self.disconnected or not data:
            return
        if self.outlet is not None:
            data = self.outlet.feed(data)
            if not data:
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
        self._let_go()
        self.keep_alive = False
        if not self.disconnected:
            self._protocol.transport.close()

    def _head(self, status: int, lines: bytes) -> bytes:
        if self.started:
            raise RuntimeError(f"{self.method} {self.path}: the answer has begun already")
        head = STATUS_LINE[status] + self._protocol.date_header() + lines
        self.started = True
        if self.extra_head:
            head += self.extra_head
        if not self.keep_alive:
            head += b"connection: close\r\n"
        return head

    def _let_go(self) -> None:
        """It is answered: its connection keeps it until the next one comes, but not its body."""
        self.response_complete = True
        if self.body:
            self._let_go_bytes = len(self.body)
            self.body = b""

    def _end(self) -> None:
        self._let_go()
        if self.disconnected:
            return
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()
