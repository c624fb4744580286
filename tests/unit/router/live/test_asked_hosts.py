"""Names that no stranger can own, and those that the operator has given."""

from __future__ import annotations

import pytest

from router.live.asked_hosts import is_own_name

NAMES = frozenset({"heron.example.org"})


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"127.0.0.1", b"127.0.0.1:8001", b"10.1.2.3:80", b"[::1]", b"[::1]:8001", b"[fd00::1]:8001"),
        *(b"localhost", b"LOCALHOST:8001", b"a.localhost:8001", b"router:8001", b"router", b"localhost.:1"),
        *(b"heron.example.org", b"Heron.Example.org:443", b"heron.example.org.:8001"),
    ],
)
def test_these_are_ours(host: bytes):
    """With a port or without, however they are written."""
    assert is_own_name(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.example", b"evil.example:8001", b"127.0.0.1.evil.example", b"x.heron.example.org"),
        *(b"evil.example.", b"localhost.evil.example:8001", b"127.0.0.1x.y", b"\xff.y"),
        *(b"[::1.x]", b"[a.b]:1"),
    ],
)
def test_these_are_not(host: bytes):
    """Anybody may let them point here."""
    assert not is_own_name(host, NAMES)
