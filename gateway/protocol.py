"""uvicorn's HTTP protocol with the hot paths inside: requests that never pass through ASGI.

Why: FastAPI and ASGI cost 63–110 µs a request (FACTS.md), as much as the whole hop may. A hot handler gets
the request with its body and writes the answer straight to the client's transport. Everything else goes on to
the ASGI application as usual.

What ASGI's way did for free is done here too: keep-alive and read time-outs, limits on head and body,
`Expect: 100-continue`, pipelining, flow control, graceful shutdown.

Rule: a hot handler owns its request. It either answers in callbacks and says so by returning None, or returns
a coroutine that is run as a task. When the client leaves, the task is cancelled or `on_gone` called, and what
was taken is released.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import httptools
import uvicorn
from uvicorn.server import ServerState

from gateway import client_timeouts, hot_tasks
from gateway.body_room import BodyRoom
from gateway.client_request import CONTINUE, ClientRequest, HotRoute
from gateway.cors import CorsPolicy
from gateway.errors import error_body
from gateway.half_close import is_half_closed, is_open, watch_client
from gateway.headers import HeaderList
from gateway.known_heads import KnownHeads
from gateway.pieces import collect, joined
from gateway.refusal import HeadRefusal, early_refusal, too_large, too_large_head
from gateway.unfinished import MAX_HEAD_BYTES, UnfinishedProtocol

logger = logging.getLogger(__name__)

MAX_HEADERS = 256
LINGER_SECONDS = 1.0
"""After an early refusal the rest of the body is read and dropped until nothing has come for so long, or the
answer would be lost in a reset: many clients read it only once all is sent."""
MAX_LINGER_SECONDS = 60.0
"""The same in all."""
WRITE_HIGH_BYTES = 256 * 1024
MAX_KNOWN_URLS = 64
"""Parsed ones that are kept: clients use a handful."""


class HotPathProtocol(UnfinishedProtocol):
    """uvicorn's protocol, with the hot paths inside."""

    def __init__(
        self,
        *,
        hot: HotRoute,
        max_body_bytes: int,
        known_urls: dict[bytes, tuple[str, bytes]],
        known_heads: KnownHeads,
        body_room: BodyRoom,
        head_refusal: HeadRefusal | None = None,
        cors: CorsPolicy | None = None,
        allows_half_close: bool = False,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, body_room, head_refusal)
        self._hot = hot
        self._known_urls = known_urls
        self._known_heads = known_heads
        self._max_body_bytes = max_body_bytes
        self._cors = cors
        self._allows_half_close = allows_half_close
        self._is_watched = False
        self._is_plain = True
        """The parser stands between two messages, and the last one was plain."""
        self._is_offer = False
        self._heard_at = 0.0
        """When bytes came last that nobody wants."""
        self._date: tuple[object, bytes] = (None, b"")
        self.closing: tuple[float, int] | None = None
        """Closed by us, and not gone yet: since when it has had so many bytes unsent."""

    def date_header(self) -> bytes:
        """The `Date` line, encoded once a second."""
        current = self.server_state.default_headers
        if self._date[0] is not current:
            lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in current)
            self._date = (current, lines)
        return self._date[1]

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.read_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycles = dict.fromkeys((self._serving, self.cycle, *(cycle for cycle, _ in self.pipeline)))
        self.pipeline.clear()
        for cycle in cycles:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                if isinstance(cycle, ClientRequest):
                    cycle.client_gone()
        # in a ring with this they would stay, bodies and all, until the collector comes round
        self.cycle = self._serving = self.parser = None  # type: ignore[assignment]
        self._unfed = b""
        self._give_room_back()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: False closes the connection.

        A client may close its sending half and still read (RFC 9112 §9.6): what it asked whole is answered.
        One that has gone looks the same until something is sent to it: its machine refuses that, and the
        socket then shows it.
        """
        cycle = self.cycle
        if not self._allows_half_close or self.is_in_message or cycle is None or cycle.response_complete:
            return False
        self._is_half_closed = True
        self._watch_half_closed()
        return True

    def _watch_half_closed(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            if isinstance(self._serving, ClientRequest):
                self._serving.knock()
            watch_client(self.loop, self.transport)

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            self._heard_at = self.loop.time()
            return
        is_plain = self._is_plain
        before = self.cycle
        if is_plain:
            cycle = before
            if cycle is None or cycle.response_complete:
                found = self._known_heads.find(data)
                if found is not None:
                    self.read_since = self.idle_since = None
                    request = ClientRequest.of_known(self, *found, self.loop.time())
                    self.cycle = self._serving = request  # type: ignore[assignment]
                    self._start_hot(request)
                    return
            self._is_plain = False
        if self.read_since is None:
            self.read_since = self.loop.time()
            self.idle_since = None
        if self._unfed:
            self.flow.pause_reading()
            self._unfed += data
            return
        is_plain = self._feed(data) and is_plain
        if self._unfed:
            self._read_on()
        elif not (self.is_in_message or self.pipeline or self.is_refused) and isinstance(
            self.cycle, ClientRequest
        ):
            self._is_plain = self.cycle.is_plain
            if is_plain and self._is_plain and self.cycle is not before:  # made of these bytes alone
                self._known_heads.learn(data, self.cycle)

    def _refuse_malformed(self) -> None:
        self.logger.warning("Invalid HTTP request received.")
        if self._is_answering_another():
            self.transport.close()  # nothing may come in the midst of that answer
            return
        error = error_body(
            "This is no valid HTTP/1.1 request.", type="invalid_request_error", code="invalid_http"
        )
        self.refuse(400, error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_paused_since = self.loop.time()
        cycle = self._serving
        if isinstance(cycle, ClientRequest) and cycle.on_pause is not None:
            cycle.on_pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_paused_since = None
        cycle = self._serving
        if isinstance(cycle, ClientRequest) and cycle.on_resume is not None:
            cycle.on_resume()
        if cycle is not None and cycle.response_complete and not self.transport.is_closing():
            self._go_on()

    # httptools
    def on_message_begin(self) -> None:
        # uvicorn's makes the ASGI scope here; hot requests have none
        self.url = b""
        self.headers = []
        self.expect_100_continue = self._is_offer = self._is_let_in = False
        self._is_in_head = self.is_in_message = True
        self._head_bytes = self.body_bytes = self._bodyless_bytes = self._declared_bytes = 0
        self._begun += 1
        if self.read_since is None:  # behind another one, in the same bytes
            self.read_since, self.idle_since = self.loop.time(), None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # trailers say nothing here
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self.is_refused:
            return
        headers = self.headers
        if self._is_head_too_large():
            self.refuse(*too_large_head("head is", MAX_HEAD_BYTES))
            return
        if len(headers) > MAX_HEADERS:
            self.refuse(431, error_body(f"More than {MAX_HEADERS} headers.", type="invalid_request_error"))
            return
        fields = dict(headers)
        if b"upgrade" in fields and self.parser.should_upgrade():
            self._is_offer = True  # the parser gives it up behind its head; `feed` brings it again
            return
        length = fields.get(b"content-length")
        if length is not None and length.isdigit():
            self._declared_bytes = int(length)
            if self._declared_bytes > self._max_body_bytes:
                self.refuse(*too_large(self._max_body_bytes))
                return
        if b"expect" in fields and fields[b"expect"].lower() == b"100-continue":
            self.expect_100_continue = True
        known = self._known_urls.get(self.url)
        path, query = self._read_url() if known is None else known
        method = self.parser.get_method().decode("ascii")
        handler = self._hot(method, path)
        if handler is None:
            self._begin_asgi()
            return
        is_http_11 = self.parser.get_http_version() == "1.1"
        request = ClientRequest(
            self,
            handler,
            method,
            path,
            query,
            headers,
            fields,
            keep_alive=is_http_11 and self.parser.should_keep_alive(),
            is_chunked=is_http_11,
            received_at=self.loop.time(),
        )
        if self._cors is not None:
            request.extra_head = self._cors.lines(self.headers)
        before = self.cycle
        self.cycle = request  # type: ignore[assignment]
        if (before is None or before.response_complete) and not self._is_full:
            request.is_turn = True
            self._serving = request
            if self.expect_100_continue and self._let_in(request):
                self.transport.write(CONTINUE)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((request, self.app))  # type: ignore[arg-type]

    def _read_url(self) -> tuple[str, bytes]:
        """Path and query of the request, kept for the next one."""
        url: Any = httptools.parse_url(self.url)  # its query may be None, whatever its types say
        read = url.path.decode("ascii", "replace"), url.query or b""
        if len(self._known_urls) < MAX_KNOWN_URLS:
            self._known_urls[self.url] = read
        return read

    def _begin_asgi(self) -> None:
        """Hand the request to uvicorn's own way, as if it had seen it from the beginning."""
        url, headers, is_expecting = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, is_expecting
        self.headers.extend(headers)  # the list is the scope's
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.is_refused:
            return
        self.body_bytes += len(body)
        if self.body_bytes > self._max_body_bytes:
            self.refuse(*too_large(self._max_body_bytes))
            return
        cycle = self.cycle
        if isinstance(cycle, ClientRequest):
            collect(cycle.pieces, body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_offer:
            return
        self.read_since = None
        self.is_in_message = False
        if self.is_refused:
            return
        if self._room_bytes:
            self._give_room_back()
        cycle = self.cycle
        if not isinstance(cycle, ClientRequest):
            super().on_message_complete()
            return
        cycle.is_whole = True
        cycle.body = joined(cycle.pieces)
        cycle.pieces.clear()
        if cycle.is_turn:
            self._start_hot(cycle)

    def _start_hot(self, request: ClientRequest) -> None:
        try:
            rest = request.handler(request)
        except Exception:
            logger.exception("a hot handler failed", extra=request.about)
            hot_tasks.end_failed(request)
            return
        if rest is not None:
            self.run_task(request, rest)

    def run_task(self, request: ClientRequest, rest: Coroutine[Any, Any, None]) -> None:
        """Go on with a request in a task, cancelled when its client leaves."""
        hot_tasks.run(self.loop, self.tasks, request, rest)

    def refuse(self, status: int, body: bytes, headers: HeaderList | None = None) -> None:
        """Answer before the request is whole, then drop what has come and still comes, and close."""
        self.is_refused = True
        self._give_room_back()
        cycle = self.cycle
        if isinstance(cycle, ClientRequest):
            cycle.pieces.clear()
        if cycle is not None and not cycle.response_complete:
            if getattr(cycle, "started", False) or getattr(cycle, "response_started", False) or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(
            early_refusal(
                status,
                body,
                headers or [],
                url=self.url,
                headers=self.headers or [],
                date=self.date_header(),
                cors=self._cors,
            )
        )
        self._heard_at = now = self.loop.time()
        self._linger(now + MAX_LINGER_SECONDS)

    def _linger(self, until: float) -> None:
        """Close once the client has stopped sending, or at that loop time."""
        now = self.loop.time()
        quiet = now - self._heard_at
        if quiet >= LINGER_SECONDS or now >= until:
            self.transport.close()
        else:
            self.loop.call_later(LINGER_SECONDS - quiet, self._linger, until)

    def _is_answering_another(self) -> bool:
        """Whether an answer is under way to a request before the one that is being read."""
        serving = self._serving
        if serving is None or serving.response_complete:
            return False
        return self._is_in_head or not (self.is_in_message and serving is self.cycle)

    def check_timeouts(self, now: float) -> None:
        """Called once a second: drop a client that sends or takes nothing, or has left."""
        is_blind = self.flow.read_paused and self.pipeline and not self.transport.is_closing()
        if is_blind and not is_open(self.transport):
            if self._allows_half_close and is_half_closed(self.transport):
                self._watch_half_closed()
            else:
                self.transport.abort()
        client_timeouts.check(self, now)
