"""The way of a connection into a port that speaks TLS: its first byte, the handshake, then HTTP as ever.

Rule: a client that says nothing, or shakes hands slowly, holds a socket and a timer, and both end. Its first
byte is looked at before anything is made for it. Where that is none of TLS it is told so, in plain HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from gateway.errors import error_body
from gateway.protocol import HotPathProtocol
from gateway.tls_renewal import RenewedTls

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
"""From the connection's beginning to its end."""
GOODBYE_SECONDS = 3600.0
"""asyncio cuts a connection so long after it was closed here, what is still unsent too: longer than any
answer takes. `client_timeouts` cuts one whose client takes nothing."""
TELL_SECONDS = 60.0
"""Between two lines of the log about handshakes that failed."""
ACCEPT_PAUSE_SECONDS = 0.02
"""When there are no descriptors left: clients wait in the kernel's backlog."""
_HANDSHAKE = 22
"""The first byte of a TLS connection: a record's type."""
_PLAIN = error_body(
    "This port speaks HTTPS: begin its URL with https://", type="invalid_request_error", code="https_expected"
)


class TlsDoor:
    """One per port."""

    def __init__(self, tls: RenewedTls, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._tls = tls
        self._make_protocol = make_protocol
        self._entering: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._failures = 0
        """Since they were last told."""
        self._told_at = float("-inf")

    def open(self, listener: socket.socket) -> None:
        """Accept from now on; the listener belongs to this door."""
        self._accepting = asyncio.create_task(self._accept(listener))
        self._accepting.add_done_callback(lambda _task: listener.close())  # also where it never began

    def close(self) -> None:
        """Accept no more; who is on the way in goes on."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    async def aclose(self) -> None:
        """And cut who is still on the way in."""
        self.close()
        for task in self._entering:
            task.cancel()
        await asyncio.gather(*self._entering, return_exceptions=True)

    async def let_in(self, connection: socket.socket) -> None:
        """Shake hands; then it is a connection of the server's like any other.

        Raises:
            OSError: it did not come in: no TLS, too slow, refused, or gone. It is closed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + HANDSHAKE_SECONDS
        peer = "a client that is gone"
        try:
            peer = str(connection.getpeername()[0])
            if await self._first_byte(connection, until) != _HANDSHAKE:
                await self._turn_away(connection)
                return
            await loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._tls.context,
                ssl_handshake_timeout=max(0.1, until - loop.time()),
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                self._note(peer, error)
            raise

    async def _first_byte(self, connection: socket.socket, until: float) -> int:
        """It stays where it is."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        come: asyncio.Future[None] = loop.create_future()
        descriptor = connection.fileno()
        loop.add_reader(descriptor, _end, come)
        try:
            async with asyncio.timeout_at(until):
                await come
        finally:
            loop.remove_reader(descriptor)
        first = connection.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionResetError("closed before a word was said")
        return first[0]

    async def _turn_away(self, connection: socket.socket) -> None:
        """Say in plain HTTP what is wrong; nothing that it asks is looked at."""
        protocol = self._make_protocol()
        assert isinstance(protocol, HotPathProtocol)
        protocol.is_refused = True
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        protocol.refuse(400, _PLAIN)

    def _note(self, peer: str, error: OSError) -> None:
        """One line a minute at the most: the whole internet knocks at open ports."""
        if isinstance(error, ConnectionResetError | TimeoutError):
            return
        self._failures += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TELL_SECONDS:
            logger.warning(
                "%d TLS handshakes failed; the last, with %s: %s",
                self._failures,
                peer,
                getattr(error, "reason", None) or error,
            )
            self._told_at, self._failures = now, 0

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                logger.error("cannot accept a connection: %s", error)  # noqa: TRY400 -- no descriptors left
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._enter(connection))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self.let_in(connection)
        except OSError as error:
            logger.debug("a connection did not come in: %s", error)


def _end(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)
