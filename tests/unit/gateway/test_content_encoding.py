"""Compressed bodies are undone within a limit."""

from __future__ import annotations

import gzip
import random

import pytest

from gateway.content_encoding import (
    MAX_MEMBERS,
    RATIO_FREE_BYTES,
    BadEncodingError,
    BombError,
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


@pytest.mark.parametrize("members", [1, 4])
def test_what_grows_too_much_is_a_bomb(members: int):
    """A few kilobytes would cost as much as the largest body; a mebibyte of anything is taken."""
    free = gzip.compress(b" " * (RATIO_FREE_BYTES // members)) * members
    assert len(decode(free, b"gzip", 10**9)) == RATIO_FREE_BYTES
    bomb = gzip.compress(b" " * (4 * RATIO_FREE_BYTES // members)) * members
    with pytest.raises(BombError):
        decode(bomb, b"gzip", 10**9)
    with pytest.raises(DecodedTooLargeError) as caught:
        decode(bomb, b"gzip", RATIO_FREE_BYTES)
    assert not isinstance(caught.value, BombError)


def test_a_large_body_that_grows_as_text_does_is_taken():
    """Far beyond what is free."""
    text = random.Random(1).randbytes(2**15).hex().encode() * 64
    assert decode(gzip.compress(text), b"gzip", 10**9) == text


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
