"""Streams of other APIs that are asked for as chats, since a chat can go on at another site. Pure.

vLLM serves Messages and Responses by turning them into chats itself. Here the same is done before a site is
chosen, for streams alone and only where it is exact (docs/decisions/0027): everything else goes to a site as
it came. An answer in one piece needs none of this: it is asked for anew elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.api_paths import CHAT_PATH
from gateway.outlet import Outlet
from router.policy.body import Api
from router.policy.snapshot import ModelView

__all__ = ["AsChat", "Outlet", "inline_system_of", "may_be_a_chat"]

_HARMONY = re.compile("gpt[-_]?oss", re.IGNORECASE)
"""By name. vLLM makes such a model's responses by a path of their own."""


class AsChat(NamedTuple):
    """A request that came in another API."""

    fields: dict[str, Any]
    """The chat's body."""
    outlet: Outlet
    """Makes the chat's answer into that API's."""


def may_be_a_chat(
    api: Api, path: str, fields: Mapping[str, Any], model: str, views: Sequence[ModelView]
) -> bool:
    """Whether the model's sites, all of them, leave it to the router what to make of a stream.

    They have ids to go on by, and answer it as a chat and as it came. A response of a model that speaks
    Harmony is theirs, and so is one that its client may come back for, where engines keep some.
    """
    both = {CHAT_PATH, path}
    if not views or not all(view.token_ids and both.isdisjoint(view.lacks) for view in views):
        return False
    if api is not Api.RESPONSES:
        return True
    may_be_kept = fields.get("store") is None and any(view.keeps_responses for view in views)
    return not may_be_kept and _HARMONY.search(model) is None


def inline_system_of(views: Sequence[ModelView]) -> str | None:
    """What all the model's sites do with a system message amid the others; None: not the same, or unknown."""
    found = {view.inline_system for view in views}
    return found.pop() if len(found) == 1 else None
