"""The kernel's watch over a TCP connection whose other side may vanish without a word.

Why: a request that was sent and not answered yet is a connection on which nothing moves. Where the network
drops everything no end of it would ever be seen. Probes are sent while nothing else is; a peer that reads
nothing for a while answers them all the same, and is not cut (TCP_USER_TIMEOUT would cut it).
"""

from __future__ import annotations

import asyncio
import socket

PROBE_AFTER_SECONDS = 5
PROBE_EVERY_SECONDS = 5
MAX_PROBES = 3


def watch_link(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end a connection that nobody answers on."""
    link = transport.get_extra_info("socket")
    if link is None or link.family not in (socket.AF_INET, socket.AF_INET6):
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", PROBE_AFTER_SECONDS),
        ("TCP_KEEPINTVL", PROBE_EVERY_SECONDS),
        ("TCP_KEEPCNT", MAX_PROBES),
    ):
        option = getattr(socket, name, None)  # not every system has each
        if option is not None:
            link.setsockopt(socket.IPPROTO_TCP, option, value)
