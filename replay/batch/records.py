"""The output: OpenAI's Batch format, one outcome a line, and what such a line says when read again. Pure.

A line with a final answer is never asked again. What a later run may mend is not final: the file's time was
over, the server failed, the connection broke, a quota was reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

EXPIRED = "batch_expired"
EXPIRED_MESSAGE = "This request could not be executed before the completion window expired."
"""Both as OpenAI has them."""
TIMED_OUT = "request_timeout"
"""OpenAI's too."""
CONNECTION_ERROR = "connection_error"
NOT_JSON = "answer_not_json"
TOO_LARGE = "answer_too_large"
NOT_FINAL_STATUS = frozenset({408, 409, 425, 429})
"""And 500 or more."""
_ID_BEGINS = b'{"id":"batch_req_'
MAX_SHOWN_CHARACTERS = 2000
"""Of an error that is no JSON, such as a proxy's page."""


class NotARecordError(ValueError):
    """A line that no batch has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line to be written."""

    line: bytes
    is_good: bool
    """The answer is there; else the line belongs among the errors."""


def answered(custom_id: str, status: int, request_id: str, body: bytes, rng: Random) -> Outcome:
    """What the server said, whatever its status."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        # Bytes as they came: inside JSON's strings there is no bare end of a line.
        content: Any = orjson.Fragment(body.replace(b"\n", b" ").replace(b"\r", b" "))
    elif status < 400:
        return failed(custom_id, NOT_JSON, "The server's answer is not a JSON object.", rng)
    else:
        text = body[: 4 * MAX_SHOWN_CHARACTERS].decode("utf-8", "replace")[:MAX_SHOWN_CHARACTERS]
        content = {"error": {"message": text, "type": "server_error", "code": None, "param": None}}
    response = {"status_code": status, "request_id": request_id, "body": content}
    return Outcome(line=_line(custom_id, response, None, rng), is_good=status < 400)


def failed(custom_id: str, code: str, message: str, rng: Random) -> Outcome:
    """There is no answer."""
    return Outcome(line=_line(custom_id, None, {"code": code, "message": message}, rng), is_good=False)


def expired(custom_id: str, rng: Random) -> Outcome:
    """The whole file's time was over first."""
    return failed(custom_id, EXPIRED, EXPIRED_MESSAGE, rng)


def _line(
    custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None, rng: Random
) -> bytes:
    return orjson.dumps(
        {
            "id": f"batch_req_{rng.getrandbits(96):024x}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a line of an earlier run says."""

    custom_id: str
    is_final: bool


def read_record(line: bytes) -> Record:
    """One whole line of an output file.

    Raises:
        NotARecordError: it is something else.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise NotARecordError("not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        raise NotARecordError("an object without a custom_id")
    if not {"id", "response", "error"} <= value.keys():
        raise NotARecordError("an object without id, response and error")
    response = value["response"]
    status = response.get("status_code") if isinstance(response, dict) else None
    is_final = (
        value["error"] is None and isinstance(status, int) and status < 500 and status not in NOT_FINAL_STATUS
    )
    return Record(custom_id=value["custom_id"], is_final=is_final)


def stated_message(body: bytes) -> str:
    """What an error's body says to a person; empty where it says nothing."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message[:MAX_SHOWN_CHARACTERS] if isinstance(message, str) else ""


def is_torn(end: bytes) -> bool:
    """Whether what stands after the last whole line can be the beginning of a record, cut short."""
    return end.startswith(_ID_BEGINS) or _ID_BEGINS.startswith(end)
