"""Which `custom_id`s were seen, in little memory. Pure.

A Python set of a million strings takes more than 100 MB; this takes 15 bytes for each (measured with five
millions: 74 MiB), so that the limit on the lines of a file is a limit on memory.
"""

from __future__ import annotations

from hashlib import blake2b

MAX_IDS = 10_000_000
_BUCKETS = 1 << 16
_PREFIX = 2
_REST = 10
"""Bytes of a digest, after the two that name its bucket. Two of ten million ids share all twelve by chance
once in 10¹⁵ files."""


class IdSet:
    """Digests of ids; nothing is ever taken out."""

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, custom_id: str) -> bool:
        bucket, rest = _digest(custom_id)
        return _has(self._buckets.get(bucket, b""), rest)

    def add(self, custom_id: str) -> bool:
        """Whether it is new.

        Raises:
            OverflowError: there are MAX_IDS already.
        """
        number, rest = _digest(custom_id)
        bucket = self._buckets.setdefault(number, bytearray())
        if _has(bucket, rest):
            return False
        if self._count >= MAX_IDS:
            raise OverflowError(f"more than {MAX_IDS:,} requests")
        bucket += rest
        self._count += 1
        return True


def _digest(custom_id: str) -> tuple[int, bytes]:
    digest = blake2b(custom_id.encode(), digest_size=_PREFIX + _REST).digest()
    return int.from_bytes(digest[:_PREFIX]) % _BUCKETS, digest[_PREFIX:]


def _has(bucket: bytes | bytearray, rest: bytes) -> bool:
    """Whether one of the digests is this one: what is found across two of them is none."""
    at = bucket.find(rest)
    while at >= 0 and at % _REST:
        at = bucket.find(rest, at + 1)
    return at >= 0
