"""What an answer passes on its way to a client who speaks another API than the site. Pure."""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """Makes one API's answer into another's; one per request."""

    has_failed: bool
    """It has told the client that the stream is broken; nothing follows that."""

    def feed(self, data: bytes) -> bytes:
        """Whole events of the stream, or comments → what the client gets for them; may be nothing."""

    def whole(self, status: int, body: bytes) -> bytes:
        """An answer in one piece."""
