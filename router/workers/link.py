"""One end of the socket between parent and worker, as an asyncio protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from router.workers.frames import Frame, FrameError, FrameReader

logger = logging.getLogger(__name__)

MAX_UNSENT_BYTES = 64 << 20
"""More than a fleet of ten thousand sites says at once; who has not read that much does not read at all."""


class Link(asyncio.Protocol):
    """Frames in and out."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

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
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    def send(self, frame: bytes) -> None:
        """Send one frame; to an end that is gone, nothing."""
        if self._transport is not None:
            self._transport.write(frame)

    def finish(self) -> None:
        """Send what is unsent, then close."""
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()
