"""Wake-on-LAN: a UDP packet starts a server that has standby power. It cannot stop one, so a command does.

The packet: six bytes of 0xFF, then the network card's address sixteen times (AMD's "Magic Packet Technology",
publication 20213). Nobody answers it; the state of the server is not known by this way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from power_feed.servers.interface import ServerDriverError

OFF_TIMEOUT_SECONDS = 10.0
SSH_FAILED = 255
PACKETS = 3
"""Nobody acknowledges them, and one may be lost."""


def magic_packet(mac: str) -> bytes:
    """For an address such as `00:1a:2b:3c:4d:5e`.

    Raises:
        ValueError: it is none.
    """
    address = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(address) != 6:
        raise ValueError(f"{mac!r} is no network card's address: six pairs of hex digits are expected")
    return b"\xff" * 6 + address * 16


class WakeOnLanServer:
    """Implements `ServerDriver`."""

    def __init__(
        self, mac: str, *, broadcast: str, port: int, off_command: Sequence[str], off_seconds: float
    ) -> None:
        """`off_command`: a program and its arguments, never a shell line; so long after it has ended with 0
        the power is gone. Raises ValueError.
        """
        self._packet = magic_packet(mac)
        self._to = (broadcast, port)
        self._off_command = tuple(off_command)
        self._off_seconds = off_seconds
        self._is_on: bool | None = None

    async def is_on(self) -> bool | None:
        """False after an off command that succeeded, until a packet is sent; else not known."""
        return self._is_on

    async def switch(self, *, on: bool) -> None:
        """Send the packet; or run the command and wait until the power is gone.

        Raises:
            ServerDriverError: the network refused, or the command failed or took too long.
        """
        if on:
            self._wake()
            self._is_on = None
        else:
            await self._stop()
            await asyncio.sleep(self._off_seconds)
            self._is_on = False

    async def aclose(self) -> None:
        """Nothing is held."""

    def _wake(self) -> None:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.setblocking(False)
                for _ in range(PACKETS):
                    sender.sendto(self._packet, self._to)
        except OSError as error:
            raise ServerDriverError(f"wake-on-lan to {self._to[0]}: {error}") from None

    async def _stop(self) -> None:
        name = self._off_command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._off_command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            raise ServerDriverError(f"off_command {name}: {error.strerror}") from None
        try:
            async with asyncio.timeout(OFF_TIMEOUT_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            raise ServerDriverError(
                f"off_command {name}: not done within {OFF_TIMEOUT_SECONDS:g} s"
            ) from None
        if code == SSH_FAILED:
            raise ServerDriverError(
                f"off_command {name}: ended with {code}, as ssh does where it had no connection and when the "
                "power went before the answer came: which one is not known. Let the command come back before "
                "it cuts the power (docs/power_feed.md, Switching servers)"
            )
        if code != 0:
            raise ServerDriverError(f"off_command {name}: ended with {code}")
