"""The hot paths' protocol for a server whose connections another process counts.

In a module of its own because it must be compiled where its base is (scripts/compiled-modules.txt).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.protocol import HotPathProtocol


class CountedProtocol(HotPathProtocol):
    """Says when its connection is over."""

    def __init__(self, *, on_lost: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()
