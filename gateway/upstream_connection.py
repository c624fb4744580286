"""One HTTP/1.1 connection to an upstream, and the answer that comes over it.

Body pieces are handed over synchronously, as they arrive, with no task per chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

import httptools

from gateway.origin import Origin

UpstreamErrorKind = Literal[
    "connect", "connect_timeout", "first_byte_timeout", "closed", "protocol", "too_large"
]

BUFFER_HIGH_BYTES = 256 * 1024
"""Body bytes held for a reader that has not come yet; then the socket is not read."""
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256


class UpstreamError(Exception):
    """What went wrong with the other side; `kind` decides what to do, the text tells a person."""

    def __init__(self, kind: UpstreamErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ConnectionOwner(Protocol):
    """What a connection needs of its pool."""

    idle_seconds: float

    def put(self, connection: UpstreamConnection) -> None:
        """Keep it for the next request."""

    def forget(self, connection: UpstreamConnection) -> None:
        """It is gone."""


class UpstreamConnection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    __slots__ = (
        "_loop",
        "_parser",
        "_pool",
        "idle_limit",
        "idle_since",
        "is_closed",
        "is_keep_alive",
        "is_reused",
        "origin",
        "response",
        "transport",
    )

    def __init__(self, pool: ConnectionOwner, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.origin = origin
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.response: UpstreamResponse | None = None
        self.is_closed = False
        self.is_keep_alive = True
        self.is_reused = False
        self.idle_since = 0.0
        self.idle_limit = pool.idle_seconds

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:
            self.cut()  # nobody asked: the connection is out of step
            return
        response.has_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            response.fail(UpstreamError("protocol", f"{self.origin}: not HTTP: {error}"))
            self.cut()
        else:
            if not response.is_head_complete:
                response.head_bytes += len(data)
                if response.head_bytes > MAX_HEAD_BYTES:
                    response.fail(
                        UpstreamError("protocol", f"{self.origin}: head over {MAX_HEAD_BYTES} bytes")
                    )
                    self.cut()

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._pool.forget(self)
        response = self.response
        if response is None or response.is_complete:
            return
        if exc is None and response.ends_with_connection:
            response.complete()
        else:
            reason = "connection closed" if exc is None else str(exc) or type(exc).__name__
            response.fail(UpstreamError("closed", f"{self.origin}: {reason}"))

    def pause_writing(self) -> None:
        """A large prompt to a slow site: the kernel and the transport hold it, once."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    # httptools
    def on_status(self, status: bytes) -> None:
        """The reason phrase is not used."""

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.response is not None
        if len(self.response.headers) < MAX_HEADERS:
            self.response.headers.append((name.lower(), value))
        else:
            raise ValueError(f"more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        response = self.response
        assert response is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            response.headers.clear()
            return
        response.start(status)

    def on_body(self, body: bytes) -> None:
        assert self.response is not None
        self.response.take(body)

    def on_message_complete(self) -> None:
        response = self.response
        assert response is not None
        if response.status == 0:  # an interim (1xx) answer
            return
        self.is_keep_alive = self._parser.should_keep_alive() and not response.ends_with_connection
        response.complete()

    # the pool's side
    def exchange(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Write one request."""
        assert self.transport is not None
        self.response = UpstreamResponse(self, self.origin, self._loop)
        if len(body) > 65_536:
            self.transport.writelines((head, body))  # not copied together
        else:
            self.transport.write(head + body)
        return self.response

    def cut(self) -> None:
        """Close at once, unsent data and all."""
        self.is_closed = True
        if self.transport is not None:
            self.transport.abort()

    def release(self, response: UpstreamResponse) -> None:
        """Back to the pool after a whole answer, else closed at once."""
        if self.response is not response:
            return
        self.response = None
        if self.is_closed:
            return
        if not response.is_complete or not self.is_keep_alive:
            self.cut()
            return
        limit = _keep_alive_seconds(response)
        self.idle_limit = self._pool.idle_seconds if limit is None else max(0.0, limit - 1.0)
        self._parser = httptools.HttpResponseParser(self)
        self._pool.put(self)


def _keep_alive_seconds(response: UpstreamResponse) -> float | None:
    """The other side's own keep-alive time, where it says one."""
    value = response.header(b"keep-alive")
    if value is None:
        return None
    for part in value.split(b","):
        name, _, text = part.strip().partition(b"=")
        if name.lower() == b"timeout" and text.isdigit():
            return min(float(text), 3600.0)
    return None


class UpstreamResponse:
    """An answer whose head has arrived. Read it whole, or relay its body piece by piece; then close it."""

    __slots__ = (
        "_buffer",
        "_buffered_bytes",
        "_connection",
        "_done",
        "_error",
        "_head",
        "_loop",
        "_on_data",
        "_origin",
        "_paused",
        "ends_with_connection",
        "has_bytes",
        "head_bytes",
        "headers",
        "is_complete",
        "is_head_complete",
        "status",
    )

    def __init__(
        self, connection: UpstreamConnection, origin: Origin, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._loop = loop
        self._head: asyncio.Future[None] = loop.create_future()
        self._done: asyncio.Future[None] | None = None
        self._error: UpstreamError | Exception | None = None
        self._on_data: Callable[[bytes], None] | None = None
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._paused = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_bytes = False
        self.head_bytes = 0
        self.is_head_complete = False
        self.is_complete = False
        self.ends_with_connection = False

    def header(self, name: bytes) -> bytes | None:
        """First value of a header (lower-case name)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def read(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamError: `closed` when it was cut short, `too_large` beyond `max_bytes`.
        """
        pieces: list[bytes] = []
        size = 0

        def collect(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > max_bytes:
                raise UpstreamError("too_large", f"{self._origin}: an answer of more than {max_bytes} bytes")
            pieces.append(data)

        await self.relay(collect)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def relay(self, on_data: Callable[[bytes], None]) -> None:
        """Call `on_data` with each piece of the body, in the reader's own callback, until the proper end.

        Raises:
            UpstreamError: the body was cut short; all that came before was handed over.
            Exception: whatever `on_data` raised; the connection is cut.
        """
        for piece in self._buffer:
            on_data(piece)
        self._buffer.clear()
        self._buffered_bytes = 0
        self._on_data = on_data
        if self._error is not None:
            raise self._error
        if self.is_complete:
            return
        self.resume()
        self._done = self._loop.create_future()
        await self._done

    def pause(self) -> None:
        """Stop reading from the other side (its window fills and it waits)."""
        if not self._paused and not self.is_complete and not self._connection.is_closed:
            self._paused = True
            assert self._connection.transport is not None
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self._connection.is_closed:
                assert self._connection.transport is not None
                self._connection.transport.resume_reading()

    def stop(self, error: Exception) -> None:
        """End a `relay` from outside: it raises `error`, and the connection is cut."""
        if not self.is_complete:
            self.fail(error)
            self._connection.cut()

    def close(self) -> None:
        """Give the connection back, or cut it if the answer is not whole. May be called twice."""
        self.resume()
        self._on_data = None
        self._buffer.clear()
        self._connection.release(self)

    async def wait_for_head(self, timeout_seconds: float) -> None:
        """Return when status and headers are there.

        Raises:
            UpstreamError: closed, not HTTP, or `first_byte_timeout`.
        """
        timer = self._loop.call_later(timeout_seconds, self._on_head_timeout, timeout_seconds)
        try:
            await self._head
        finally:
            timer.cancel()

    def _on_head_timeout(self, timeout_seconds: float) -> None:
        if not self._head.done():
            message = f"{self._origin}: no answer within {timeout_seconds:g} s"
            self.fail(UpstreamError("first_byte_timeout", message))
            self._connection.cut()

    # the connection's side
    def start(self, status: int) -> None:
        self.status = status
        self.is_head_complete = True
        has_length = self.header(b"content-length") is not None
        is_chunked = self.header(b"transfer-encoding") is not None
        self.ends_with_connection = not has_length and not is_chunked and status not in (204, 304)
        if not self._head.done():
            self._head.set_result(None)

    def take(self, data: bytes) -> None:
        if self._on_data is None:
            self._buffer.append(data)
            self._buffered_bytes += len(data)
            if self._buffered_bytes > BUFFER_HIGH_BYTES:
                self.pause()
            return
        if self._error is not None:
            return
        try:
            self._on_data(data)
        except Exception as error:  # noqa: BLE001 - handed to the relay's caller
            self.fail(error)
            self._connection.cut()

    def complete(self) -> None:
        if self._error is not None:
            return
        self.is_complete = True
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: Exception) -> None:
        if self._error is not None or self.is_complete:
            return
        self._error = error
        if not self._head.done():
            self._head.set_exception(error)
        elif self._done is not None and not self._done.done():
            self._done.set_exception(error)
