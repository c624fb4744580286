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

_SAID_BY_THE_ROUTER_ALONE = frozenset(
    {
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"access-control-allow-private-network",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"set-cookie",
        b"set-cookie2",
    }
)
"""A browser would take them for the word of the server that it asked: who may read it, what to keep."""

_NOT_FORWARDED = HOP_BY_HOP | {b"content-length", b"host", b"expect"}
NOT_RETURNED = HOP_BY_HOP | _SAID_BY_THE_ROUTER_ALONE | {b"content-length", b"date", b"server"}
"""Nor is what the `Connection` header names (`connection_names`), nor `x-heron-…`."""


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes] = frozenset()
) -> HeaderList:
    """A client's headers that go on to the next hop, less `drop` (lower-case names)."""
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_FORWARDED and name not in drop and not name.startswith(b"x-heron-")
    ]


def response_headers(headers: HeaderList, drop: frozenset[bytes] = frozenset()) -> HeaderList:
    """An upstream's headers that go back to the client, less `drop` (lower-case names)."""
    drop |= connection_names(headers)
    return [
        header
        for header in headers
        if header[0] not in NOT_RETURNED and header[0] not in drop and header[0][:8] != b"x-heron-"
    ]


def connection_names(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that are for one connection because its `Connection` header names them."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(name.strip().lower() for value in values for name in value.split(b","))
