"""The server over real sockets: what a client may do to it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest
from support.memory import far_from_collector
from support.wait import until

from gateway import protocol
from gateway.client_timeouts import MIN_BODY_BYTES_PER_SECOND, READ_TIMEOUT_SECONDS, WRITE_STALL_SECONDS
from gateway.half_close import is_half_closed
from gateway.protocol import HotPathProtocol
from gateway.refusal import Refusal
from gateway.server import ClientRequest, HttpServer

LIMIT = 100_000
LARGE = b"x" * (1 << 20)


@dataclass
class Site:
    """A server with one handler per behaviour, and what happened to them."""

    server: HttpServer
    released: list[str] = field(default_factory=list)
    paused: int = 0
    resumed: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    answered_at_once: int = 0

    def answer_at_once(self, request: ClientRequest) -> None:
        """No coroutine, as refusals have none."""
        self.answered_at_once += 1
        if request.query:
            request.respond(200, [], LARGE)
            return
        request.respond(200, [], request.body)

    async def handle(self, request: ClientRequest) -> None:
        try:
            match request.path:
                case "/hot/echo":
                    request.respond(200, [(b"x-size", str(len(request.body)).encode())], request.body)
                case "/hot/wait":
                    await self.gate.wait()
                    request.respond(200, [], b"waited")
                case "/hot/stream":
                    request.empty_piece = b":\n\n"
                    request.start(200, [(b"content-type", b"text/event-stream")])
                    request.write(b"data: 1\n\n")
                    await self.gate.wait()
                    request.write(b"data: 2\n\n")
                    request.finish()
                case "/hot/flood":
                    request.on_pause = self._on_pause
                    request.on_resume = self._on_resume
                    request.start(200, [])
                    for _ in range(200):
                        request.write(b"x" * 65_536)
                    request.finish()
                case "/hot/large":
                    request.respond(200, [], LARGE)
                case "/hot/cut":
                    request.start(200, [])
                    request.write(b"half")
                    request.abort()
                case "/hot/raise":
                    raise RuntimeError("on purpose")
                case "/hot/raise-late":
                    request.start(200, [])
                    raise RuntimeError("on purpose")
                case "/hot/silent":
                    return
        finally:
            self.released.append(request.path)

    def _on_pause(self) -> None:
        self.paused += 1

    def _on_resume(self) -> None:
        self.resumed += 1


async def _app(scope, receive, send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    text = b"asgi:" + body
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    holder: list[Site] = []

    def hot(method: str, path: str):
        if path == "/hot/now":
            return holder[0].answer_at_once
        return holder[0].handle if method == "POST" and path.startswith("/hot/") else None

    server = HttpServer(_app, hot=hot, max_body_bytes=LIMIT)
    await server.start()
    holder.append(Site(server))
    yield holder[0]
    await server.stop(0)


async def connect(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", site.server.port)


def post(path: str, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"host: h", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """One answer off the wire: status, headers, body (by length or chunks)."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    lines = head[:-4].split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines[1:])
    status = int(lines[0].split()[1])
    if b"content-length" in headers:
        return status, headers, await reader.readexactly(int(headers[b"content-length"]))
    if headers.get(b"transfer-encoding") != b"chunked":
        return status, headers, b"" if status == 100 else await reader.read()
    body = b""
    while True:
        size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            return status, headers, body


async def test_a_hot_path_answers_and_keeps_the_connection(site: Site) -> None:
    """Two requests on one connection; the body arrives whole however it was cut."""
    reader, writer = await connect(site)
    message = post("/hot/echo", b"hello")
    for place in range(len(message)):
        writer.write(message[place : place + 1])
        await writer.drain()
    assert (await answer(reader))[2] == b"hello"
    writer.write(post("/hot/echo", b"again"))
    status, headers, body = await answer(reader)
    assert (status, body, headers[b"x-size"]) == (200, b"again", b"5")
    writer.close()


async def test_other_paths_go_to_the_asgi_application(site: Site) -> None:
    """The same connection serves both kinds."""
    reader, writer = await connect(site)
    writer.write(post("/other", b"abc"))
    assert (await answer(reader))[2] == b"asgi:abc"
    writer.write(post("/hot/echo", b"abc"))
    assert (await answer(reader))[2] == b"abc"
    writer.close()


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    """Hot, ASGI and hot again, written at once, the first one slow."""
    reader, writer = await connect(site)
    writer.write(post("/hot/wait") + post("/other", b"2") + post("/hot/echo", b"3"))
    await until(lambda: site.server.in_flight == 1)
    site.gate.set()
    assert [(await answer(reader))[2] for _ in range(3)] == [b"waited", b"asgi:2", b"3"]
    writer.close()


