"""A port that speaks TLS, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.authority import Authority
from support.wait import until

from gateway import tls_door
from gateway.client_request import ClientRequest
from gateway.client_timeouts import WRITE_STALL_SECONDS
from gateway.server import HttpServer
from gateway.tls import CallerFiles, PortFiles
from gateway.tls_renewal import RenewedTls
from gateway.upstream import Origin, UpstreamError, UpstreamPool

LARGE = 4 << 20


class Port:
    """A server with TLS, what it was asked, and who may call it."""

    def __init__(self, directory: Path, *, is_mutual: bool = False) -> None:
        self.authority = Authority(directory)
        certificate, key = self.authority.sign("port")
        client_ca = self.authority.ca if is_mutual else None
        self.tls = RenewedTls("router", PortFiles(certificate=certificate, key=key, client_ca=client_ca))
        self.asked: list[str] = []
        self.gone = 0
        self.gate = asyncio.Event()
        self.closed = 0
        self.server = HttpServer(hot=lambda _method, _path: self.handle, tls=self.tls, on_lost=self._count)

    def _count(self) -> None:
        self.closed += 1

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    async def handle(self, request: ClientRequest) -> None:
        self.asked.append(request.path)
        try:
            if request.path == "/stream":
                request.start(200, [(b"content-type", b"text/event-stream")])
                request.write(b"data: 1\n\n")
                await self.gate.wait()
                request.write(b"data: 2\n\n")
                request.finish()
            elif request.path == "/large":
                request.respond(200, [], b"x" * LARGE)
            elif request.path == "/cut":
                request.start(200, [])
                request.write(b"half")
                request.abort()
            else:
                request.respond(200, [], request.body)
        except asyncio.CancelledError:
            self.gone += 1
            raise

    def pool(self, files: CallerFiles | None = None) -> UpstreamPool:
        calls = RenewedTls("fleet", CallerFiles(ca=self.authority.ca) if files is None else files)
        return UpstreamPool(connect_timeout_seconds=2.0, ssl_context=lambda: calls.context)

    async def raw(self, data: bytes) -> bytes:
        """What comes back on a plain connection, until its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer


@contextlib.asynccontextmanager
async def running(port: Port) -> AsyncIterator[Port]:
    await port.server.start()
    yield port
    await port.server.stop(0)
    await until(lambda: port.server.connections == 0, what="no connection left")


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with running(Port(tmp_path)) as made:
        yield made


async def ask(pool: UpstreamPool, url: str, path: str = "/echo", body: bytes = b"hello") -> bytes:
    response = await pool.send(Origin.parse(url), "POST", path, [], body, first_byte_timeout_seconds=5)
    try:
        return await response.read(2 * LARGE)
    finally:
        response.close()


async def refusal(pool: UpstreamPool, url: str) -> str:
    with pytest.raises(UpstreamError) as caught:
        await ask(pool, url)
    await pool.aclose()
    return str(caught.value).removeprefix(f"{url}: ")


async def test_requests_share_a_connection(port: Port):
    """Small and large, both ways; http/1.1 is what both agree on, and nothing older than TLS 1.2."""
    pool = port.pool()
    for body in (b"hello", b"x" * 300_000, b"", b"y" * LARGE):
        assert await ask(pool, port.url, body=body) == body
    assert len(await ask(pool, port.url, "/large")) == LARGE
    assert pool.open_connections == port.server.connections == 1
    [connection] = pool._open
    assert connection.transport is not None
    seen = connection.transport.get_extra_info("ssl_object")
    assert (seen.selected_alpn_protocol(), seen.version()) == ("http/1.1", "TLSv1.3")
    link = connection.transport.get_extra_info("socket")
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    await pool.aclose()
    await until(lambda: port.closed == 1, what="its end seen")


async def test_a_client_of_http_2_gets_http_1(port: Port):
    """It offers both, as browsers do."""
    context = port.authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", port.server.port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.close()


