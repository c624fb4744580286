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


class ResponseObserver(Protocol):
    """Whoever follows an answer in callbacks, with no task of its own."""

    def head_arrived(self) -> None:
        """Status and headers are there; the body follows, maybe at once."""

    def body_ended(self, error: Exception | None) -> None:
        """The answer is whole, or is over with this error, be it before its head."""


class UpstreamConnection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    __slots__ = (
        "_is_parsing",
        "_is_released",
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
        self._is_parsing = False
        self._is_released = False
        """Given back while its bytes are being parsed."""
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
        self._is_parsing = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            response.fail(UpstreamError("protocol", f"{self.origin}: not HTTP: {error}"))
            self.cut()
        else:
            if self._is_released:
                self._return()
            elif not response.is_head_complete:
                response.head_bytes += len(data)
                if response.head_bytes > MAX_HEAD_BYTES:
                    response.fail(
                        UpstreamError("protocol", f"{self.origin}: head over {MAX_HEAD_BYTES} bytes")
                    )
                    self.cut()
        finally:
            self._is_parsing = self._is_released = False

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
    def on_message_begin(self) -> None:
        if self.response is None or self.response.is_complete:  # a second answer to one question
            self.is_keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.response.headers.append((name.lower(), value))  # type: ignore[union-attr]

    def on_headers_complete(self) -> None:
        response = self.response
        assert response is not None
        status = self._parser.get_status_code()
        if len(response.headers) > MAX_HEADERS:
            raise ValueError(f"more than {MAX_HEADERS} headers")
        if status < 200:
            response.headers.clear()
            return
        response.start(status)

    def on_body(self, body: bytes) -> None:
        assert self.response is not None
        self.response.take(body)

    def on_message_complete(self) -> None:
        response = self.response
        assert response is not None
        if response.status == 0 or response.is_complete:  # an interim (1xx) answer, or one too many
            return
        self.is_keep_alive = self._parser.should_keep_alive() and not response.ends_with_connection
        response.complete()

    # the pool's side
    def exchange(
        self, head: bytes, body: bytes, observer: ResponseObserver | None = None
    ) -> UpstreamResponse:
        """Write one request; `head` ends with its blank line."""
        assert self.transport is not None
        self.response = UpstreamResponse(self, self.origin, self._loop, observer)
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
        if not response.is_complete:
            self.cut()
            return
        limit = _keep_alive_seconds(response)
        self.idle_limit = self._pool.idle_seconds if limit is None else max(0.0, limit - 1.0)
        if self._is_parsing:
            self._is_released = True  # what was read with the answer may hold more than it should
        else:
            self._return()

    def _return(self) -> None:
        if self.is_keep_alive and not self.is_closed:
            self._pool.put(self)
        else:
            self.cut()


def _keep_alive_seconds(response: UpstreamResponse) -> float | None:
    """The other side's own keep-alive time, where it says one."""
    value = response.fields.get(b"keep-alive")
    if value is None:
        return None
    for part in value.split(b","):
        name, _, text = part.strip().partition(b"=")
        if name.lower() == b"timeout" and text.isdigit():
            return min(float(text), 3600.0)
    return None


class UpstreamResponse:
    """An answer whose head has arrived. Read it whole, or relay its body piece by piece; then close it."""

    # Defaults live in the class: an instance is made per request, and sets only what differs.
    _buffer: list[bytes] | None = None
    _buffered_bytes = 0
    _head: asyncio.Future[None] | None = None
    _done: asyncio.Future[None] | None = None
    _error: Exception | None = None
    _on_data: Callable[[bytes], None] | None = None
    _paused = False
    status = 0
    has_bytes = False
    head_bytes = 0
    is_head_complete = False
    is_complete = False
    ends_with_connection = False

    def __init__(
        self,
        connection: UpstreamConnection,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        observer: ResponseObserver | None = None,
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._loop = loop
        self._observer = observer
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        """The headers by name (lower case), the last where one comes twice."""

    @property
    def is_reused(self) -> bool:
        """Whether it came by a pooled connection."""
        return self._connection.is_reused

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
        self.hand_over(on_data)
        if self._error is not None:
            raise self._error
        if self.is_complete:
            return
        self.resume()
        self._done = self._loop.create_future()
        await self._done

    def hand_over(self, on_data: Callable[[bytes], None]) -> None:
        """Give each piece of the body to `on_data`, those that are there at once."""
        pieces, self._buffer = self._buffer, None
        self._buffered_bytes = 0
        for piece in pieces or ():
            on_data(piece)
        self._on_data = on_data

    def leave_to_task(self) -> None:
        """No callbacks any more: a task will read what comes (and what has come since the head)."""
        self._observer = None
        self._on_data = None

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
        if self._paused:
            self.resume()
        self._observer = self._on_data = self._buffer = None
        self._connection.release(self)

    async def wait_for_head(self, timeout_seconds: float) -> None:
        """Return when status and headers are there.

        Raises:
            UpstreamError: closed, not HTTP, or `first_byte_timeout`.
        """
        if self._error is not None:
            raise self._error
        if self.is_head_complete:
            return
        self._head = self._loop.create_future()
        timer = self._loop.call_later(timeout_seconds, self._on_head_timeout, timeout_seconds)
        try:
            await self._head
        finally:
            timer.cancel()

    def _on_head_timeout(self, timeout_seconds: float) -> None:
        if self._head is not None and not self._head.done():
            message = f"{self._origin}: no answer within {timeout_seconds:g} s"
            self.fail(UpstreamError("first_byte_timeout", message))
            self._connection.cut()

    # the connection's side
    def start(self, status: int) -> None:
        self.status = status
        self.is_head_complete = True
        fields = self.fields = dict(self.headers)
        self.ends_with_connection = not (
            b"content-length" in fields or b"transfer-encoding" in fields or status in (204, 304)
        )
        if self._observer is not None:
            self._observer.head_arrived()
        elif self._head is not None and not self._head.done():
            self._head.set_result(None)

    def take(self, data: bytes) -> None:
        if self._on_data is None:
            if self._buffer is None:
                self._buffer = []
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
        if self._observer is not None:
            self._observer.body_ended(None)
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: Exception) -> None:
        if self._error is not None or self.is_complete:
            return
        self._error = error
        if self._observer is not None:
            self._observer.body_ended(error)
        elif self._head is not None and not self._head.done():
            self._head.set_exception(error)
        elif self._done is not None and not self._done.done():
            self._done.set_exception(error)
