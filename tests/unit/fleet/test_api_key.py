"""What a key looks like and what it is known by."""

from __future__ import annotations

import hashlib
import re

import pytest

from fleet.api_key import KEY_BYTES, MAX_KEY_BYTES, format_key, key_id
from fleet.keys import is_key_id


def test_a_key_is_a_prefix_and_32_bytes_in_url_safe_letters() -> None:
    """43 letters that need no quoting in a shell, a header or a URL."""
    key = format_key(bytes(range(KEY_BYTES)))
    assert re.fullmatch(r"hk-[A-Za-z0-9_-]{43}", key)
    assert len(key) < MAX_KEY_BYTES
    assert format_key(b"\xff" * KEY_BYTES) != key


def test_a_key_of_too_little_randomness_is_refused() -> None:
    """Whoever calls it with a short source finds out at once."""
    with pytest.raises(ValueError, match="32 random bytes"):
        format_key(b"short")


def test_a_key_is_known_by_its_sha_256() -> None:
    """In hex, as it stands in the name of its record."""
    assert key_id(b"hk-x") == hashlib.sha256(b"hk-x").hexdigest()
    assert is_key_id(key_id(b"hk-x"))
    assert not is_key_id("hk-x")
    assert not is_key_id(key_id(b"hk-x").upper())