@pytest.mark.parametrize("path", ["/hot/wait", "/other"])
async def test_as_many_pipelined_requests_as_come_are_answered(site: Site, path: str) -> None:
    """Those that are answered at once, behind one that is not: the stack does not grow with them."""
    site.gate.set()
    reader, writer = await connect(site)
    writer.write(post(path) + b"".join([post("/hot/now", b"%d" % number) for number in range(3000)]))
    assert (await answer(reader))[0] == 200
    for number in range(3000):
        assert (await answer(reader))[2] == b"%d" % number
    connection = connection_of(site)
    assert connection.idle_since is not None
    assert not connection.flow.read_paused
    writer.close()


@pytest.mark.parametrize("path", ["/hot/large", "/hot/now?large"])
@pytest.mark.parametrize("is_pipelined", [True, False])
async def test_who_reads_no_answers_gets_no_further_ones(site: Site, path: str, is_pipelined: bool) -> None:
    """They would fill the memory. Then it reads: all it asked for is answered."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", site.server.port))
    if is_pipelined:
        await loop.sock_sendall(client, post(path) * 40)
    else:
        for _ in range(40):
            await loop.sock_sendall(client, post(path))
            await asyncio.sleep(0.005)
    await until(lambda: site.server.connections and connection_of(site).write_paused_since is not None)
    await asyncio.sleep(0.2)
    connection = connection_of(site)
    assert connection.transport.get_write_buffer_size() < 3 * len(LARGE)
    assert len(site.released) + site.answered_at_once < 20
    left = 40 * len(LARGE)
    while left > 0:
        left -= (await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 10)).count(b"x")
    await until(lambda: connection.idle_since is not None)
    assert not connection.flow.read_paused
    assert len(site.released) + site.answered_at_once == 40
    client.close()


async def test_pipelined_requests_hold_up_no_other_connection(site: Site) -> None:
    """However many come in one piece, some begin in each turn of the loop, and few wait behind a slow one."""
    _, writer = await connect(site)
    await until(lambda: site.server.connections == 1)
    connection = connection_of(site)
    connection.data_received(post("/hot/now") * 4000)
    assert 0 < site.answered_at_once < 500
    before = site.answered_at_once
    await asyncio.sleep(0)
    assert before < site.answered_at_once < before + 500
    await until(lambda: site.answered_at_once == 4000)
    connection.data_received(post("/hot/wait") + post("/hot/now") * 4000 + post("/hot/now", b"hello")[:-2])
    await until(lambda: site.server.in_flight == 1)
    assert 0 < len(connection.pipeline) < 500
    site.gate.set()
    await until(lambda: site.answered_at_once == 8000)
    assert connection.read_since is not None
    connection.data_received(b"lo")
    assert site.answered_at_once == 8001
    assert connection.idle_since is not None
    writer.close()


async def test_a_half_closed_client_gets_every_answer() -> None:
    """However many it asked for before it closed its half; then the connection ends."""
    behind = Site(HttpServer())
    server = behind.server = HttpServer(
        hot=lambda _method, path: behind.answer_at_once if path == "/hot/now" else behind.handle,
        allows_half_close=True,
    )
    await server.start()
    reader, writer = await connect(behind)
    writer.write(post("/hot/wait") + post("/hot/now") * 3000)
    await until(lambda: server.in_flight == 1)
    writer.write_eof()
    connection = connection_of(behind)
    await until(lambda: is_half_closed(connection.transport))
    for _ in range(2):
        connection.check_timeouts(connection.loop.time())
    behind.gate.set()
    answers = await asyncio.wait_for(reader.read(), 20)
    assert answers.count(b"HTTP/1.1 200 OK") == 3001
    assert answers.count(b"HTTP/1.1 100 Continue") == 1
    writer.close()
    await server.stop(0)


@pytest.mark.parametrize("end", ["whole", "gone", "late", "malformed", "too large", "no room"])
async def test_unfinished_bodies_have_room_together(end: str) -> None:
    """What one takes of it is given back however it ends; who finds none is told to come back."""
    behind = Site(HttpServer())
    server = behind.server = HttpServer(
        hot=lambda *_: behind.answer_at_once, max_body_bytes=LIMIT, max_unfinished_bytes=150_000
    )
    await server.start()
    head = b"POST /hot/now HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % 90_000 + b"x" * 90_000 + b"\r\n"
    reader, writer = await connect(behind)
    writer.write(head + chunk)
    await until(lambda: server.body_room.taken_bytes == 90_000)
    connection = connection_of(behind)
    if end == "whole":
        writer.write(b"0\r\n\r\n")
        assert (await answer(reader))[0] == 200
    elif end == "gone":
        writer.transport.abort()
    elif end == "late":
        connection.check_timeouts(connection.loop.time() + READ_TIMEOUT_SECONDS + 10)
        assert (await answer(reader))[0] == 408
    elif end == "malformed":
        writer.write(b"ZZ\r\n")
        assert (await answer(reader))[0] == 400
    elif end == "too large":
        writer.write(chunk)
        assert (await answer(reader))[0] == 413
        assert isinstance(connection.cycle, ClientRequest)
        assert connection.cycle.pieces == []
    else:
        other_reader, other = await connect(behind)
        other.write(post("/hot/now", b"small"))
        assert (await answer(other_reader))[0] == 200, "what comes whole needs no room"
        other.write(head + chunk)
        status, headers, body = await answer(other_reader)
        assert (status, headers[b"retry-after"]) == (503, b"2")
        assert b"too_many_bodies" in body
        assert server.body_room.taken_bytes == 90_000
        writer.write(b"0\r\n\r\n")
        assert (await answer(reader))[0] == 200
        other.close()
    await until(lambda: server.body_room.taken_bytes == 0)
    writer.close()
    await server.stop(0)


async def test_a_head_may_be_enough_to_refuse_a_request() -> None:
    """Before its body comes, and before it is asked to come; not where all of it is there already."""
    behind = Site(HttpServer())

    def refuse(request: ClientRequest) -> Refusal | None:
        return None if b"x-key" in request.fields else (401, b"{}", [(b"www-authenticate", b"Bearer")])

    server = behind.server = HttpServer(hot=lambda *_: behind.answer_at_once, head_refusal=refuse)
    await server.start()
    for more in ([], [b"expect: 100-continue"]):
        message = post("/hot/now", b"hello", *more)
        reader, writer = await connect(behind)
        writer.write(message[:-5])
        status, headers, _ = await answer(reader)
        assert (status, headers[b"www-authenticate"], headers[b"connection"]) == (401, b"Bearer", b"close")
        writer.close()
        reader, writer = await connect(behind)
        writer.write(post("/hot/now", b"hello", b"x-key: 1", *more)[:-5])
        if more:
            assert (await answer(reader))[0] == 100
        writer.write(b"hello")
        assert (await answer(reader))[2] == b"hello"
        writer.write(post("/hot/now", b"again"))
        assert (await answer(reader))[2] == b"again"
        writer.close()
    await server.stop(0)


async def test_a_chunked_request_body_is_put_together(site: Site) -> None:
    """Clients may send chunks."""
    reader, writer = await connect(site)
    writer.write(
        b"POST /hot/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert (await answer(reader))[2] == b"abcde"
    writer.close()


async def test_a_body_of_known_length_is_not_cut_up(site: Site) -> None:
    """Only what may be other requests is fed in small pieces."""
    reader, writer = await connect(site)
    await until(lambda: site.server.connections == 1)
    connection = connection_of(site)
    connection.data_received(post("/hot/echo", b"x" * 90_000)[:-5])
    request = connection.cycle
    assert isinstance(request, ClientRequest)
    assert len(request.pieces) == 2
    connection.data_received(b"xxxxx" + post("/hot/now", b"again"))
    assert (await answer(reader))[2] == b"x" * 90_000
    assert (await answer(reader))[2] == b"again"
    writer.close()


async def test_a_body_in_tiny_chunks_takes_little_more_than_its_bytes(site: Site) -> None:
    """Whoever sends it needs no key for that."""
    reader, writer = await connect(site)
    writer.write(b"POST /hot/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"2\r\nhi\r\n" * 20_000)
    await until(lambda: site.server.connections and connection_of(site).body_bytes == 40_000)
    request = connection_of(site).cycle
    assert isinstance(request, ClientRequest)
    assert sum(sys.getsizeof(piece) for piece in request.pieces) < 60_000
    writer.write(b"0\r\n\r\n")
    assert (await answer(reader))[2] == b"hi" * 20_000
    writer.close()


@pytest.mark.parametrize("path", ["/hot/echo", "/other"])
async def test_an_offer_to_change_the_protocol_is_passed_over(site: Site, path: str) -> None:
    """Java's client offers h2c with every request: it gets its answers, by HTTP/1.1, on one connection."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAA"
    reader, writer = await connect(site)
    for body in (b"first", b"second", b"third"):
        message = post(path, body, offer)
        writer.write(message[:-2])
        await writer.drain()
        writer.write(message[-2:])
        status, _, answered = await answer(reader)
        assert (status, answered.removeprefix(b"asgi:")) == (200, body)
    writer.close()