async def test_pipelined_requests_are_answered_in_order(port: Port):
    """As on a plain port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port, ssl=port.authority.client())
    writer.write(
        b"".join(b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d" % (n, n) for n in range(9))
    )
    said = b""
    async with asyncio.timeout(5):
        while said.count(b"HTTP/1.1 200 OK") < 9 or not said.endswith(b"8"):
            said += await reader.read(65_536)
    assert port.asked == [f"/{n}" for n in range(9)]
    writer.close()


async def test_a_client_that_leaves_is_seen(port: Port):
    """Whether it says goodbye or not, and whether it closes the half that it sends on or both."""
    for how in ("abort", "close", "eof"):
        before = port.gone
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port.server.port, ssl=port.authority.client()
        )
        writer.write(b"POST /stream HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        if how == "abort":
            writer.transport.abort()
        elif how == "close":
            writer.close()
        else:
            link = socket.socket(fileno=socket.dup(writer.get_extra_info("socket").fileno()))
            link.shutdown(socket.SHUT_WR)
            link.close()
        await until(lambda before=before: port.gone == before + 1, what=f"{how} seen")
        writer.transport.abort()


async def test_a_cut_stream_is_no_whole_one(port: Port):
    """The other side sees an end without the last chunk."""
    pool = port.pool()
    with pytest.raises(UpstreamError, match="closed"):
        await ask(pool, port.url, "/cut")
    await pool.aclose()


async def test_a_client_that_takes_nothing_is_cut_in_time(port: Port):
    """After an answer that ends its connection, as on a plain port; until then what is unsent is kept."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port.server.port, ssl=port.authority.client(), limit=1 << 14
    )
    writer.write(b"POST /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    [connection] = port.server._server.server_state.connections
    now = asyncio.get_running_loop().time()
    await until(connection.transport.is_closing, what="closed from this side")
    await asyncio.sleep(0.2)  # the kernel has taken what it will
    connection.check_timeouts(now)
    connection.check_timeouts(now + WRITE_STALL_SECONDS - 1)
    await asyncio.sleep(0.05)
    assert port.server.connections == 1
    connection.check_timeouts(now + WRITE_STALL_SECONDS + 1)
    await until(lambda: port.server.connections == 0, what="cut")
    writer.transport.abort()


async def test_an_answer_that_ends_its_connection_comes_whole(port: Port):
    """To a client who reads slowly, too."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port.server.port, ssl=port.authority.client(), limit=1 << 14
    )
    writer.write(b"POST /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"connection: close" in head
    await asyncio.sleep(0.1)
    assert len(await reader.read()) == LARGE
    writer.close()


async def test_a_new_certificate_is_shown_while_streams_go_on(port: Port):
    """The stream that runs ends as it should; the next connection sees the new one."""
    pool = port.pool()
    streaming = asyncio.create_task(ask(pool, port.url, "/stream"))
    await until(lambda: port.asked == ["/stream"], what="the stream runs")
    other = Authority(port.authority.ca.parent / "other")
    new = other.sign("port")
    for path, target in zip((port.tls._files.paths), new, strict=True):
        path.write_bytes(target.read_bytes())
    port.tls.look()
    port.gate.set()
    assert await streaming == b"data: 1\n\ndata: 2\n\n"
    assert await ask(pool, port.url) == b"hello", "its connection goes on"
    assert "its certificate is refused" in await refusal(port.pool(), port.url)
    renewed = port.pool(CallerFiles(ca=other.ca))
    assert await ask(renewed, port.url) == b"hello"
    await renewed.aclose()
    await pool.aclose()


async def test_plain_http_is_told_that_this_is_https(port: Port):
    """And nothing that it asks is done."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{port.server.port}/echo", content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "https_expected")
    assert port.asked == []
    await until(lambda: port.closed == 1, what="its end seen")


async def test_tls_at_a_plain_port_is_told_by_the_caller():
    """The port answers that this is no HTTP, and closes."""
    server = HttpServer()
    await server.start()
    pool = UpstreamPool(ssl_context=ssl.create_default_context)
    said = await refusal(pool, f"https://127.0.0.1:{server.port}")
    assert said == "it speaks no TLS there: is its URL meant to begin with http://?"
    await server.stop(0)


async def test_noise_is_closed(port: Port, caplog: pytest.LogCaptureFixture):
    """A handshake that is none gets TLS's own alert at most; such are told together, not each."""
    caplog.set_level(logging.WARNING)
    for noise in (b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, b"\x16\x03\x01\0\x05hello", b"\x16" * 9):
        assert len(await port.raw(noise)) < 10
    assert port.asked == []
    told = [one.getMessage() for one in caplog.records if "handshakes failed" in one.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("1 TLS handshakes failed; the last, with 127.0.0.1: ")


async def test_old_versions_are_refused(port: Port):
    """TLS 1.1, by a client that would take it."""
    context = port.authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("127.0.0.1", port.server.port, ssl=context)
    context = port.authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, writer = await asyncio.open_connection("127.0.0.1", port.server.port, ssl=context)
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
    writer.close()


@pytest.mark.parametrize(
    "said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a byte", "a part"]
)
async def test_a_client_that_does_not_shake_hands_is_closed(
    port: Port, monkeypatch: pytest.MonkeyPatch, said: bytes
):
    """In time; nothing of it stays, and others come in beside it."""
    monkeypatch.setattr(tls_door, "HANDSHAKE_SECONDS", 0.3)
    silent = asyncio.create_task(port.raw(said))
    await asyncio.sleep(0.05)
    pool = port.pool()
    assert await ask(pool, port.url) == b"hello"
    await pool.aclose()
    assert not silent.done()
    assert len(await silent) < 10
    assert port.server._door is not None
    await until(lambda: not port.server._door._entering, what="nothing of it stays")


