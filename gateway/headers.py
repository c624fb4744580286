"""Which headers cross a proxy (RFC 9110 §7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable

HeaderList = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Meant for one connection; never forwarded. `content-length` and `host` are written anew."""

_NOT_FORWARDED = HOP_BY_HOP | {b"content-length", b"host", b"expect"}
NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"date", b"server"}


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes] = frozenset()
) -> HeaderList:
    """A client's headers that go on to the next hop, less `drop` (lower-case names)."""
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_FORWARDED and name not in drop and not name.startswith(b"x-heron-")
    ]


def response_headers(
    headers: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes] = frozenset()
) -> HeaderList:
    """An upstream's headers that go back to the client, less `drop` (lower-case names)."""
    return [
        header
        for header in headers
        if header[0] not in NOT_RETURNED and header[0] not in drop and header[0][:8] != b"x-heron-"
    ]
