"""One HTTP/1.1 connection to an upstream.

Body pieces are handed over synchronously, as they arrive, with no task per chunk.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from typing import Protocol

import httptools

from gateway.origin import Origin
from gateway.upstream_response import ResponseObserver, UpstreamError, UpstreamResponse

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
MIN_RTT_OFFSET = 148
"""Of `tcpi_min_rtt` in Linux's `struct tcp_info` (include/uapi/linux/tcp.h): microseconds, 32 bits."""
UNKNOWN_RTT = 2**32 - 1
UNSAID = " before a word (is it [fleet] tls_client_certificate_file that it asks for?)"
"""A port that refuses a caller's certificate: asyncio closes without the alert that TLS has for it."""
_OK = b"HTTP/1.1 200 OK\r\n"
_FIELD = re.compile(rb"\n([a-z0-9-]+): ([!-~\x80-\xff][ -~\x80-\xff]*)\r")
"""A header as most servers write it: a small name, one space, a value. Others are left to the parser."""
_NOT_PLAIN = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})


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
        "_bodyless_bytes",
        "_is_parsing",
        "_is_released",
        "_parser",
        "_pool",
        "idle_limit",
        "idle_since",
        "is_closed",
        "is_keep_alive",
        "is_reused",
        "loop",
        "origin",
        "response",
        "transport",
    )

    def __init__(self, pool: ConnectionOwner, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.origin = origin
        self.loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.response: UpstreamResponse | None = None
        self._is_parsing = False
        self._is_released = False
        """Given back while its bytes are being parsed."""
        self._bodyless_bytes = 0
        """That came since the question, or since the last byte of the answer's body."""
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
        if not response.has_bytes and data.startswith(_OK) and self._take_whole(response, data):
            return
        response.has_bytes = True
        self._bodyless_bytes += len(data)
        self._is_parsing = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            response.fail(UpstreamError("protocol", f"{self.origin}: not HTTP: {error}"))
            self.cut()
        except httptools.HttpParserUpgrade:
            response.fail(UpstreamError("protocol", f"{self.origin}: it changes the protocol unasked"))
            self.cut()
        else:
            if self._is_released:
                self._return()
            elif self._bodyless_bytes > MAX_HEAD_BYTES and not response.is_complete:
                what = "trailers" if response.is_head_complete else "head"
                response.fail(UpstreamError("protocol", f"{self.origin}: {what} over {MAX_HEAD_BYTES} bytes"))
                self.cut()
        finally:
            self._is_parsing = self._is_released = False

    def _take_whole(self, response: UpstreamResponse, data: bytes) -> bool:
        """A plain answer that came in one piece, without the parser, which stands before it and stays there.

        False where anything about it is not plain; then nothing has happened.
        """
        end = data.find(b"\r\n\r\n") + 2
        head = data[:end]
        headers = _FIELD.findall(head)
        fields = dict(headers)
        size = fields.get(b"content-length")
        count = len(headers)
        if (
            size is None
            or not size.isdigit()
            or len(size) > 9
            or len(data) - end - 2 != int(size)
            or len(fields) != count
            or count > MAX_HEADERS
            or head.count(b"\n") != count + 1
            or head.count(b"\r") != count + 1
            or b" \r" in head
            or not _NOT_PLAIN.isdisjoint(fields)
        ):
            return False
        self.is_keep_alive = True
        response.arrive(headers, fields, data[end + 2 :])
        return True

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
            if self.origin.scheme == "https" and not (self.is_reused or response.has_bytes):
                reason += UNSAID
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
        response = self.response
        assert response is not None
        if not response.is_head_complete:  # trailers say nothing here
            response.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self.response
        assert response is not None
        status = self._parser.get_status_code()
        if len(response.headers) > MAX_HEADERS:
            raise ValueError(f"more than {MAX_HEADERS} headers")
        if status >= 600:
            raise ValueError(f"status {status}")
        if status < 200:
            response.headers.clear()
            return
        response.start(status)

    def on_body(self, body: bytes) -> None:
        assert self.response is not None
        self._bodyless_bytes = 0
        self.response.take(body)

    def on_message_complete(self) -> None:
        response = self.response
        assert response is not None
        if response.status == 0 or response.is_complete:  # an interim (1xx) answer, or one too many
            return
        self.is_keep_alive = self._parser.should_keep_alive() and not response.ends_with_connection
        response.complete()

    # the pool's side
    def round_trip_seconds(self) -> float | None:
        """The kernel's least (Linux: `tcpi_min_rtt`, from 4.6 on); None where it does not say."""
        link = None if self.transport is None else self.transport.get_extra_info("socket")
        if link is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, MIN_RTT_OFFSET + 4)
        except OSError:
            return None
        if len(info) < MIN_RTT_OFFSET + 4:
            return None
        microseconds = int.from_bytes(info[MIN_RTT_OFFSET : MIN_RTT_OFFSET + 4], sys.byteorder)
        return microseconds / 1e6 if 0 < microseconds < UNKNOWN_RTT else None

    def exchange(
        self,
        head: bytes,
        body: bytes | memoryview,
        observer: ResponseObserver | None = None,
        tail: bytes = b"",
    ) -> UpstreamResponse:
        """Write one request; `head` ends with its blank line, `tail` is the end of the body."""
        assert self.transport is not None
        self.response = UpstreamResponse(self, self.origin, self.loop, observer)
        self._bodyless_bytes = 0
        if len(body) > 65_536:
            self.transport.writelines((head, body, tail) if tail else (head, body))  # not copied together
        elif tail:
            self.transport.write(b"".join((head, body, tail)))
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
