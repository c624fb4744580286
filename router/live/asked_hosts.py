"""Under which names the operator's surface answers.

Why: it asks for no key, and a page of anybody's can make its own name stand for this machine's address (DNS
rebinding). A browser in the operators' network would then give that page what it reads here. What no stranger
can own passes: an address, `localhost`, a name without a dot. Other names are named in `operations_names`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from gateway.cors import header_of

Message = MutableMapping[str, Any]
MISDIRECTED = 421


def is_own_name(host: bytes, names: Collection[str]) -> bool:
    """Whether a `Host` header names us. Without one (HTTP/1.0) no browser asks."""
    if not host:
        return True
    text = host.decode("latin-1").lower()
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    name = name.removesuffix(".")
    if "." not in name and ":" not in name:
        return True
    if name in names or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class AskedHosts:
    """ASGI, around the operator's surface."""

    def __init__(self, app: Any, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass on, or 421 with what to do."""
        if scope["type"] == "http":
            host = header_of(scope["headers"], b"host")
            if not is_own_name(host, self._names):
                shown = host[:200].decode("latin-1")
                error = f"not known as {shown!r}: ask by address, or add it to [router] operations_names"
                await JSONResponse({"error": error}, status_code=MISDIRECTED)(scope, receive, send)
                return
        await self._app(scope, receive, send)
