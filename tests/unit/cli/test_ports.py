"""Free ports."""

from __future__ import annotations

import socket

from cli.ports import free_ports


def test_ports_are_distinct_and_free() -> None:
    """Each port comes once, and can be bound right away."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
