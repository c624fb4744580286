"""Answers to requests that are refused before they are whole. Pure."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.client_request import ClientRequest
from gateway.cors import CorsPolicy, HeaderSequence, header_of
from gateway.errors import anthropic_body, error_body, speaks_anthropic
from gateway.headers import HeaderList
from gateway.request_id import MAX_REQUEST_ID, is_token

Refusal = tuple[int, bytes, HeaderList]
"""Status, body in OpenAI's shape, and headers beside those that every refusal has."""
HeadRefusal = Callable[[ClientRequest], Refusal | None]
"""Asked of a hot request whose body is still to come: what it is refused with, if its head says enough."""
RETRY_AFTER_SECONDS = 2


def too_large(limit: int) -> tuple[int, bytes]:
    """Status and body for a request body of more bytes than `limit`."""
    return 413, error_body(
        f"The request body is larger than {limit} bytes, the most that this server takes.",
        type="invalid_request_error",
        code="request_too_large",
    )


def too_large_head(what: str, limit: int) -> tuple[int, bytes]:
    """The same for a head or trailers."""
    return 431, error_body(f"The {what} over {limit} bytes.", type="invalid_request_error")


def no_room() -> Refusal:
    """For a body that does not fit beside the others that are coming in."""
    message = f"Too many request bodies are coming in at once. Try again in {RETRY_AFTER_SECONDS} s."
    body = error_body(message, type="server_error", code="too_many_bodies")
    return 503, body, [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)]


def early_refusal(
    status: int,
    body: bytes,
    more: HeaderSequence,
    *,
    url: bytes,
    headers: HeaderSequence,
    date: bytes,
    cors: CorsPolicy | None,
) -> bytes:
    """The whole answer, which ends its connection; it carries the client's own request id, and CORS.

    `body`: an error in OpenAI's shape; `url` says whether the client reads another. `more`: headers of this
    answer, `headers`: the request's. `date`: a line.
    """
    if speaks_anthropic(url.decode("ascii", "replace").partition("?")[0]):
        body = anthropic_body(status, body)
    request_id = header_of(headers, b"x-request-id")
    lines = b"" if cors is None else cors.lines(headers)
    if is_token(request_id, MAX_REQUEST_ID):
        lines += b"x-request-id: %b\r\n" % request_id
    lines += b"".join(b"%b: %b\r\n" % field for field in more)
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
