"""Free ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli import ports as module
from cli.ports import free_ports


def test_ports_are_distinct_and_free() -> None:
    """Each port comes once, and can be bound right away."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_none_is_one_that_outgoing_connections_get() -> None:
    """Else one of those could take it before the service binds."""
    first = int(module.EPHEMERAL.read_text().split()[0])
    assert all(module.FIRST_PORT <= port < first for port in free_ports(50))


@pytest.mark.parametrize("text", ["1024 65535", "nonsense", ""])
def test_where_nothing_is_left_for_them_the_kernel_gives_ports(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file says."""
    path = tmp_path / "range"
    path.write_text(text)
    monkeypatch.setattr(module, "EPHEMERAL", path)
    assert len(set(free_ports(5))) == 5
