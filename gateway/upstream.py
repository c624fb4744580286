"""The client side of the data path: a keep-alive pool of HTTP/1.1 connections on asyncio protocols.

Why own code: httpcore polls every pooled connection per request (0.8–2.2 ms, FACTS.md); this costs tens of
microseconds.

Rule: whoever got an `UpstreamResponse` calls `close()` in `finally`; a connection goes back to the pool only
after a whole answer, and is cut at once otherwise, so that the engine behind it stops computing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from itertools import islice

from gateway.link_watch import watch_link
from gateway.origin import Origin
from gateway.upstream_connection import UNSAID, UpstreamConnection
from gateway.upstream_response import ResponseObserver, UpstreamError, UpstreamErrorKind, UpstreamResponse

__all__ = [
    "STALE_SECONDS",
    "Origin",
    "ResponseObserver",
    "UpstreamError",
    "UpstreamErrorKind",
    "UpstreamPool",
    "UpstreamResponse",
    "is_stale",
]


MAX_MEASURED = 1024
"""Connections whose round trip is asked for at once: a system call each."""
STALE_SECONDS = 1.0
"""A pooled connection that was closed under a request shows it within a round trip; what closes later has the
request and may have worked on it: it is not sent again."""


def is_stale(response: UpstreamResponse, error: Exception | None) -> bool:
    """Whether a pooled connection was closed before it answered a single byte."""
    return (
        isinstance(error, UpstreamError)
        and error.kind == "closed"
        and response.is_reused
        and not response.has_bytes
    )


def tls_fault(error: ssl.SSLError) -> str:
    """What an operator can do something about, where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it speaks no TLS there: is its URL meant to begin with http://?"
    return f"TLS: {error.reason or error}"


class UpstreamPool:
    """Keep-alive connections to any number of origins. One per process."""

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = 2.0,
        idle_seconds: float = 4.0,
        max_idle_per_origin: int = 256,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`idle_seconds` stays below the other side's keep-alive (uvicorn's is 5 s), so that a connection
        is not used at the very moment it is closed; a `Keep-Alive: timeout=` header overrides it.
        `ssl_context` is asked for each connection to an https origin; None: the system's CAs."""
        self.connect_timeout_seconds = connect_timeout_seconds
        self.idle_seconds = idle_seconds
        self._max_idle = max_idle_per_origin
        self._ssl_context = ssl_context
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()
        self._is_closed = False

    async def send(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        first_byte_timeout_seconds: float,
    ) -> UpstreamResponse:
        """Send one request and return when its status and headers have arrived.

        A pooled connection that turns out closed at once (`STALE_SECONDS`), before it answered a single byte,
        is replaced by another without the caller noticing.

        Raises:
            UpstreamError: see its kinds; `too_large` does not occur here.
        """
        parts = [
            method.encode(),
            b" ",
            target.encode("ascii"),
            b" HTTP/1.1\r\nhost: ",
            origin.host_header,
            b"\r\n",
        ]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if body or method not in ("GET", "HEAD"):
            parts += (b"content-length: ", str(len(body)).encode(), b"\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        return await self.exchange(origin, head, body, first_byte_timeout_seconds=first_byte_timeout_seconds)

    async def exchange(
        self,
        origin: Origin,
        head: bytes,
        body: bytes | memoryview,
        *,
        tail: bytes = b"",
        first_byte_timeout_seconds: float,
        sent: Callable[[UpstreamResponse], None] | None = None,
    ) -> UpstreamResponse:
        """As `send`, with a head that is written out already, to its blank line.

        `tail` is the end of the body: a large one need not be copied for it. `sent` gets the answer that is
        waited for: its `stop` ends the waiting.
        """
        loop = asyncio.get_running_loop()
        while True:
            connection = self.take_idle(origin) or await self._connect(origin)
            response = connection.exchange(head, body, tail=tail)
            sent_at = loop.time()
            if sent is not None:
                sent(response)
            try:
                await response.wait_for_head(first_byte_timeout_seconds)
            except UpstreamError as error:
                connection.cut()
                if not is_stale(response, error) or loop.time() - sent_at > STALE_SECONDS:
                    raise
            except BaseException:
                connection.cut()
                raise
            else:
                return response

    def round_trip_seconds(self) -> dict[Origin, float]:
        """The least round trip that the kernel has seen on some connections to each origin, where it says."""
        least: dict[Origin, float] = {}
        for connection in islice(self._open, MAX_MEASURED):
            seconds = connection.round_trip_seconds()
            if seconds is not None:
                origin = connection.origin
                least[origin] = min(seconds, least.get(origin, seconds))
        return least

    def take_idle(self, origin: Origin) -> UpstreamConnection | None:
        """A pooled connection, None where there is none: for one `exchange` that may find it stale."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        now = idle[-1].loop.time()  # asyncio.get_running_loop() is a system call a request: getpid
        while idle:
            connection = idle.pop()
            if connection.is_closed:
                continue
            if now - connection.idle_since >= connection.idle_limit:
                connection.cut()
                continue
            connection.is_reused = True
            return connection
        return None

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        if self._is_closed:
            raise UpstreamError("connect", f"{origin}: this pool is closed")
        loop = asyncio.get_running_loop()
        context = None
        if origin.scheme == "https":
            if self._ssl_context is None:
                default = ssl.create_default_context()
                self._ssl_context = lambda: default
            context = self._ssl_context()
        try:
            async with asyncio.timeout(self.connect_timeout_seconds):
                transport, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, origin, loop), origin.host, origin.port, ssl=context
                )
        except TimeoutError:
            message = f"{origin}: no connection within {self.connect_timeout_seconds:g} s"
            raise UpstreamError("connect_timeout", message) from None
        except ssl.SSLError as error:
            raise UpstreamError("connect", f"{origin}: {tls_fault(error)}") from None
        except OSError as error:
            said = error.strerror or str(error) or f"connection closed{UNSAID}"
            raise UpstreamError("connect", f"{origin}: {said}") from None
        watch_link(transport)
        self._open.add(connection)
        return connection

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request, up to the limit."""
        idle = self._idle.setdefault(connection.origin, [])
        if self._is_closed or len(idle) >= self._max_idle:
            connection.cut()
            return
        connection.idle_since = connection.loop.time()
        idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        origin = connection.origin
        idle = self._idle.get(origin)
        if idle is not None:
            with contextlib.suppress(ValueError):
                idle.remove(connection)
            if not idle:
                del self._idle[origin]

    @property
    def open_connections(self) -> int:
        """Connections in use and idle."""
        return len(self._open)

    async def aclose(self) -> None:
        """Cut every connection."""
        self._is_closed = True
        for connection in list(self._open):
            connection.cut()
        await asyncio.sleep(0)  # lets connection_lost run
