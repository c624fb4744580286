"""Requests that offer to go on in another protocol (`Upgrade: h2c`, `websocket`), read as if they did not.

Why: the parser stops behind the head of such a request and takes what follows for the other protocol, so that
its body would be lost. A server may pass the offer over (RFC 9110 §7.8), and this one speaks HTTP/1.1 alone.
Java's own client makes it with every request over plain HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import httptools

_OFFER = frozenset({b"upgrade", b"http2-settings"})
"""Headers of the offer, and their names in `Connection`."""


class Reader(Protocol):
    """What is read: the parser's own callbacks have left these there."""

    parser: Any
    url: bytes
    headers: Any


def feed(reader: Reader, data: bytes | memoryview) -> bool:
    """Feed the reader's parser; each head with an offer is read again without it. True: there was one.

    Raises:
        httptools.HttpParserError: not HTTP, or CONNECT, which is no request of ours.
    """
    has_offer = False
    rest = data
    while True:
        try:
            reader.parser.feed_data(rest)
        except httptools.HttpParserUpgrade as offer:
            parser = reader.parser
            method = parser.get_method()
            if method == b"CONNECT":
                raise httptools.HttpParserError("CONNECT") from None
            rest = memoryview(rest)[offer.args[0] :]  # a copy for each of many offers would be a lot
            reader.parser = httptools.HttpRequestParser(reader)
            reader.parser.feed_data(
                head_without_offer(method, reader.url, parser.get_http_version(), reader.headers)
            )
            has_offer = True
        else:
            return has_offer


def head_without_offer(
    method: bytes, url: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """The head of a request once more, to its blank line; names of headers are in lower case."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode("ascii"))]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            kept = b", ".join([token for token in tokens if token and token.lower() not in _OFFER])
            if kept:
                lines.append(b"connection: %b" % kept)
        elif name not in _OFFER:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"
