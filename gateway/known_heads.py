"""Heads of requests that were parsed before: a client that keeps its connection sends nearly the same again.

Why: to parse a head costs a dozen calls from C into Python, a tenth of all that a request costs. What a head
says depends on its bytes alone, so one that is the same but for the number in `content-length` is not parsed
anew.

Rules: only what httptools has taken is known, and only where the message is plain: a `POST` of HTTP/1.1 that
keeps its connection, in one piece, with a body of stated length and nothing to negotiate. What differs in any
other byte is parsed. What is kept is bounded; heads that no two requests share are not kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.client_request import ClientRequest

MAX_KNOWN_HEADS = 512
"""Beyond it all are forgotten and learnt anew: clients of one kind and key share theirs."""
MAX_KNOWN_BYTES = 2048
"""Of one head: a megabyte for all of them."""
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(\d{1,9})\r\n")
_NOT_PLAIN = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"trailer"})
_OF_ONE_REQUEST = frozenset({b"traceparent", b"x-request-id"})


class KnownHead:
    """What a head says."""

    __slots__ = ("extra_head", "fields", "handler", "headers", "memo", "path", "query")

    def __init__(self, request: ClientRequest) -> None:
        self.handler = request.handler
        self.path = request.path
        self.query = request.query
        self.headers = request.headers
        """Of the request that it was learnt from; its `content-length` is that one's."""
        self.fields = request.fields
        self.extra_head = request.extra_head
        self.memo: Any = None
        """What the handler has worked out of the head."""


class KnownHeads:
    """One per server."""

    __slots__ = ("_heads", "_max_body_bytes")

    def __init__(self, max_body_bytes: int) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self._max_body_bytes = max_body_bytes

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The head and the body, where `data` is one whole message with a known head."""
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2)
        if length is None:
            return None
        first, last = length.span(1)
        known = self._heads.get(data[:first] + data[last:end])
        if known is None:
            return None
        size = int(data[first:last])
        if len(data) - end - 4 != size or size > self._max_body_bytes:
            return None
        return known, data[end + 4 :]

    def learn(self, data: bytes, request: ClientRequest) -> None:
        """`data` is all that was read, and this the one request that httptools has made of it."""
        end = data.find(b"\r\n\r\n")
        if not (0 < end <= MAX_KNOWN_BYTES and data.startswith(b"POST /") and request.is_plain):
            return
        length = _LENGTH.search(data, 0, end + 2)
        if length is None or len(data) - end - 4 != int(length[1]):
            return
        if not (_NOT_PLAIN.isdisjoint(request.fields) and _OF_ONE_REQUEST.isdisjoint(request.fields)):
            return
        if len(self._heads) >= MAX_KNOWN_HEADS:
            self._heads.clear()
        first, last = length.span(1)
        self._heads[data[:first] + data[last:end]] = KnownHead(request)
