"""Streams of other APIs that are asked for as chats, since a chat can go on at another site. Pure.

vLLM serves Messages and Responses by turning them into chats itself. Here the same is done before a site is
chosen, for streams alone and only where it is exact (docs/decisions/0027): everything else goes to a site as
it came. An answer in one piece needs none of this: it is asked for anew elsewhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.outlet import Outlet

__all__ = ["AsChat", "Outlet"]


class AsChat(NamedTuple):
    """A request that came in another API."""

    fields: dict[str, Any]
    """The chat's body."""
    outlet: Outlet
    """Makes the chat's answer into that API's."""
