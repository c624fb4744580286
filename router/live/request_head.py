"""What crosses from a client's headers to a site's, and what a site is told beside the body (DESIGN §4).

Rule: an allow-list. The client's `Authorization` and `x-heron-*` never reach a site; affinity and deadline
are read and written anew. `accept-encoding` stays behind too: a compressed stream could not be looked into.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from fleet.request import RequestFeatures
from gateway.headers import HeaderList
from gateway.server import ClientRequest

MAX_REQUEST_ID = 128
MAX_AFFINITY = 256
_PASSED_ON = frozenset({b"accept", b"traceparent", b"tracestate", b"anthropic-version", b"anthropic-beta"})


class RequestHead:
    """The part of a client's head that matters."""

    __slots__ = ("affinity", "deadline_seconds", "passed_on", "request_id")

    def __init__(self, request: ClientRequest, rng: random.Random) -> None:
        request_id = b""
        self.affinity: bytes | None = None
        self.deadline_seconds: float | None = None
        self.passed_on: HeaderList = []
        for header in request.headers:
            name = header[0]
            if name in _PASSED_ON:
                self.passed_on.append(header)
            elif name == b"x-request-id":
                request_id = header[1]
            elif name == b"x-heron-affinity":
                self.affinity = header[1] if _is_token(header[1], MAX_AFFINITY) else None
            elif name == b"x-heron-deadline-seconds":
                self.deadline_seconds = _positive(header[1])
        self.request_id = (
            request_id if _is_token(request_id, MAX_REQUEST_ID) else b"%032x" % rng.getrandbits(128)
        )


def site_headers(
    passed_on: Sequence[tuple[bytes, bytes]],
    features: RequestFeatures,
    *,
    request_id: bytes,
    deadline_seconds_left: float | None,
    authorization: bytes | None,
    is_resume: bool = False,
) -> HeaderList:
    """The head of the request to a site (less `host` and `content-length`)."""
    headers = [
        *passed_on,
        (b"content-type", b"application/json"),  # it was read as that, whatever the client called it
        (b"x-request-id", request_id),
        (b"x-heron-class", features.request_class.encode()),
        (b"x-heron-tier", features.tier.encode()),
        (b"x-heron-expected-output-tokens", b"%d" % features.expected_output_tokens),
    ]
    if features.affinity_key is not None:
        headers.append((b"x-heron-affinity", features.affinity_key.encode("latin-1")))
    if deadline_seconds_left is not None:
        headers.append((b"x-heron-deadline-seconds", b"%.3f" % max(0.0, deadline_seconds_left)))
    if is_resume:
        headers.append((b"x-heron-resume", b"1"))
    if authorization is not None:
        headers.append((b"authorization", authorization))
    return headers


def _is_token(value: bytes, most: int) -> bool:
    return 0 < len(value) <= most and value.isascii() and value.decode("ascii").isprintable()


def _positive(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
