"""How a stream that cannot go on tells its client, in the words of its API. Pure."""

from __future__ import annotations

from typing import Literal

import orjson

from gateway.errors import error_event
from router.policy.body import Api

LossCode = Literal["power_lost", "stream_lost"]
SHUTDOWN = "the router is shutting down"
"""The one loss that is no site's."""

_MESSAGES = {
    "power_lost": "The site that served this answer lost its power, and no other could continue it.",
    "stream_lost": "The site that served this answer failed, and the answer could not be continued.",
}
KEEP_ALIVE = b": heron continues this answer on another site\n\n"


def loss_of(code: LossCode, detail: str) -> str:
    """What people are told."""
    if detail == SHUTDOWN:
        return "This router is shutting down, and the answer did not end in the time that it gave it."
    return f"{_MESSAGES[code]} ({detail})"


def loss_events(api: Api, code: LossCode, detail: str) -> bytes:
    """The error event of an answer that had begun, and the terminal event where the API has one."""
    message = loss_of(code, detail)
    if api is Api.MESSAGES:
        payload = {"type": "error", "error": {"type": "api_error", "message": message, "code": code}}
        return b"event: error\ndata: " + orjson.dumps(payload) + b"\n\n"
    if api is Api.RESPONSES:
        failure = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + orjson.dumps(failure) + b"\n\n"
    return error_event(message, type="server_error", code=code) + b"data: [DONE]\n\n"
