"""What a request may take before it is whole: of its head, of its trailers, and of the room for all bodies.

Nothing of it is known to be wanted yet, so whoever may be refused by the head alone is refused by that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.body_room import BodyRoom
from gateway.client_request import ClientRequest
from gateway.headers import HeaderList
from gateway.refusal import HeadRefusal, no_room, too_large_head
from gateway.turns import MAX_FED_BYTES, TurnsProtocol

MAX_HEAD_BYTES = 64 * 1024


class UnfinishedProtocol(TurnsProtocol):
    """Turns, and limits for what is not whole."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None,
        body_room: BodyRoom,
        head_refusal: HeadRefusal | None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._body_room = body_room
        self._room_bytes = 0
        """That the request which is being read has taken of it."""
        self._head_refusal = head_refusal
        self._is_in_head = self._is_let_in = False
        self._head_bytes = 0
        self._bodyless_bytes = 0
        """That came since the last byte of the body that is being read."""

    def refuse(self, status: int, body: bytes, headers: HeaderList | None = None) -> None:
        """Answer before the request is whole."""
        raise NotImplementedError

    def _bound_unfinished(self, size: int, *, is_all_its: bool, has_body: bool) -> None:
        """`size` more bytes came of a request that is not whole, or some of them: head, body or trailers."""
        if is_all_its:
            if self._is_in_head:
                self._head_bytes += size
                what, total = "head is", self._head_bytes
            else:
                self._bodyless_bytes = 0 if has_body else self._bodyless_bytes + size
                what, total = "trailers are", self._bodyless_bytes
            if total > MAX_HEAD_BYTES:
                self.refuse(*too_large_head(what, MAX_HEAD_BYTES))
                return
        cycle = self.cycle
        if self._is_in_head or not isinstance(cycle, ClientRequest):  # the application takes it as it comes
            return
        if not self._is_let_in and cycle.is_turn and not self._let_in(cycle):
            return
        if self._body_room.take(self.body_bytes - self._room_bytes):
            self._room_bytes = self.body_bytes
        else:
            self.refuse(*no_room())

    def _let_in(self, request: ClientRequest) -> bool:
        """Whether its body may come; else it is refused by its head."""
        self._is_let_in = True
        refusal = None if self._head_refusal is None else self._head_refusal(request)
        if refusal is not None:
            self.refuse(*refusal)
        return refusal is None

    def _give_room_back(self) -> None:
        self._body_room.give_back(self._room_bytes)
        self._room_bytes = 0

    def _is_head_too_large(self) -> bool:
        """Of a whole head: its last bytes may have come with its end, and were not measured."""
        return (
            self._head_bytes + self._fed_bytes > MAX_HEAD_BYTES - MAX_FED_BYTES
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            > MAX_HEAD_BYTES
        )
