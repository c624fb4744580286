"""Compressed bodies are undone within a limit."""

from __future__ import annotations

import gzip

import pytest

from gateway.content_encoding import (
    MAX_MEMBERS,
    BadEncodingError,
    DecodedTooLargeError,
    UnknownEncodingError,
    decode,
)


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity "])
def test_a_plain_body_is_itself(encoding: bytes):
    """Not even copied."""
    body = b"x" * 100
    assert decode(body, encoding, 10) is body


def test_the_limit_is_of_what_comes_out():
    """To the byte, over several members too."""
    packed = gzip.compress(b"x" * 60) + gzip.compress(b"y" * 40)
    assert decode(packed, b"gzip", 100) == b"x" * 60 + b"y" * 40
    with pytest.raises(DecodedTooLargeError):
        decode(packed, b"gzip", 99)


def test_what_cannot_be_undone():
    """Unknown, several, broken, cut short."""
    packed = gzip.compress(b"hello")
    for encoding in (b"br", b"deflate", b"zstd", b"gzip, gzip"):
        with pytest.raises(UnknownEncodingError):
            decode(packed, encoding, 100)
    for broken in (b"", b"hello", packed[:-1], packed + b"rest"):
        with pytest.raises(BadEncodingError):
            decode(broken, b"gzip", 100)


def test_members_are_bounded():
    """Each costs a copy of all that follows."""
    few, many = (gzip.compress(b"x") * number for number in (MAX_MEMBERS, MAX_MEMBERS + 1))
    assert decode(few, b"gzip", 100) == b"x" * MAX_MEMBERS
    with pytest.raises(BadEncodingError, match="members"):
        decode(many, b"gzip", 100)
