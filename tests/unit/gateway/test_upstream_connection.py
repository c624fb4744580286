"""An answer that comes in one piece is taken without the parser, and means the same as one that does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.origin import Origin
from gateway.upstream_connection import UpstreamConnection
from gateway.upstream_response import UpstreamError

ORIGIN = Origin.of("http", "127.0.0.1", 1)


class Pool:
    """Keeps what is given back."""

    idle_seconds = 4.0

    def __init__(self) -> None:
        self.kept: list[UpstreamConnection] = []

    def put(self, connection: UpstreamConnection) -> None:
        self.kept.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        return


class Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.is_cut = False

    def write(self, data: bytes) -> None:
        return

    def abort(self) -> None:
        self.is_cut = True


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.response: Any = None
        self.came_at_once = False

    def head_arrived(self) -> None:
        self.response.hand_over(self.pieces.append)

    def body_ended(self, error: Exception | None) -> None:
        self.ends.append(error)
        self.response.close()

    def answer_arrived(self, body: bytes) -> None:
        self.came_at_once = True
        self.pieces.append(body)
        self.body_ended(None)


def answer(*pieces: bytes) -> tuple[dict[str, Any], bool]:
    """What is seen of an answer that comes in these pieces; whether it came at once."""

    async def run() -> tuple[dict[str, Any], bool]:
        pool, observer, transport = Pool(), Observer(), Transport()
        connection = UpstreamConnection(pool, ORIGIN, asyncio.get_running_loop())
        made: Any = transport
        connection.connection_made(made)
        response = observer.response = connection.exchange(b"", b"", observer)
        for piece in pieces:
            connection.data_received(piece)
        if connection not in pool.kept and not observer.ends:
            connection.connection_lost(None)
        seen = {
            "status": response.status,
            "headers": response.headers,
            "fields": response.fields,
            "body": b"".join(observer.pieces),
            "errors": [error and (type(error), getattr(error, "kind", "")) for error in observer.ends],
            "is_kept": connection in pool.kept,
            "is_complete": response.is_complete,
        }
        return seen, observer.came_at_once

    return asyncio.run(run())


PLAIN = b"HTTP/1.1 200 OK\r\ndate: now, 12:00\r\ncontent-length: 5\r\nx-heron-headroom: 7\r\n\r\nhello"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"date", b"Date"),
        PLAIN.replace(b"now, 12:00", b"now  "),
        PLAIN.replace(b": now", b":now"),
        PLAIN.replace(b"now, 12:00", b""),
        PLAIN.replace(b"now, 12:00", b"a\tb \xff"),
        PLAIN.replace(b"date", b"set-cookie: a=1\r\nset-cookie"),
        PLAIN.replace(b"date", b"connection: close\r\ndate"),
        PLAIN.replace(b"date", b"connection: keep-alive\r\ndate"),
        PLAIN.replace(b"date", b"keep-alive: timeout=9\r\ndate"),
        PLAIN.replace(b"200 OK", b"204 No Content").replace(b"hello", b"").replace(b": 5", b": 0"),
        PLAIN.replace(b"200 OK", b"404 Not Found"),
        PLAIN.replace(b"200 OK", b"200 Fine"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b": 5", b": 0").replace(b"hello", b""),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        PLAIN.replace(b"content-length: 5\r\n", b""),
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
        PLAIN[:-1],
        PLAIN.replace(b": 5", b": 5x"),
        PLAIN.replace(b"date", b"bad name: 1\r\ndate"),
        PLAIN.replace(b"date", b"\x00: 1\r\ndate"),
        PLAIN.replace(b"content-length: 5", b"content-length: 5\r\ncontent-length: 6"),
        PLAIN.replace(b"date: now, 12:00\r\n", b"date: now\r\n more\r\n"),
        PLAIN.replace(b"date: now, 12:00\r\n", b"date: now\n"),
        PLAIN.replace(b"12:00", b"12\r00"),
    ],
)
def test_in_one_piece_as_in_many(data: bytes):
    """Whatever is odd about it, the parser has the word."""
    at_once, _ = answer(data)
    bytewise, came_at_once = answer(*(data[index : index + 1] for index in range(len(data))))
    assert not came_at_once
    assert at_once == bytewise


def test_the_usual_answer_is_taken_at_once():
    """Else the short way is none."""
    assert answer(PLAIN)[1]


def test_more_than_was_asked_for_ends_the_connection():
    """What follows an answer belongs to nobody."""
    seen, came_at_once = answer(PLAIN + b"HTTP/1.1 200 OK\r\n")
    assert not came_at_once
    assert seen["body"] == b"hello"
    assert not seen["is_kept"]


def test_an_answer_that_ends_early_is_an_error():
    """It is not taken for a whole one."""
    seen, _ = answer(PLAIN[:-1])
    assert seen["errors"] == [(UpstreamError, "closed")]


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 20_000, b"a: " + b"b" * 100_000], ids=["many", "long"])
def test_trailers_are_bounded_and_say_nothing(trailers: bytes):
    """A site's, whatever the limit of its answer."""
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    seen, _ = answer(chunked, b"2\r\nhi\r\n0\r\na: b\r\n\r\n")
    assert (seen["is_complete"], seen["headers"]) == (True, [(b"transfer-encoding", b"chunked")])
    pieces = [trailers[at : at + 10_000] for at in range(0, len(trailers), 10_000)]
    seen, _ = answer(chunked, b"2\r\nhi\r\n0\r\n", *pieces)
    assert seen["errors"] == [(UpstreamError, "protocol")]
    assert len(seen["headers"]) == 1


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_there_is_not_is_a_broken_answer(status: int):
    """No client could be told it."""
    seen, _ = answer(PLAIN.replace(b"200", b"%d" % status))
    assert seen["errors"] == [(UpstreamError, "protocol")]


@pytest.mark.parametrize("follows", [b"", PLAIN], ids=["alone", "with an answer"])
def test_a_change_of_protocol_is_no_answer(follows: bytes):
    """Nobody offered one: it is the other side's fault, and told as such."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    seen, _ = answer(head + follows)
    assert seen["errors"] == [(UpstreamError, "protocol")]
    assert not seen["is_kept"]


def test_a_whole_answer_that_offers_another_protocol_is_an_answer():
    """Its connection is not used again where the parser takes it for the other protocol's."""
    offer = PLAIN.replace(b"date", b"connection: upgrade\r\nupgrade: h2c\r\ndate")
    seen, _ = answer(offer)
    assert (seen["status"], seen["body"], seen["errors"]) == (200, b"hello", [None])