async def test_expect_continue_is_granted_before_the_body(site: Site) -> None:
    """curl sends it with large bodies."""
    reader, writer = await connect(site)
    message = post("/hot/echo", b"body", b"expect: 100-continue")
    writer.write(message[:-4])
    assert (await answer(reader))[0] == 100
    writer.write(b"body")
    assert (await answer(reader))[2] == b"body"
    writer.close()


async def test_an_http_1_0_client_gets_an_answer_ended_by_the_close(site: Site) -> None:
    """No chunks for those who do not know them."""
    site.gate.set()
    reader, writer = await connect(site)
    writer.write(b"POST /hot/stream HTTP/1.0\r\ncontent-length: 0\r\n\r\n")
    status, headers, body = await answer(reader)
    assert status == 200
    assert b"transfer-encoding" not in headers
    assert body == b"data: 1\n\ndata: 2\n\n"
    writer.close()


@pytest.mark.parametrize("path", ["/hot/echo", "/other"])
@pytest.mark.parametrize("declared", [True, False])
async def test_too_large_a_body_is_refused_with_413(site: Site, path: str, declared: bool) -> None:
    """By its declared length at once, else when the limit is passed; on both kinds of path."""
    reader, writer = await connect(site)
    if declared:
        writer.write(
            post(path, b"")[:-4].replace(b"content-length: 0", b"content-length: 100001") + b"\r\n\r\n"
        )
    else:
        writer.write(f"POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            writer.write(b"%x\r\n" % 50_000 + b"x" * 50_000 + b"\r\n")
    status, headers, body = await answer(reader)
    assert (status, headers[b"connection"]) == (413, b"close")
    assert b"larger than 100000 bytes" in body
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert site.server.in_flight == 0
    writer.close()


@pytest.mark.parametrize("head", [b"x-long: " + b"a" * 70_000, b"\r\n".join([b"a: b"] * 300)])
async def test_too_large_a_head_is_refused(site: Site, head: bytes) -> None:
    """One endless header, or too many of them: a 4xx and the end."""
    reader, writer = await connect(site)
    writer.write(b"POST /hot/echo HTTP/1.1\r\nhost: h\r\n" + head)
    if not head.startswith(b"x-long"):
        writer.write(b"\r\n\r\n")
    status, _, _ = await answer(reader)
    assert status in (400, 431)
    writer.close()


@pytest.mark.parametrize("path", ["/hot/now", "/other"])
@pytest.mark.parametrize("offer", [[], [b"connection: upgrade", b"upgrade: h2c"]])
async def test_too_large_a_head_is_refused_when_it_comes_whole(
    site: Site, path: str, offer: list[bytes]
) -> None:
    """With its body in one piece, alone or behind another request."""
    for before in (b"", post("/hot/now", b"x" * 5000)):
        for size in (65_500, 66_000, 80_000, 200_000):
            reader, writer = await connect(site)
            await until(lambda: site.server.connections == 1)
            many = post(path, b"hello", *offer, b"a: " + b"b" * (size // 2), b"c: " + b"d" * (size // 2))
            connection_of(site).data_received(before + many)
            if before:
                assert (await answer(reader))[0] == 200
            assert (await answer(reader))[0] == 431
            writer.close()
            await until(lambda: site.server.connections == 0)


async def test_a_head_that_was_refused_is_no_other_request_s_head(site: Site) -> None:
    """Refused after another request on the same connection: it is refused again, wherever it comes."""
    many = b"POST /hot/echo HTTP/1.1\r\n" + b"a:\r\n" * 300 + b"content-length: 0\r\n\r\n"
    reader, writer = await connect(site)
    writer.write(post("/hot/echo"))
    assert (await answer(reader))[0] == 200
    writer.write(many)
    assert (await answer(reader))[0] == 431
    writer.close()
    for _ in range(2):
        reader, writer = await connect(site)
        writer.write(many)
        assert (await answer(reader))[0] == 431
        writer.close()


async def test_what_is_not_http_gets_400(site: Site) -> None:
    """And the server lives."""
    reader, writer = await connect(site)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await answer(reader))[0] == 400
    writer.close()


async def test_a_client_that_leaves_cancels_its_handler(site: Site) -> None:
    """Before the answer and in mid-stream; what the handler took is released."""
    for path in ("/hot/wait", "/hot/stream"):
        _, writer = await connect(site)
        writer.write(post(path))
        await until(lambda: site.server.in_flight == 1)
        writer.transport.abort()
        await until(lambda: site.server.in_flight == 0)
    assert site.released == ["/hot/wait", "/hot/stream"]


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("allows_half_close", [False, True])
@pytest.mark.parametrize("path", ["/hot/wait", "/hot/stream"])
async def test_a_client_that_leaves_while_another_request_of_its_waits_is_noticed(
    path: str, allows_half_close: bool, is_reset: bool
) -> None:
    """Though nothing is read from it, and so no end of it is."""
    left = Site(HttpServer())
    server = left.server = HttpServer(hot=lambda *_: left.handle, allows_half_close=allows_half_close)
    await server.start()
    _, writer = await connect(left)
    writer.write(post(path) * 2)
    await until(lambda: server.in_flight == 1)
    if is_reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await until(lambda: server.in_flight == 0)
    assert left.released == [path]
    await server.stop(0)


async def test_an_aborted_answer_ends_without_its_final_chunk(site: Site) -> None:
    """The reader can tell a cut from an end."""
    reader, writer = await connect(site)
    writer.write(post("/hot/cut"))
    with pytest.raises(asyncio.IncompleteReadError):
        await answer(reader)
    writer.close()


@pytest.mark.parametrize("path", ["/hot/raise", "/hot/silent"])
async def test_a_handler_that_fails_is_a_500(site: Site, path: str) -> None:
    """In OpenAI's shape, and the connection goes on or ends properly."""
    reader, writer = await connect(site)
    writer.write(post(path))
    status, _, body = await answer(reader)
    assert status == 500
    assert b"server_error" in body
    writer.close()


async def test_a_handler_that_fails_in_mid_answer_cuts_it(site: Site) -> None:
    """A half answer never looks whole."""
    reader, writer = await connect(site)
    writer.write(post("/hot/raise-late"))
    with pytest.raises(asyncio.IncompleteReadError):
        await answer(reader)
    writer.close()


async def test_a_slow_reader_pauses_and_resumes_the_handler(site: Site) -> None:
    """The handler hears when the client's buffer is full and when it has drained."""
    reader, writer = await connect(site)
    writer.write(post("/hot/flood"))
    await until(lambda: site.paused == 1)
    _, _, body = await answer(reader)
    assert len(body) == 200 * 65_536
    assert site.paused == 1
    writer.close()


async def test_stop_lets_requests_in_flight_finish(site: Site) -> None:
    """New connections are refused at once, the running answer is whole."""
    reader, writer = await connect(site)
    writer.write(post("/hot/wait"))
    await until(lambda: site.server.in_flight == 1)
    stopping = asyncio.create_task(site.server.stop(10))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await connect(site)
    site.gate.set()
    assert (await answer(reader))[2] == b"waited"
    await stopping
    assert site.server.in_flight == 0
    writer.close()


async def test_stop_ends_what_outlives_the_grace(site: Site) -> None:
    """With the handler's `finally` run."""
    _, writer = await connect(site)
    writer.write(post("/hot/wait"))
    await until(lambda: site.server.in_flight == 1)
    await site.server.stop(0)
    assert site.released == ["/hot/wait"]
    writer.close()


async def test_abort_connections_cuts_running_answers(site: Site) -> None:
    """As a site without power does."""
    reader, writer = await connect(site)
    writer.write(post("/hot/stream"))
    await reader.readuntil(b"data: 1\n\n")
    site.server.abort_connections()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readuntil(b"data: 2\n\n")
    await until(lambda: site.server.in_flight == 0)
    writer.close()


async def test_a_port_in_use_is_an_error_that_names_it(site: Site) -> None:
    """Not a server that silently listens nowhere."""
    with pytest.raises(OSError, match=str(site.server.port)):
        await HttpServer(None, port=site.server.port).start()


@pytest.mark.parametrize("path", ["/hot/echo", "/hot/cut", "/hot/stream", "/hot/wait"])
async def test_a_closed_connection_leaves_no_body_behind(site: Site, path: str) -> None:
    """Whether its request was answered, cut or left."""
    if path == "/hot/stream":
        site.gate.set()
    with far_from_collector(ClientRequest, HotPathProtocol) as left:
        reader, writer = await connect(site)
        writer.write(post(path, b"hello"))
        if path == "/hot/wait":
            await until(lambda: site.server.in_flight == 1)
        else:
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await until(lambda: not (site.server.connections or site.server.in_flight))
        await until(lambda: left() == 0)


async def test_an_idle_connection_holds_no_body(site: Site) -> None:
    """Only its size is still known."""
    reader, writer = await connect(site)
    writer.write(post("/hot/echo", b"hello"))
    assert (await answer(reader))[2] == b"hello"
    request = connection_of(site).cycle
    assert isinstance(request, ClientRequest)
    assert (request.body, request.body_bytes) == (b"", 5)
    writer.close()


def connection_of(site: Site) -> HotPathProtocol:
    return next(iter(site.server._server.server_state.connections))  # type: ignore[return-value]


async def test_half_a_request_times_out_with_408(site: Site) -> None:
    """One byte a minute is not a client."""
    reader, writer = await connect(site)
    writer.write(post("/hot/echo", b"hello")[:-2])
    await until(lambda: site.server.connections == 1 and connection_of(site).read_since is not None)
    await until(lambda: connection_of(site).body_bytes == 3)
    connection = connection_of(site)
    connection.check_timeouts(connection.loop.time() + READ_TIMEOUT_SECONDS + 1)
    assert (await answer(reader))[0] == 408
    writer.close()


async def test_a_long_body_may_take_its_time(site: Site) -> None:
    """A second more for every so many bytes: a recording over a slow line is no attack."""
    reader, writer = await connect(site)
    writer.write(post("/hot/echo", b"x" * (2 * MIN_BODY_BYTES_PER_SECOND))[:-1])
    await until(lambda: site.server.connections == 1)
    await until(lambda: connection_of(site).body_bytes == 2 * MIN_BODY_BYTES_PER_SECOND - 1)
    connection = connection_of(site)
    began = connection.read_since
    assert began is not None
    connection.check_timeouts(began + READ_TIMEOUT_SECONDS + 1.5)
    assert not connection.is_refused
    connection.check_timeouts(began + READ_TIMEOUT_SECONDS + 2.5)
    status, _, body = await answer(reader)
    assert (status, orjson.loads(body)["error"]["code"]) == (408, "request_timeout")
    writer.close()


async def test_a_refusal_waits_for_a_client_that_goes_on_sending(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many read nothing until they have sent everything."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.3)
    reader, writer = await connect(site)
    writer.write(b"POST /hot/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 999999999999\r\n\r\n")
    for _ in range(12):
        writer.write(b"x" * 1000)
        await writer.drain()
        await asyncio.sleep(0.1)
    assert (await answer(reader))[0] == 413
    assert await asyncio.wait_for(reader.read(), 10) == b"", "and once it has stopped the connection ends"
    writer.close()


async def test_a_connection_that_never_says_anything_is_closed(site: Site) -> None:
    """Silently: there is no request to answer."""
    reader, writer = await connect(site)
    await until(lambda: site.server.connections == 1)
    connection = connection_of(site)
    connection.check_timeouts(connection.loop.time() + READ_TIMEOUT_SECONDS + 1)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_client_that_takes_nothing_is_cut(site: Site) -> None:
    """After the stall time, so that it holds no memory for ever."""
    _, writer = await connect(site)
    writer.write(post("/hot/flood"))
    await until(lambda: site.paused == 1)
    connection = connection_of(site)
    connection.check_timeouts(connection.loop.time() + WRITE_STALL_SECONDS + 1)
    await until(lambda: site.server.connections == 0)
    assert site.released == ["/hot/flood"]
    writer.close()


async def test_a_peer_that_lost_its_power_is_given_up_within_the_time_that_was_asked_for() -> None:
    """By the kernel, on every connection that is accepted; without it nothing is changed."""
    for asked, wanted in ((10.0, 10_000), (None, 0)):
        server = HttpServer(dead_peer_seconds=asked)
        await server.start()
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.connections == 1)  # noqa: B023 -- awaited here
        [connection] = server._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == wanted
        writer.close()
        await server.stop(0)


@pytest.mark.parametrize(
    "malformed",
    [
        b"POST /hot/wait HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /hot/wait HTTP/1.1\r\nbad name: h\r\n\r\n",
        b"\0\0\0",
    ],
    ids=["body", "head", "neither"],
)
async def test_nothing_comes_in_the_midst_of_an_answer(site: Site, malformed: bytes) -> None:
    """A malformed request behind it ends the connection, and is not answered."""
    reader, writer = await connect(site)
    writer.write(post("/hot/stream"))
    await reader.readuntil(b"data: 1\n\n")
    writer.write(malformed)
    assert b"400" not in await asyncio.wait_for(reader.read(), 10)
    await until(lambda: site.released == ["/hot/stream"])
    writer.close()


async def test_a_refusal_is_said_once(site: Site) -> None:
    """However much of what is refused comes with its head."""
    reader, writer = await connect(site)
    writer.write(post("/hot/echo", b"x" * 200_000))
    said = await asyncio.wait_for(reader.read(), 10)
    assert said.startswith(b"HTTP/1.1 413")
    assert said.count(b"HTTP/1.1") == 1
    writer.close()


async def test_a_large_request_with_the_next_one_s_head_behind_it_is_answered(site: Site) -> None:
    """What came in the same piece is not all the second one's."""
    reader, writer = await connect(site)
    body = b"x" * 80_000
    writer.write(post("/hot/echo", body) + post("/hot/echo", b"hello")[:-5])
    assert (await answer(reader))[2] == body
    connection = connection_of(site)
    connection.check_timeouts(connection.loop.time() + READ_TIMEOUT_SECONDS + 1)
    assert (await answer(reader))[0] == 408, "and the second one may not take for ever"
    writer.close()


async def test_a_request_that_waits_for_us_is_not_late(site: Site) -> None:
    """What is not read of it, because another is being answered, is not its client's fault."""
    reader, writer = await connect(site)
    writer.write(post("/hot/stream"))
    await reader.readuntil(b"data: 1")
    writer.write(post("/hot/echo", b"hello")[:-2])
    connection = connection_of(site)
    await until(lambda: connection.pipeline)
    connection.check_timeouts(connection.loop.time() + READ_TIMEOUT_SECONDS + 1)
    writer.write(b"lo")
    site.gate.set()
    rest = await asyncio.wait_for(reader.readuntil(b"hello"), 10)
    assert b"data: 2" in rest
    writer.close()


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 20_000, b"a: " + b"b" * 100_000], ids=["many", "long"])
async def test_trailers_are_bounded_and_say_nothing(site: Site, trailers: bytes) -> None:
    """They come after the head's limits were looked at, and before any key is."""
    head = b"POST /hot/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    reader, writer = await connect(site)
    writer.write(head + b"2\r\nhi\r\n0\r\na: b\r\n\r\n")
    assert (await answer(reader))[2] == b"hi"
    writer.write(head + b"2\r\nhi\r\n0\r\n")
    await until(lambda: connection_of(site).body_bytes == 2)
    writer.write(trailers)
    status, _, body = await answer(reader)
    assert (status, b"trailers" in body) == (431, True)
    assert len(connection_of(site).headers) < 10
    writer.close()


async def test_a_client_that_takes_nothing_more_of_a_last_answer_is_cut(site: Site) -> None:
    """A connection that is closed by us waits for what is unsent, but not for ever."""
    _, writer = await connect(site)
    writer.write(post("/hot/flood"))
    await until(lambda: site.paused == 1)
    connection = connection_of(site)
    connection.transport.close()
    now = connection.loop.time()
    connection.check_timeouts(now)
    assert site.server.connections == 1
    connection.check_timeouts(now + WRITE_STALL_SECONDS + 1)
    await until(lambda: site.server.connections == 0)
    writer.close()
