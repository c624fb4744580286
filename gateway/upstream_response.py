"""The answer that comes over one upstream connection, as its reader sees it.

Read it whole, relay it piece by piece in a task, or observe it in callbacks; then close it in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from gateway.origin import Origin
from gateway.pieces import Pieces, collect, joined

UpstreamErrorKind = Literal[
    "connect", "connect_timeout", "first_byte_timeout", "closed", "protocol", "too_large"
]

BUFFER_HIGH_BYTES = 256 * 1024
"""Body bytes held for a reader that has not come yet; then the socket is not read."""


class UpstreamError(Exception):
    """What went wrong with the other side; `kind` decides what to do, the text tells a person."""

    def __init__(self, kind: UpstreamErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ResponseObserver(Protocol):
    """Whoever follows an answer in callbacks, with no task of its own."""

    def head_arrived(self) -> None:
        """Status and headers are there; the body follows, maybe at once."""

    def body_ended(self, error: Exception | None) -> None:
        """The answer is whole, or is over with this error, be it before its head."""

    def answer_arrived(self, body: bytes) -> None:
        """In place of both: status 200, the headers and this body came in one piece."""


class Carrier(Protocol):
    """What an answer needs of the connection that it comes by."""

    transport: asyncio.Transport | None
    is_closed: bool
    is_reused: bool

    def cut(self) -> None:
        """Close at once."""

    def release(self, response: UpstreamResponse) -> None:
        """The answer is done with."""


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
    is_head_complete = False
    is_complete = False
    ends_with_connection = False

    def __init__(
        self,
        connection: Carrier,
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
        pieces: Pieces = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > max_bytes:
                raise UpstreamError("too_large", f"{self._origin}: an answer of more than {max_bytes} bytes")
            collect(pieces, data)

        await self.relay(take)
        return joined(pieces)

    async def relay(self, on_data: Callable[[bytes], None]) -> None:
        """Call `on_data` with each piece of the body, in the reader's own callback, until the proper end.

        Raises:
            UpstreamError: the body was cut short; all that came before was handed over.
            Exception: whatever `on_data` raised; the connection is cut.
        """
        self.resume()  # before what is there already is handed over: that may fill the reader
        self.hand_over(on_data)
        if self._error is not None:
            raise self._error
        if self.is_complete:
            return
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
    def arrive(self, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes], body: bytes) -> None:
        """All of it at once, with status 200."""
        self.has_bytes = True
        observer = self._observer
        if observer is None:
            self.headers = headers
            self.start(200)
            self.take(body)
            self.complete()
            return
        self.status = 200
        self.headers = headers
        self.fields = fields
        self.is_head_complete = self.is_complete = True
        observer.answer_arrived(body)

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
