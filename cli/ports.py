"""Free loopback ports, distinct from each other.

Rule: none that the kernel gives to outgoing connections by itself. Between a look at a port and a service's
own bind some connection may take one of those, and on a busy machine does: a demo whose agent then says
"address already in use" is no bad luck but a matter of time. Nor one that another Heron process was just
given: what will bind it is seconds away.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections import deque
from contextlib import ExitStack
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST_PORT = 10_240
"""Below are those of well-known services."""
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_EPHEMERAL_PORT = 32_768
"""Where outgoing connections begin, if nobody changed it."""

CLAIMS = 64
"""How many ports a process keeps from others after it was given them; an older one is bound by now."""
_claims: deque[int] = deque()


def free_ports(count: int) -> list[int]:
    """`count` ports that nothing listens on now.

    All are held open until the last is found, so none comes twice. Where too few are free outside the range
    of outgoing connections, the kernel gives the rest.
    """
    candidates = range(FIRST_PORT, max(FIRST_PORT, _first_ephemeral_port()))
    tried = random.SystemRandom().sample(candidates, min(len(candidates), 20 * count + 100))
    with ExitStack() as held:
        ports: list[int] = []
        for candidate in [*tried, *[0] * count]:
            if len(ports) == count:
                break
            one = held.enter_context(socket.socket())
            try:
                one.bind((LOOPBACK, candidate))
                port = one.getsockname()[1]
                _claim(port)
            except OSError:  # somebody has it, or will have it in a moment
                continue
            ports.append(port)
        return ports


def _claim(port: int) -> None:
    """Tell all other processes of this machine that `port` is spoken for, until this one ends.

    By a socket whose name is in Linux's abstract namespace: it leaves no file, and goes with its process.
    Elsewhere, or where that is forbidden, nothing is told. Raises `OSError` if another has claimed it.
    """
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0heron-port-{port}")
        except PermissionError:
            return
        _claims.append(claim.detach())
    if len(_claims) > CLAIMS:
        os.close(_claims.popleft())


def _first_ephemeral_port() -> int:
    try:
        return int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return USUAL_EPHEMERAL_PORT
