"""`X-Request-ID`: the client's, where it is one that can be logged and sent on, else a new one. Pure."""

from __future__ import annotations

import random

MAX_REQUEST_ID = 128


def is_token(value: bytes, most: int) -> bool:
    """Whether a header's value is short, printable ASCII."""
    return 0 < len(value) <= most and value.isascii() and value.decode("ascii").isprintable()


def request_id_of(value: bytes, rng: random.Random) -> bytes:
    """The id of a request whose header has this value (b"": none)."""
    return value if is_token(value, MAX_REQUEST_ID) else b"%032x" % rng.getrandbits(128)
