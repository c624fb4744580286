"""Errors in OpenAI's shape."""

from __future__ import annotations

import orjson

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
