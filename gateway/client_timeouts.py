"""Clients that send or take nothing. Each connection is looked at once a second: a timer for every request
would cost more than it is worth."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.errors import error_body

READ_TIMEOUT_SECONDS = 60.0
"""A request must have arrived whole by then, and a body that is long at this pace at least: one byte a minute
is not a client, a recording over a slow line is."""
MIN_BODY_BYTES_PER_SECOND = 32 * 1024
WRITE_STALL_SECONDS = 120.0
"""A client that takes nothing for so long, while its buffer is full or its connection closed, is gone."""


class ClientConnection(Protocol):
    """What is looked at. Times are the loop's."""

    transport: asyncio.Transport
    flow: Any
    timeout_keep_alive: int
    read_since: float | None
    idle_since: float | None
    write_paused_since: float | None
    closing: tuple[float, int] | None
    """Closed by us, and not gone yet: since when it has had so many bytes unsent."""

    @property
    def body_bytes(self) -> int:
        """What has come of the body of the request that is being read."""

    @property
    def is_refused(self) -> bool:
        """Answered early; it closes by itself."""

    @property
    def is_in_message(self) -> bool:
        """A request has begun to come, and is not whole."""

    def refuse(self, status: int, body: bytes) -> None:
        """Answer before the request is whole."""


def check(connection: ClientConnection, now: float) -> None:
    """Drop the connection if its client is late; cases in order: closing, refused, taking nothing, idle,
    sending nothing (unless we do not read)."""
    transport = connection.transport
    if transport.is_closing():
        unsent = transport.get_write_buffer_size()
        if connection.closing is None or connection.closing[1] != unsent:
            connection.closing = now, unsent
        elif now - connection.closing[0] > WRITE_STALL_SECONDS:
            transport.abort()
    elif connection.is_refused:
        return
    elif connection.write_paused_since is not None:
        if now - connection.write_paused_since > WRITE_STALL_SECONDS:
            transport.abort()
    elif connection.idle_since is not None and now - connection.idle_since >= connection.timeout_keep_alive:
        transport.close()
    elif connection.flow.read_paused or connection.read_since is None:
        return
    elif now - connection.read_since > _read_seconds(connection.body_bytes):
        if connection.is_in_message:
            seconds, each = now - connection.read_since, MIN_BODY_BYTES_PER_SECOND // 1024
            message = (
                f"The request was not complete after {seconds:.0f} s. It may take {READ_TIMEOUT_SECONDS:g} s "
                f"and one more for every {each} KiB of its body."
            )
            connection.refuse(408, error_body(message, type="invalid_request_error", code="request_timeout"))
        else:
            transport.close()


def _read_seconds(body_bytes: int) -> float:
    return READ_TIMEOUT_SECONDS + body_bytes / MIN_BODY_BYTES_PER_SECOND
