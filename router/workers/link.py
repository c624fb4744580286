"""One end of the socket between parent and worker, as an asyncio protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from router.workers.frames import Frame, FrameError, FrameReader

logger = logging.getLogger(__name__)

MAX_UNSENT_BYTES = 64 << 20
STUCK_SECONDS = 30.0
"""Who has so much to read and has read nothing for so long does not read at all: a worker that starts is told
all at once, of ten thousand sites more than that, and reads it within seconds."""
MOST_UNSENT_BYTES = 1 << 30
"""However it reads."""


class Link(asyncio.Protocol):
    """Frames in and out."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._sent_bytes = 0
        self._slow: tuple[float, int] | None = None
        """More is unsent than may be: since when no more than so many bytes have been read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._on_frame(frame)
        except FrameError:
            logger.exception("the other end of a worker's socket is broken")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._transport = None
        self._on_lost()

    @property
    def is_stuck(self) -> bool:
        """The other end does not read."""
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if unsent <= MAX_UNSENT_BYTES:
            self._slow = None
            return False
        now, read = time.monotonic(), self._sent_bytes - unsent
        if self._slow is None or read > self._slow[1]:
            self._slow = now, read
        return now - self._slow[0] > STUCK_SECONDS or unsent > MOST_UNSENT_BYTES

    def send(self, frame: bytes) -> None:
        """Send one frame; to an end that is gone, nothing."""
        if self._transport is not None:
            self._sent_bytes += len(frame)
            self._transport.write(frame)

    def finish(self) -> None:
        """Send what is unsent, then close."""
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()
