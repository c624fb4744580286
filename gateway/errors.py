"""Errors in OpenAI's shape, and in Anthropic's for its paths."""

from __future__ import annotations

from typing import Any

import orjson

MESSAGES_PATH = "/v1/messages"

JSON_HEADERS: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


def error_body(message: str, *, type: str, code: str | None = None, param: str | None = None) -> bytes:  # noqa: A002
    """`{"error": {"message", "type", "param", "code"}}`, as every OpenAI client expects it.

    `type` is OpenAI's class of error (`invalid_request_error`, `server_error`, …), `code` the
    machine-readable reason, `param` the field at fault.
    """
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def error_event(message: str, *, type: str, code: str | None = None) -> bytes:  # noqa: A002
    """The same as a server-sent event, for an answer that has begun."""
    return b"data: " + error_body(message, type=type, code=code) + b"\n\n"


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def speaks_anthropic(path: str) -> bool:
    """Whether the clients of a path read Anthropic's errors."""
    return path == MESSAGES_PATH or path.startswith(f"{MESSAGES_PATH}/")


def anthropic_body(status: int, body: bytes) -> bytes:
    """An error in Anthropic's shape, `{"type": "error", "error": {"type", "message", …}}`.

    What is no error in OpenAI's shape stays as it is. `code` and `param` are kept: programs read them.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    error = value.get("error") if isinstance(value, dict) and "type" not in value else None
    if not isinstance(error, dict):
        return body
    kind = _ANTHROPIC_TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    made: dict[str, Any] = {"type": kind, "message": str(error.get("message") or "")}
    made |= {name: error[name] for name in ("code", "param") if error.get(name) is not None}
    return orjson.dumps({"type": "error", "error": made})
