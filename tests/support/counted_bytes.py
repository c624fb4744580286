"""Bytes that count how many of them are looked at or copied: work in proportion is shown without a clock."""

from __future__ import annotations

from typing import Any


class Work:
    """What was done to bytes, since it was made."""

    def __init__(self) -> None:
        self.calls = 0
        """Searches and slices."""
        self.size_bytes = 0
        """Looked at or copied by them."""

    def note_search(self, start: int, found: int, whole: int) -> int:
        """One that began at `start`; `found`: where it ended, -1 for nowhere. Returns that."""
        self.calls += 1
        self.size_bytes += max(0, (found if found >= 0 else whole) - start)
        return found


class CountedBytes(bytes):
    """What is cut from it is plain."""

    work: Work

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        return self.work.note_search(start, super().find(sub, start, end), len(self))

    def __contains__(self, sub: Any) -> bool:
        return self.find(sub) >= 0

    def __getitem__(self, at: Any) -> Any:
        piece = super().__getitem__(at)
        if isinstance(piece, bytes):
            self.work.calls += 1
            self.work.size_bytes += len(piece)
        return piece


class CountedBuffer(bytearray):
    """The same, of one that grows."""

    work: Work

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        return self.work.note_search(start, super().find(sub, start, end), len(self))


def counted(data: bytes) -> CountedBytes:
    """`data`, with its work at nothing."""
    made = CountedBytes(data)
    made.work = Work()
    return made


class UnaddedBytes(bytes):
    """Adding them up piece by piece is a mistake: each time all before is copied."""

    def __radd__(self, other: Any) -> bytes:
        raise AssertionError("bytes were added to bytes")
