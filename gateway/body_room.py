"""How much of unfinished request bodies a server holds at once.

Why: a body is held until it is whole, before any quota is looked at, and connections are many. Each body has
a limit of its own, this one is for all of them together.
"""

from __future__ import annotations

MAX_UNFINISHED_BYTES = 256 * 2**20
"""Sixteen of the largest; thousands of ordinary ones, most of which come whole and are never counted."""


class BodyRoom:
    """One per server. What is taken is given back, however its request ends."""

    __slots__ = ("_max_bytes", "taken_bytes")

    def __init__(self, max_bytes: int = MAX_UNFINISHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self.taken_bytes = 0

    def take(self, size: int) -> bool:
        """False: there is no room, and nothing is taken."""
        if self.taken_bytes + size > self._max_bytes:
            return False
        self.taken_bytes += size
        return True

    def give_back(self, size: int) -> None:
        """So much of what was taken."""
        self.taken_bytes -= size
