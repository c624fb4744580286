"""Free loopback ports, distinct from each other."""

from __future__ import annotations

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` ports that nothing listens on now.

    All are held open until the last is found, so none comes twice. Between this and a service's own bind
    another program could take one; the kernel hands ports out in turn, so that takes bad luck, and the
    service then says which port is in use.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
