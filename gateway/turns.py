"""In which order the requests of one connection are read and begun; the rest of the protocol is `protocol`'s.

A client may send many requests at once. They are answered one after the other, some are begun in each turn of
the event loop, and nothing is read on behind one that must wait: neither many small ones nor one slow one may
hold up other connections, or fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.client_request import CONTINUE, ClientRequest
from gateway.upgrade import feed

MAX_FED_BYTES = 16 * 1024
"""Given to the parser at once, beside the rest of a body: many small requests in one piece hold up nobody."""
MAX_BEGUN_AT_ONCE = 16
"""Where more requests began in one turn of the loop, what came behind them waits for the next."""


class TurnsProtocol(HttpToolsProtocol):
    """uvicorn's protocol with turns for all."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url, self.headers = b"", []  # uvicorn has None until a request begins
        self.is_in_message = self.is_refused = self._is_half_closed = False
        self.body_bytes = 0
        """Of the request that is being read."""
        self._declared_bytes = 0
        """Of its body, where it says: they are one request's, and are fed together."""
        self.read_since: float | None = None
        """When the request that is being read began; None between requests."""
        self.idle_since: float | None = None
        """When the last answer ended; None while a request is under way."""
        self._serving: Any = None
        """The request whose turn it is; `cycle` is the last one that came, which may wait behind it."""
        self._begun = 0
        """Requests that began in the bytes that are being parsed."""
        self._fed_bytes = 0
        """How many those are."""
        self._unfed = b""
        """What came behind a request that must wait for its turn, or for the loop's next one."""
        self._is_feeding_on = False
        """That is being fed, or will be in the loop's next turn."""
        self._is_taking_turns = False
        self.write_paused_since: float | None = None
        """Since when the client has had more unread than `WRITE_HIGH_BYTES`."""

    # what the whole protocol does
    def _start_hot(self, request: ClientRequest) -> None:
        raise NotImplementedError

    def _refuse_malformed(self) -> None:
        raise NotImplementedError

    def _bound_unfinished(self, size: int, *, is_all_its: bool, has_body: bool) -> None:
        raise NotImplementedError

    def _feed(self, data: bytes) -> bool:
        """Give the parser what came, up to a request that must wait. True: nobody offered an upgrade."""
        size, place, begun, is_plain = len(data), 0, 0, True
        while True:
            most = max(MAX_FED_BYTES, self._declared_bytes - self.body_bytes)
            piece = data if not place and size <= most else memoryview(data)[place : place + most]
            self._fed_bytes = len(piece)
            place += self._fed_bytes
            body_bytes, was_in_message, self._begun = self.body_bytes, self.is_in_message, 0
            try:
                is_plain = not feed(self, piece) and is_plain
            except httptools.HttpParserError:
                self._refuse_malformed()
                return False
            if self.is_in_message and not self.is_refused:
                is_all_its = not self._begun or (self._begun == 1 and not was_in_message)
                has_body = self.body_bytes != body_bytes
                self._bound_unfinished(self._fed_bytes, is_all_its=is_all_its, has_body=has_body)
            if place >= size or self.is_refused or self.transport.is_closing():
                return is_plain
            begun += self._begun
            if self.pipeline or self._is_full or begun > MAX_BEGUN_AT_ONCE:
                self._unfed = data[place:]
                self.flow.pause_reading()
                return is_plain

    def _read_on(self) -> None:
        """Go on behind what had to wait, unless something still must."""
        if self.pipeline or self._is_full:
            return
        if self._unfed:
            if not self._is_feeding_on:
                self._is_feeding_on = True
                self.loop.call_soon(self._feed_on)
        elif self.flow.read_paused:
            self.flow.resume_reading()
            if self.read_since is not None:  # the next request waited for us, not for its client
                self.read_since = self.loop.time()

    def _feed_on(self) -> None:
        data, self._unfed = self._unfed, b""
        if data and not (self.is_refused or self.transport.is_closing()):
            if self.read_since is None:
                self.read_since, self.idle_since = self.loop.time(), None
            self._feed(data)
        self._is_feeding_on = False
        self._read_on()
        cycle = self.cycle
        if not self._unfed and (cycle is None or cycle.response_complete):
            self._rest()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Called by uvicorn when a pipelined request's turn comes, or at once for one on the ASGI path."""
        self._serving = cycle
        if not isinstance(cycle, ClientRequest):
            super()._start_asgi_task(cycle, app)
            return
        cycle.is_turn = True
        if cycle.is_whole:
            self._start_hot(cycle)
        elif self.expect_100_continue:
            self.transport.write(CONTINUE)

    def on_response_complete(self) -> None:
        """As uvicorn's, less its timer for every answer: `check_timeouts` closes idle connections."""
        self.server_state.total_requests += 1
        if not (self._is_taking_turns or self.transport.is_closing()):
            self._go_on()

    @property
    def _is_full(self) -> bool:
        """The client has not read what was answered: it gets no further answers before it has."""
        serving = self._serving
        return self.write_paused_since is not None and (serving is None or serving.response_complete)

    def _go_on(self) -> None:
        """The next request, where its client has room for the answer."""
        if self._is_full:
            self.flow.pause_reading()
        elif self.pipeline:
            self._take_turns()
        else:
            self._read_on()
            self._rest()

    def _take_turns(self) -> None:
        """Begin the requests that wait, up to one that is not answered at once.

        In a loop: else each would begin the next from within its own answer. `MAX_FED_BYTES` bounds them.
        """
        self._is_taking_turns = True
        try:
            while self.pipeline and not self._is_full:
                cycle, app = self.pipeline.pop()
                self._read_on()
                self._start_asgi_task(cycle, app)
                if not cycle.response_complete or self.transport.is_closing():
                    return
        finally:
            self._is_taking_turns = False
        if self._is_full:
            self.flow.pause_reading()
        else:
            self._rest()

    def _rest(self) -> None:
        """All that was read is answered."""
        if self._is_feeding_on:
            return
        if self._is_half_closed:
            self.transport.close()
        elif self.read_since is None:
            self.idle_since = self.loop.time()
