"""What crosses from a client's headers to a site's, and what a site is told beside the body (DESIGN §4).

Rule: an allow-list. The client's `Authorization` and `x-heron-*` never reach a site; affinity and deadline
are read and written anew. `accept-encoding` stays behind too: a compressed stream could not be looked into.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import get_args

from fleet.request import RequestClass, RequestFeatures, ServiceTier
from gateway.headers import HeaderList
from gateway.request_id import is_token, request_id_of
from gateway.server import ClientRequest

MAX_AFFINITY = 256
JSON = b"application/json"
_PASSED_ON = frozenset({b"accept", b"traceparent", b"tracestate", b"anthropic-version", b"anthropic-beta"})


class RequestHead:
    """The part of a client's head that matters."""

    __slots__ = ("affinity", "deadline_seconds", "is_retry", "passed_on", "request_id")

    @classmethod
    def of(cls, request: ClientRequest, rng: random.Random) -> RequestHead:
        """The same, worked out once for a head that comes again and again (its request id is a new one)."""
        known = request.known
        if known is None:
            return cls(request, rng)
        head = known.memo
        if head is None:
            head = known.memo = cls(request, rng)
        else:
            head.request_id = b"%032x" % rng.getrandbits(128)  # a head with an id of its own is not known
        return head  # type: ignore[no-any-return]

    def __init__(self, request: ClientRequest, rng: random.Random) -> None:
        fields = request.fields
        self.passed_on: HeaderList = (
            []
            if _PASSED_ON.isdisjoint(fields)
            else [header for header in request.headers if header[0] in _PASSED_ON]
        )
        affinity = fields.get(b"x-heron-affinity")
        self.affinity = affinity if affinity is not None and is_token(affinity, MAX_AFFINITY) else None
        deadline = fields.get(b"x-heron-deadline-seconds")
        self.deadline_seconds = None if deadline is None else _positive(deadline)
        self.is_retry = fields.get(b"x-stainless-retry-count", b"0") != b"0"
        """OpenAI's and Anthropic's clients count their tries there."""
        self.request_id = request_id_of(fields.get(b"x-request-id", b""), rng)


def shared_head(
    passed_on: Sequence[tuple[bytes, bytes]],
    features: RequestFeatures,
    request_id: bytes,
    content_type: bytes = JSON,
) -> bytes:
    """The lines that every site asked for this request gets."""
    told = b"content-type: %b\r\nx-request-id: %b\r\n%bx-heron-expected-output-tokens: %d\r\n" % (
        content_type,  # it was read as that, whatever the client called it
        request_id,
        _TOLD[features.request_class, features.tier],
        features.expected_output_tokens,
    )
    if features.affinity_key is not None:
        told += b"x-heron-affinity: %b\r\n" % features.affinity_key.encode("latin-1")
    for name, value in passed_on:
        told += b"%b: %b\r\n" % (name, value)
    return told


def site_head(
    host_header: bytes,
    target: str,
    shared: bytes,
    body_bytes: int,
    *,
    deadline_seconds_left: float | None = None,
    authorization: bytes | None = None,
    is_resume: bool = False,
    more: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """The whole head of one request to one site, to its blank line; `shared` is `shared_head`'s,
    `more` what this site alone is told."""
    own = b""
    if deadline_seconds_left is not None:
        own = b"x-heron-deadline-seconds: %.3f\r\n" % max(0.0, deadline_seconds_left)
    if is_resume:
        own += b"x-heron-resume: 1\r\n"
    if authorization is not None:
        own += b"authorization: %b\r\n" % authorization
    for header in more:
        own += b"%b: %b\r\n" % header
    return b"POST %b HTTP/1.1\r\nhost: %b\r\n%b%bcontent-length: %d\r\n\r\n" % (
        target.encode("ascii"),
        host_header,
        shared,
        own,
        body_bytes,
    )


_TOLD = {
    (request_class, tier): f"x-heron-class: {request_class}\r\nx-heron-tier: {tier}\r\n".encode()
    for request_class in get_args(RequestClass)
    for tier in get_args(ServiceTier)
}


def _positive(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
