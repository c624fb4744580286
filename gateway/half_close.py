"""A client that has closed its sending half, or has gone: its machine says which when it is written to."""

from __future__ import annotations

import asyncio
import socket

FIRST_CHECK_SECONDS = 0.005
LAST_CHECK_SECONDS = 1.0
"""Whether somebody is still there is looked at after so long, then ever more seldom."""
_TCP_ESTABLISHED, _TCP_CLOSE_WAIT = 1, 8
"""Linux: the other side is there; it has closed its half, and nothing else is known of it."""


def watch_client(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, wait_seconds: float = FIRST_CHECK_SECONDS
) -> None:
    """Cut the connection once the client's machine has said that nobody is there; look until it is closed."""
    loop.call_later(wait_seconds, _look, loop, transport, wait_seconds)


def _look(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, waited_seconds: float) -> None:
    if transport.is_closing():
        return
    if not is_half_closed(transport):
        transport.abort()
    else:
        watch_client(loop, transport, min(2 * waited_seconds, LAST_CHECK_SECONDS))


def is_open(transport: asyncio.Transport) -> bool:
    """Whether the other side may still send, as far as its machine has said; it is seen without reading."""
    return _state(transport) == _TCP_ESTABLISHED


def is_half_closed(transport: asyncio.Transport) -> bool:
    """Whether it has closed its half, and nothing else is known of it."""
    return _state(transport) == _TCP_CLOSE_WAIT


def _state(transport: asyncio.Transport) -> int:
    try:
        return int(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    except OSError:  # closed in the meantime
        return 0
