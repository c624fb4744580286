"""What the feed asks of a server's power switch."""

from __future__ import annotations

from typing import Protocol


class ServerDriverError(Exception):
    """The switch did not answer, or refused; the message says which and what to do."""


class ServerDriver(Protocol):
    """Every call ends within its own time-out, or raises ServerDriverError."""

    async def is_on(self) -> bool | None:
        """Whether the server has power; None: this switch cannot know."""

    async def switch(self, *, on: bool) -> None:
        """Switch hard: nothing is asked of the operating system. Harmless where it is so already."""

    async def aclose(self) -> None: ...
