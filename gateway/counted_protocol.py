"""The hot paths' protocol for a server whose connections another process counts.

In a module of its own because it must be compiled where its base is (scripts/compiled-modules.txt). It names
every argument, since compiled code hands those of `**options` on in the wrong places.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.body_room import BodyRoom
from gateway.client_request import HotRoute
from gateway.cors import CorsPolicy
from gateway.known_heads import KnownHeads
from gateway.protocol import HotPathProtocol
from gateway.refusal import HeadRefusal


class CountedProtocol(HotPathProtocol):
    """Says when its connection is over."""

    def __init__(
        self,
        *,
        on_lost: Callable[[], None],
        hot: HotRoute,
        max_body_bytes: int,
        known_urls: dict[bytes, tuple[str, bytes]],
        known_heads: KnownHeads,
        body_room: BodyRoom,
        head_refusal: HeadRefusal | None,
        cors: CorsPolicy | None,
        allows_half_close: bool,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(
            hot=hot,
            max_body_bytes=max_body_bytes,
            known_urls=known_urls,
            known_heads=known_heads,
            body_room=body_room,
            head_refusal=head_refusal,
            cors=cors,
            allows_half_close=allows_half_close,
            config=config,
            server_state=server_state,
            app_state=app_state,
            _loop=_loop,
        )
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()
