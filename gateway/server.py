"""A listening port: uvicorn with the protocol of `gateway.protocol`. Several may live in one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.server import Server

from gateway.body_room import MAX_UNFINISHED_BYTES, BodyRoom
from gateway.client_request import ClientRequest, HotHandler, HotRoute
from gateway.cors import CorsPolicy
from gateway.counted_protocol import CountedProtocol
from gateway.errors import error_body
from gateway.known_heads import KnownHeads
from gateway.protocol import HotPathProtocol
from gateway.refusal import HeadRefusal
from gateway.tls_door import TlsDoor
from gateway.tls_renewal import RenewedTls

__all__ = ["ClientRequest", "HotHandler", "HotRoute", "HttpServer", "listen"]

BACKLOG = 4096


class _Server(Server):
    """uvicorn's server without its signal handlers: the process's main owns signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _not_found(scope: Any, _receive: Any, send: Any) -> None:
    """The ASGI application where there is none."""
    if scope["type"] != "http":
        return
    body = error_body(f"There is nothing at {scope['path']}.", type="invalid_request_error", code="not_found")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def listen(
    host: str, port: int, backlog: int = BACKLOG, *, dead_peer_seconds: float | None = None
) -> socket.socket:
    """A listening socket that does not block; `dead_peer_seconds`: see HttpServer.

    Raises:
        OSError: the address cannot be had; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dead_peer_seconds is not None:  # what it accepts inherits this
            milliseconds = round(1000 * dead_peer_seconds)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _never_hot(_method: str, _path: str) -> None:
    return None


class HttpServer:
    """One listening port, or none: then connections that another process accepted are given to `take`.
    Several may live in one process and loop.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        hot: HotRoute = _never_hot,
        host: str = "127.0.0.1",
        port: int = 0,
        head_refusal: HeadRefusal | None = None,
        max_body_bytes: int = 16 << 20,
        max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
        cors: CorsPolicy | None = None,
        allows_half_close: bool = False,
        keep_alive_seconds: int = 75,
        backlog: int = BACKLOG,
        dead_peer_seconds: float | None = None,
        is_listening: bool = True,
        on_lost: Callable[[], None] | None = None,
        tls: RenewedTls | None = None,
    ) -> None:
        """`app` is any ASGI application (None: 404 for all that is not hot); `port` 0 takes a free one.
        `on_lost` is called as each connection ends. `max_unfinished_bytes`: of all bodies that are still
        coming in.

        `cors` is for the hot paths and for refusals; the application adds its own. `allows_half_close`: a
        client that closes its sending half still gets its answer. Without it that is a client gone, which
        between our own hops it always is, and which is noticed a round trip sooner. A peer that acknowledges
        nothing for `dead_peer_seconds` is gone, as one that lost its power is; None: the kernel's quarter of
        an hour.

        `tls`: the port speaks HTTPS alone. A client that closes its sending half is then gone in any case:
        asyncio's TLS has no half that stays open.
        """
        self.host = host
        self.port = port
        self._is_listening = is_listening
        self.body_room = BodyRoom(max_unfinished_bytes)
        protocol = HotPathProtocol if on_lost is None else functools.partial(CountedProtocol, on_lost=on_lost)
        config = uvicorn.Config(
            app or _not_found,
            http=functools.partial(  # type: ignore[arg-type]
                protocol,
                hot=hot,
                max_body_bytes=max_body_bytes,
                known_urls={},
                known_heads=KnownHeads(max_body_bytes),
                body_room=self.body_room,
                head_refusal=head_refusal,
                cors=cors,
                allows_half_close=allows_half_close and tls is None,
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=keep_alive_seconds,
            backlog=backlog,
        )
        self._backlog = backlog
        self._dead_peer_seconds = dead_peer_seconds
        self._server = _Server(config)
        self._door = None if tls is None else TlsDoor(tls, self._make_protocol)
        self._serving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return len(self._server.server_state.tasks)

    @property
    def connections(self) -> int:
        """Open connections, idle ones too."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        listener = None
        if self._is_listening:
            listener = listen(self.host, self.port, self._backlog, dead_peer_seconds=self._dead_peer_seconds)
            self.port = listener.getsockname()[1]
        sockets = [listener] if listener is not None and self._door is None else []
        self._serving = asyncio.create_task(self._server.serve(sockets=sockets))
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise OSError(f"{self.host}:{self.port}: the server ended while it started")
            await asyncio.sleep(0.001)
        if self._door is not None and listener is not None:
            self._door.open(listener)
        self._watching = asyncio.create_task(self._watch())

    async def take(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere; it belongs to this server from now on.

        Raises:
            OSError: it is gone already, or does not come in (`TlsDoor`).
        """
        if self._door is not None:
            await self._door.let_in(connection)
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:
            connection.close()
            raise

    def _make_protocol(self) -> asyncio.Protocol:
        """As uvicorn does for what it accepts itself."""
        make: Callable[..., asyncio.Protocol] = self._server.config.http_protocol_class
        return make(
            config=self._server.config,
            server_state=self._server.server_state,
            app_state=self._server.lifespan.state,
            _loop=None,
        )

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, HotPathProtocol):
                    connection.check_timeouts(now)

    def stop_accepting(self) -> None:
        """Refuse new connections; open ones go on."""
        if self._door is not None:
            self._door.close()
        if self._serving is not None:
            for server in self._server.servers:
                server.close()

    def abort_connections(self) -> None:
        """Cut every connection now, without a final chunk."""
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def stop(self, grace_seconds: float) -> None:
        """Stop accepting, let requests in flight finish for so long, then cut what is left. Idempotent."""
        serving = self._serving
        if serving is None:
            return
        self._serving = None
        if self._watching is not None:
            self._watching.cancel()
        if self._door is not None:
            self._door.close()
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()  # idle ones close, busy ones after their answer
        tasks = list(self._server.server_state.tasks)
        if tasks and grace_seconds > 0:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for task in list(self._server.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0)
        if self._door is not None:
            await self._door.aclose()
        self.abort_connections()
        self._server.force_exit = True
        self._server.should_exit = True
        await serving
