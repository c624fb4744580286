"""Cross-origin requests of browsers (CORS, by the Fetch standard). Nothing is allowed unless configured.

What a browser may see is settled once per origin; a request then costs one look-up, and none where no origin
is configured. Credentials (cookies) are never allowed: keys come in headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

EXPOSED = b"x-request-id, x-heron-site, retry-after, x-should-retry"
MAX_AGE_SECONDS = 600
MAX_ASKED_HEADERS_BYTES = 4096
HeaderSequence = Sequence[tuple[bytes, bytes]]


class CorsPolicy:
    """Which origins may read this server's answers; `*` is every one."""

    __slots__ = ("_allows_all", "_by_origin", "_foreign")

    def __init__(self, origins: Iterable[str]) -> None:
        names = [origin.encode("ascii") for origin in origins]
        self._allows_all = b"*" in names
        exposed = b"access-control-expose-headers: %b\r\n" % EXPOSED
        self._foreign = (
            b"access-control-allow-origin: *\r\n" + exposed if self._allows_all else b"vary: Origin\r\n"
        )
        """For an origin that is not named, and for requests without one."""
        self._by_origin = {
            name: b"access-control-allow-origin: %b\r\nvary: Origin\r\n%b" % (name, exposed)
            for name in names
            if name != b"*"
        }

    def lines(self, headers: HeaderSequence) -> bytes:
        """What every answer to a request with these headers carries, as lines of its head."""
        return self._by_origin.get(header_of(headers, b"origin"), self._foreign)

    def pairs(self, headers: HeaderSequence) -> list[tuple[bytes, bytes]]:
        """The same as pairs, for an ASGI application."""
        found = [line.partition(b": ") for line in self.lines(headers).split(b"\r\n") if line]
        return [(name, value) for name, _, value in found]

    def preflight(self, headers: HeaderSequence, methods: Sequence[str]) -> list[tuple[bytes, bytes]]:
        """What an answer to a preflight says beyond `lines`; empty: not allowed, or no preflight."""
        origin = header_of(headers, b"origin")
        is_preflight = header_of(headers, b"access-control-request-method")
        if not origin or not is_preflight or not (self._allows_all or origin in self._by_origin):
            return []
        asked = header_of(headers, b"access-control-request-headers")[:MAX_ASKED_HEADERS_BYTES]
        made = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
            (b"vary", b"Access-Control-Request-Headers"),
        ]
        if asked:
            made.append((b"access-control-allow-headers", asked))
        return made


def header_of(headers: HeaderSequence, name: bytes) -> bytes:
    """First value of a header, b"" where it is missing."""
    for key, value in headers:
        if key == name:
            return value
    return b""
