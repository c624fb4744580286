"""What an API key looks like, and what is kept of it: its SHA-256, never the key (DESIGN §4). Pure.

A plain hash is enough: a key is 32 random bytes, so there is nothing that a slow hash would protect.
"""

from __future__ import annotations

import base64
import hashlib

KEY_PREFIX = "hk-"
"""So that a key that leaked into a log or a repository is known for what it is."""
KEY_BYTES = 32
MAX_KEY_BYTES = 256
"""Of what a client shows; anything longer is no key and is not even hashed."""


def format_key(random_bytes: bytes) -> str:
    """A key of KEY_BYTES bytes from a cryptographic source.

    Raises:
        ValueError: another number of bytes.
    """
    if len(random_bytes) != KEY_BYTES:
        raise ValueError(f"an API key is made of {KEY_BYTES} random bytes, not {len(random_bytes)}")
    return KEY_PREFIX + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def key_id(key: bytes) -> str:
    """SHA-256 in hex: what a key is stored and compared by."""
    return hashlib.sha256(key).hexdigest()
