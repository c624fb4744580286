"""Answers to requests that are refused before they are whole. Pure."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.cors import CorsPolicy, HeaderSequence, header_of
from gateway.errors import anthropic_body, error_body, speaks_anthropic
from gateway.request_id import MAX_REQUEST_ID, is_token


def too_large(limit: int) -> tuple[int, bytes]:
    """Status and body for a request body of more bytes than `limit`."""
    return 413, error_body(
        f"The request body is larger than {limit} bytes, the most that this server takes.",
        type="invalid_request_error",
        code="request_too_large",
    )


def early_refusal(
    status: int, body: bytes, *, url: bytes, headers: HeaderSequence, date: bytes, cors: CorsPolicy | None
) -> bytes:
    """The whole answer, which ends its connection; it carries the client's own request id, and CORS.

    `body`: an error in OpenAI's shape; `url` says whether the client reads another. `date`: a line.
    """
    if speaks_anthropic(url.decode("ascii", "replace").partition("?")[0]):
        body = anthropic_body(status, body)
    request_id = header_of(headers, b"x-request-id")
    lines = b"" if cors is None else cors.lines(headers)
    if is_token(request_id, MAX_REQUEST_ID):
        lines += b"x-request-id: %b\r\n" % request_id
    return b"".join(
        (
            STATUS_LINE[status],
            date,
            lines,
            b"content-type: application/json\r\nconnection: close\r\n",
            b"content-length: %d\r\n\r\n" % len(body),
            body,
        )
    )
