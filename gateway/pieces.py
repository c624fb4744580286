"""What comes in pieces and is wanted whole. Pure.

Why: a piece by itself takes some 50 bytes beyond its own, so that 16 MB in chunks of two bytes took 430. What
is small goes together; what is large is kept as it came, and copied once.
"""

from __future__ import annotations

SMALL_BYTES = 1024

Pieces = list[bytes | bytearray]


def collect(pieces: Pieces, piece: bytes) -> None:
    """Take one more."""
    if pieces and len(piece) < SMALL_BYTES:
        last = pieces[-1]
        if isinstance(last, bytearray):
            last += piece
            return
        pieces.append(bytearray(piece))
    else:
        pieces.append(piece)


def joined(pieces: Pieces) -> bytes:
    """All of them."""
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
