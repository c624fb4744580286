"""Free ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
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


@pytest.mark.skipif(sys.platform != "linux", reason="claims are names in Linux's abstract namespace")
def test_what_another_process_was_given_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its services have not bound them yet; once it ends, they are free again."""
    lines = (
        "import sys; from cli.ports import free_ports; print(free_ports(40), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = json.loads(other.stdout.readline())
        monkeypatch.setattr(module, "FIRST_PORT", theirs[0] - 10)
        monkeypatch.setattr(module, "_first_ephemeral_port", lambda: theirs[0] + 10)
        assert len(ours := set(free_ports(20))) == 20
    assert not ours & set(theirs)


def test_claims_are_bounded() -> None:
    """A process that asks for ports all day keeps no more descriptors than that."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        free_ports(module.CLAIMS)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + module.CLAIMS
