"""The upstream pool against a scripted peer on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from support.full_listener import FullListener
from support.wait import until

from gateway.upstream import Origin, UpstreamError, UpstreamPool, UpstreamResponse
from gateway.upstream_response import BUFFER_HIGH_BYTES

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Peer:
    """Answers each request with what `script` writes."""

    script: Script
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    @property
    def origin(self) -> Origin:
        return Origin.parse(f"http://127.0.0.1:{self.port}")


def writes(*pieces: bytes, close: bool = False) -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        if close:
            writer.close()

    return script


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    it = Peer(writes(OK))
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    yield it
    server.close()
    for writer in list(it.open):
        writer.close()


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    it = UpstreamPool(connect_timeout_seconds=1.0)
    yield it
    await it.aclose()
    assert it.open_connections == 0


async def send(pool: UpstreamPool, peer: Peer, body: bytes = b"", timeout: float = 5.0) -> UpstreamResponse:  # noqa: ASYNC109
    return await pool.send(
        peer.origin, "POST", "/v1/x?y=1", [(b"a", b"b")], body, first_byte_timeout_seconds=timeout
    )


async def exchange(pool: UpstreamPool, peer: Peer, body: bytes = b"") -> bytes:
    response = await send(pool, peer, body)
    try:
        return await response.read(1 << 20)
    finally:
        response.close()


async def test_a_request_is_written_as_given(pool: UpstreamPool, peer: Peer) -> None:
    """Method, target, host, headers, length and body, nothing more."""
    assert await exchange(pool, peer, b"hello") == b"ok"
    host = f"127.0.0.1:{peer.port}".encode()
    assert peer.requests == [
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: " + host + b"\r\na: b\r\ncontent-length: 5\r\n\r\nhello"
    ]


async def test_a_whole_answer_keeps_the_connection(pool: UpstreamPool, peer: Peer) -> None:
    """Ten requests, one connection."""
    for _ in range(10):
        await exchange(pool, peer)
    assert peer.connections == 1


async def test_a_large_body_arrives_whole(pool: UpstreamPool, peer: Peer) -> None:
    """Through the path that does not copy it together with the head."""
    await exchange(pool, peer, b"x" * 300_000)
    assert peer.requests[0].endswith(b"\r\n\r\n" + b"x" * 300_000)


async def test_an_answer_left_half_read_is_cut(pool: UpstreamPool, peer: Peer) -> None:
    """So that the engine behind it stops."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    response = await send(pool, peer)
    response.close()
    response.close()
    await until(lambda: not peer.open)
    assert pool.open_connections == 0


async def test_a_stale_pooled_connection_is_replaced(pool: UpstreamPool, peer: Peer) -> None:
    """The other side closed it while it was idle, and nobody notices."""
    await exchange(pool, peer)
    answers = [b"", OK]

    async def close_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = answers.pop(0)
        if text:
            writer.write(text)
        else:
            writer.transport.abort()

    peer.script = close_once
    assert await exchange(pool, peer, b"again") == b"ok"
    assert peer.connections == 2
    assert len(peer.requests) == 3


async def test_a_request_that_may_have_been_worked_on_is_not_sent_again(
    pool: UpstreamPool, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooled connection that closes late: an engine that died of the request must not get it twice."""
    monkeypatch.setattr("gateway.upstream.STALE_SECONDS", -1.0)  # whatever it takes is late
    await exchange(pool, peer)
    peer.script = writes(close=True)
    with pytest.raises(UpstreamError) as caught:
        await send(pool, peer)
    assert caught.value.kind == "closed"
    assert len(peer.requests) == 2


async def test_a_fresh_connection_that_closes_is_an_error(pool: UpstreamPool, peer: Peer) -> None:
    """It is not retried here: that is the router's decision."""
    peer.script = writes(close=True)
    with pytest.raises(UpstreamError) as caught:
        await send(pool, peer)
    assert caught.value.kind == "closed"
    assert len(peer.requests) == 1


async def test_a_connection_that_does_not_come_in_time(pool: UpstreamPool) -> None:
    """Neither refused nor taken: a kind of its own, and nothing stays open."""
    pool.connect_timeout_seconds = 0.2
    with FullListener() as nowhere:
        with pytest.raises(UpstreamError) as caught:
            await pool.send(Origin.parse(nowhere.url), "GET", "/", [], b"", first_byte_timeout_seconds=5.0)
        assert caught.value.kind == "connect_timeout"
    assert pool.open_connections == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="Linux says it so")
async def test_the_kernel_watches_every_connection(pool: UpstreamPool, peer: Peer) -> None:
    """A request may wait for minutes on a connection on which nothing moves: is somebody still there?"""
    peer.script = writes(OK[:5])
    response = asyncio.create_task(send(pool, peer))
    await until(lambda: peer.requests)
    [connection] = pool._open
    assert connection.transport is not None
    link = connection.transport.get_extra_info("socket")
    assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [link.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 5, 3]
    response.cancel()
    await asyncio.gather(response, return_exceptions=True)


async def test_connections_expire_before_the_other_sides_keep_alive(peer: Peer) -> None:
    """By our own limit, and by what the other side says."""
    pool = UpstreamPool(idle_seconds=0.0)
    await exchange(pool, peer)
    await exchange(pool, peer)
    assert peer.connections == 2
    peer.script = writes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: timeout=30, max=9\r\n\r\n")
    await exchange(pool, peer)
    await exchange(pool, peer)
    assert peer.connections == 3
    await pool.aclose()


