"""Compressed request bodies (RFC 9110 §8.4): gzip is undone within a limit, the rest is refused. Pure."""

from __future__ import annotations

import zlib

ACCEPTED = b"gzip"
"""For `accept-encoding` in a 415."""
_GZIP = 16 + zlib.MAX_WBITS
MAX_RATIO = 64
"""What comes out, to what came, beyond the first RATIO_FREE_BYTES: text gives 3 to 20, a bomb a thousand."""
RATIO_FREE_BYTES = 2**20
MAX_MEMBERS = 16
"""Of one gzip body: each costs a copy of what follows it, and an empty one gives no bytes."""


class UnknownEncodingError(ValueError):
    """The body is in an encoding that is not taken."""


class BadEncodingError(ValueError):
    """The body is not what its encoding says."""


class DecodedTooLargeError(ValueError):
    """More bytes came out than are taken; not more than that were ever made."""


class BombError(DecodedTooLargeError):
    """More came out than MAX_RATIO allows for what came."""


def decode(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """The body as its sender meant it.

    Raises:
        UnknownEncodingError: neither `gzip` nor `identity`, or several in a row.
        BadEncodingError: it is not gzip, or ends too early.
        DecodedTooLargeError: it would be larger than `max_bytes`; BombError: than MAX_RATIO allows.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in (b"gzip", b"x-gzip"):
        raise UnknownEncodingError(encoding[:40].decode("latin-1"))
    error_type = DecodedTooLargeError
    if (most := RATIO_FREE_BYTES + MAX_RATIO * len(body)) < max_bytes:
        error_type, max_bytes = BombError, most
    pieces: list[bytes] = []
    size, rest = 0, body
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        try:
            piece = member.decompress(rest, max_bytes - size + 1)
        except zlib.error as error:
            raise BadEncodingError(str(error)) from None
        size += len(piece)
        if size > max_bytes:
            raise error_type(max_bytes)
        if not member.eof:
            raise BadEncodingError("it ends too early")
        pieces.append(piece)
        rest = member.unused_data
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    raise BadEncodingError(f"more than {MAX_MEMBERS} members")
