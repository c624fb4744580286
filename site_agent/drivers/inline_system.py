"""Asks an engine what it makes of a system message amid the others of a request to `/v1/messages`.

vLLM decides by its chat template, once: it leaves them where they stand, or puts them behind the system
prompt. Here the prompt that it makes of such a request is compared with those of both chats.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import orjson

from gateway.api_paths import RENDER_PATH
from gateway.upstream import Origin, UpstreamError
from site_agent.drivers.interface import InlineSystem

if TYPE_CHECKING:
    from site_agent.drivers.probe import Prober

logger = logging.getLogger(__name__)

MESSAGES_RENDER_PATH = "/v1/messages/render"
RENDER_SECONDS = 5.0
_FIRST = {"role": "user", "content": "a"}
_ANSWER = {"role": "assistant", "content": "b"}
_REMINDER = {"role": "system", "content": "d"}
_ASKED = [_FIRST, _ANSWER, _REMINDER, _FIRST]
_CHATS: dict[InlineSystem, list[dict[str, str]]] = {
    "in_place": [{"role": "system", "content": "c"}, *_ASKED],
    "merged": [{"role": "system", "content": "cd"}, _FIRST, _ANSWER, _FIRST],
}


async def ask_inline_system(prober: Prober, origin: Origin, model: str) -> InlineSystem | None:
    """What becomes of it; None: the engine cannot tell, or it is neither, or no prompt shows it."""
    asked = {"model": model, "max_tokens": 1, "system": "c", "messages": _ASKED}
    try:
        prompt = await _prompt(prober, origin, MESSAGES_RENDER_PATH, asked)
        if prompt is None:
            return None
        same = [
            name
            for name, messages in _CHATS.items()
            if prompt == await _prompt(prober, origin, RENDER_PATH, {"model": model, "messages": messages})
        ]
    except UpstreamError as error:
        logger.warning("an engine did not say what it makes of system messages amid the others: %s", error)
        return None
    return same[0] if len(same) == 1 else None


async def _prompt(prober: Prober, origin: Origin, path: str, fields: dict[str, Any]) -> list[Any] | None:
    """The token ids that the engine makes of a request; None: it refuses it, or does not know the path."""
    status, body = await prober.post(origin, path, orjson.dumps(fields), RENDER_SECONDS)
    if status != 200:
        return None
    try:
        token_ids = orjson.loads(body)["token_ids"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return token_ids if isinstance(token_ids, list) and token_ids else None
