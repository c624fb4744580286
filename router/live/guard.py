"""Asks for an API key before anything that is not hot: models, and whatever the application grows.

Rule: closed unless listed. What must work without a key is named here.
"""

from __future__ import annotations

from typing import Any

from router.live.admission import Door
from router.live.answers import key_refusal
from router.policy.key_ring import Credential

OPEN_PATHS = frozenset({"/health"})
"""Load balancers ask it."""


class Guard:
    """ASGI, around the application."""

    def __init__(self, app: Any, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on, or answer as a hot path would. A browser's preflight (OPTIONS) carries no key."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            headers = dict(scope["headers"])
            found = self._door.find(headers.get(b"authorization"), headers.get(b"x-api-key"))
            if found is not None and not isinstance(found, Credential):
                status, more, body = key_refusal(found)
                length = (b"content-length", b"%d" % len(body))
                await send({"type": "http.response.start", "status": status, "headers": [*more, length]})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)