async def test_connection_close_is_obeyed(pool: UpstreamPool, peer: Peer) -> None:
    """The next request takes a new connection."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", close=True)
    assert await exchange(pool, peer) == b"ok"
    assert await exchange(pool, peer) == b"ok"
    assert peer.connections == 2


async def test_an_answer_without_length_ends_with_the_connection(pool: UpstreamPool, peer: Peer) -> None:
    """As HTTP/1.0 servers do it."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)
    assert await exchange(pool, peer) == b"until the end"


async def test_interim_answers_are_passed_over(pool: UpstreamPool, peer: Peer) -> None:
    """A 100 or 103 is not the answer."""
    peer.script = writes(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK)
    response = await send(pool, peer)
    assert response.status == 200
    assert response.fields.get(b"link") is None
    assert await response.read(10) == b"ok"
    response.close()


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_a_body_cut_short_is_an_error_after_what_came(
    pool: UpstreamPool, peer: Peer, cut: bytes
) -> None:
    """By length and by chunks; the relay hands over what there was."""
    peer.script = writes(cut, close=True)
    response = await send(pool, peer)
    pieces: list[bytes] = []
    with pytest.raises(UpstreamError) as caught:
        await response.relay(pieces.append)
    response.close()
    assert (caught.value.kind, b"".join(pieces)) == ("closed", b"half")


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 400 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000,
    ],
)
async def test_what_is_not_an_answer_is_a_protocol_error(
    pool: UpstreamPool, peer: Peer, garbage: bytes
) -> None:
    """Not HTTP, too many headers, an endless head: the connection is cut, memory bounded."""
    peer.script = writes(garbage)
    with pytest.raises(UpstreamError) as caught:
        await send(pool, peer)
    assert caught.value.kind == "protocol"


async def test_silence_is_a_first_byte_timeout(pool: UpstreamPool, peer: Peer) -> None:
    """And the connection is cut."""
    peer.script = writes()
    with pytest.raises(UpstreamError) as caught:
        await send(pool, peer, timeout=0.05)
    assert caught.value.kind == "first_byte_timeout"
    await until(lambda: not peer.open)


async def test_nobody_listening_is_a_connect_error(pool: UpstreamPool, peer: Peer) -> None:
    """The message names the address."""
    origin = Origin.parse("http://127.0.0.1:1")
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:1") as caught:
        await pool.send(origin, "GET", "/", [], b"", first_byte_timeout_seconds=1)
    assert caught.value.kind == "connect"


async def test_too_large_an_answer_is_refused(pool: UpstreamPool, peer: Peer) -> None:
    """Whoever reads it whole says how much."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 100)
    response = await send(pool, peer)
    with pytest.raises(UpstreamError) as caught:
        await response.read(99)
    response.close()
    assert caught.value.kind == "too_large"


async def test_a_body_nobody_reads_yet_is_bounded(pool: UpstreamPool, peer: Peer) -> None:
    """The socket is paused; reading on gives every byte."""
    size = 40 * BUFFER_HIGH_BYTES
    done = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
        done.set()

    peer.script = flood
    response = await send(pool, peer)
    await until(lambda: response._paused)
    assert not done.is_set()
    assert response._buffered_bytes < 8 * BUFFER_HIGH_BYTES
    received = 0

    def count(data: bytes) -> None:
        nonlocal received
        received += len(data)

    await response.relay(count)
    response.close()
    assert received == size


async def test_a_consumer_that_raises_ends_the_relay(pool: UpstreamPool, peer: Peer) -> None:
    """Its own exception comes out, and the connection is cut."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    response = await send(pool, peer)

    def refuse(_: bytes) -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        await response.relay(refuse)
    response.close()
    await until(lambda: not peer.open)


async def test_a_relay_can_be_stopped_from_outside(pool: UpstreamPool, peer: Peer) -> None:
    """As a stall timer does."""
    peer.script = writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    response = await send(pool, peer)
    relaying = asyncio.create_task(response.relay(lambda _: None))
    await asyncio.sleep(0)
    response.stop(TimeoutError("stalled"))
    with pytest.raises(TimeoutError, match="stalled"):
        await relaying
    response.close()
    await until(lambda: not peer.open)


async def test_cancelling_a_request_cuts_its_connection(pool: UpstreamPool, peer: Peer) -> None:
    """Before the head and in mid-body."""
    peer.script = writes()
    sending = asyncio.create_task(send(pool, peer))
    await until(lambda: peer.requests)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await until(lambda: not peer.open)
    assert pool.open_connections == 0


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://h", "scheme"),
        ("http://", "no host"),
        ("http://h/path", "only scheme, host and port"),
        ("http://u:p@h", "only scheme, host and port"),
        ("http://h?q", "only scheme, host and port"),
        ("http://h:99999", "[Pp]ort"),
        ("http://hö", "ASCII"),
    ],
)
def test_a_bad_origin_says_what_is_wrong(url: str, problem: str) -> None:
    """Before anything is sent anywhere."""
    with pytest.raises(ValueError, match=problem):
        Origin.parse(url)


def test_an_origin_knows_its_host_header() -> None:
    """The default port is left out, IPv6 is bracketed."""
    assert Origin.parse("http://h:80").host_header == b"h"
    assert Origin.parse("https://h:444/").host_header == b"h:444"
    assert Origin.parse("http://[::1]:8").host_header == b"[::1]:8"


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not say it")
async def test_the_round_trip_is_the_kernels(pool: UpstreamPool, peer: Peer) -> None:
    """Of open connections only, without what the other side takes to answer."""

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(OK)

    assert pool.round_trip_seconds() == {}
    peer.script = slowly
    await exchange(pool, peer)
    seconds = pool.round_trip_seconds()[peer.origin]
    assert 0 < seconds < 0.2