async def test_a_stop_waits_for_no_handshake(tmp_path: Path):
    """Who is on the way in is cut."""
    port = Port(tmp_path)
    await port.server.start()
    connections = [await asyncio.open_connection("127.0.0.1", port.server.port) for _ in range(2)]
    connections[1][1].write(b"\x16\x03\x01")
    await until(lambda: len(port.server._door._entering) == 2, what="both on the way in")
    async with asyncio.timeout(2):
        await port.server.stop(5)
    for reader, writer in connections:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_port_that_stops_refuses_and_ends_what_runs(tmp_path: Path):
    """An answer under way is whole; an idle connection is closed."""
    port = Port(tmp_path)
    await port.server.start()
    pool = port.pool()
    await ask(pool, port.url)
    streaming = asyncio.create_task(ask(pool, port.url, "/stream"))
    await until(lambda: port.asked[-1] == "/stream", what="the stream runs")
    stopping = asyncio.create_task(port.server.stop(5))
    await asyncio.sleep(0.05)
    assert "Connect" in await refusal(port.pool(), port.url)
    port.gate.set()
    assert await streaming == b"data: 1\n\ndata: 2\n\n"
    await stopping
    await pool.aclose()


async def test_connections_that_another_process_accepted_are_counted_out_once(tmp_path: Path):
    """Those that come in, and those that do not: the worker's parent counts on it."""
    port = Port(tmp_path)
    port.server._is_listening = False
    await port.server.start()
    listener = socket.create_server(("127.0.0.1", 0))
    failed = 0
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16nonsense"):
        client = socket.create_connection(listener.getsockname())
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        accepted, _ = listener.accept()
        try:
            await port.server.take(accepted)
        except OSError:
            failed += 1
        client.close()
    await until(lambda: failed + port.closed == 3, what="all counted")
    await asyncio.sleep(0.05)
    assert (failed, port.closed) == (2, 1)
    listener.close()
    await port.server.stop(0)


async def test_only_callers_with_a_certificate_come_in(tmp_path: Path):
    """Mutual TLS: none, a stranger's, an expired one, a good one."""
    port = Port(tmp_path, is_mutual=True)
    good, over = port.authority.sign("router"), port.authority.sign("over", days=-1)
    strange = Authority(tmp_path / "stranger").sign("router")

    def files(pair: Any) -> CallerFiles:
        return CallerFiles(ca=port.authority.ca, certificate=pair[0], key=pair[1])

    async with running(port):
        for pool in (port.pool(), port.pool(files(strange)), port.pool(files(over))):
            assert "tls_client_certificate_file" in await refusal(pool, port.url)
        assert port.asked == []
        pool = port.pool(files(good))
        assert await ask(pool, port.url) == b"hello"
        await pool.aclose()


async def test_what_a_caller_does_not_believe_is_refused(port: Port, tmp_path: Path):
    """An unknown CA, another name, an expired certificate: each says so."""
    refused = "its certificate is refused: "
    unknown = CallerFiles(ca=Authority(tmp_path / "other").ca)
    assert (await refusal(port.pool(unknown), port.url)).startswith(refused)
    assert (await refusal(port.pool(CallerFiles()), port.url)).startswith(refused)
    port.authority.sign("port", hosts=("north.example.org",))
    port.tls.look()
    assert "mismatch" in await refusal(port.pool(), port.url)
    port.authority.sign("port", days=-1)
    port.tls.look()
    assert (await refusal(port.pool(), port.url)) == f"{refused}certificate has expired"


async def test_a_door_that_is_closed_before_its_first_step_lets_go_of_its_listener(tmp_path: Path) -> None:
    """A task that is cancelled before it began runs no `finally`."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    door = tls_door.TlsDoor(Port(tmp_path).tls, asyncio.Protocol)
    door.open(listener)
    door.close()
    await asyncio.sleep(0.05)
    assert listener.fileno() == -1
