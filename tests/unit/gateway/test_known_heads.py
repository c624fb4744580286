"""Heads that were parsed before stand for the same bytes again, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.client_request import ClientRequest
from gateway.known_heads import MAX_KNOWN_HEADS, KnownHeads

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\nx-api-key: k\r\n\r\n"


def message(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def request(*fields: tuple[bytes, bytes], keep_alive: bool = True) -> ClientRequest:
    connection: Any = None
    made = ClientRequest(
        connection,
        lambda _: None,
        "POST",
        "/v1/chat/completions",
        b"",
        list(fields),
        dict(fields),
        keep_alive=keep_alive,
        is_chunked=True,
        received_at=0.0,
    )
    made.is_whole = True
    return made


def known(head: bytes = HEAD, *fields: tuple[bytes, bytes]) -> KnownHeads:
    heads = KnownHeads(max_body_bytes=1000)
    heads.learn(message(b"{}", head), request(*fields))
    return heads


def test_the_same_head_with_another_length_is_known():
    """Only the number differs."""
    found = known().find(message(b'{"model": "m"}'))
    assert found is not None
    assert found[0].path == "/v1/chat/completions"
    assert found[1] == b'{"model": "m"}'


@pytest.mark.parametrize(
    "data",
    [
        message(b"{}")[:-1],
        message(b"{}") + b"P",
        message(b"{}").replace(b"x-api-key: k", b"x-api-key: l"),
        message(b"{}").replace(b"POST", b"post"),
        message(b"{}").replace(b": 2", b": 02x"),
        message(b"{}").replace(b"content-length: 2", b"content-lengt: 2"),
        message(b"{}").replace(b"\r\n\r\n", b"\n\n"),
        message(b"x" * 1001),
        b"\r\n" + message(b"{}"),
        b"",
        b"\r\n\r\n",
    ],
)
def test_any_other_byte_is_parsed(data: bytes):
    """Less, more, another header, too much."""
    assert known().find(data) is None


@pytest.mark.parametrize(
    "field",
    [
        (b"expect", b"100-continue"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"x-request-id", b"1"),
        (b"traceparent", b"00"),
    ],
)
def test_what_is_not_plain_is_not_learnt(field: tuple[bytes, bytes]):
    """Nor what no second request has."""
    assert len(known(HEAD, field)) == 0


def test_a_connection_that_ends_is_not_learnt():
    """Its next message would be none."""
    heads = KnownHeads(max_body_bytes=1000)
    heads.learn(message(b"{}"), request(keep_alive=False))
    assert len(heads) == 0


@pytest.mark.parametrize("data", [message(b"{}")[:-1], message(b"{}") * 2, b"\r\n" + message(b"{}")])
def test_what_is_not_one_whole_message_is_not_learnt(data: bytes):
    """Its head is not all that the parser has seen."""
    heads = KnownHeads(max_body_bytes=1000)
    heads.learn(data, request())
    assert len(heads) == 0


def test_memory_is_bounded():
    """Whatever heads clients make up."""
    heads = KnownHeads(max_body_bytes=1000)
    for number in range(2 * MAX_KNOWN_HEADS + 1):
        heads.learn(message(b"{}").replace(b"key: k", b"key: k%d" % number), request())
    assert len(heads) <= MAX_KNOWN_HEADS
    heads = KnownHeads(max_body_bytes=1000)
    heads.learn(message(b"{}").replace(b"key: k", b"key: " + b"k" * 4096), request())
    assert len(heads) == 0
