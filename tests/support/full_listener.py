"""A port that takes no connection and refuses none: what a network looks like that drops a site's packets."""

from __future__ import annotations

import socket
from types import TracebackType


class FullListener:
    """Listens with a backlog that is full: the kernel drops whatever else wants to connect (Linux)."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(0)
        self.port: int = self._socket.getsockname()[1]
        self._waiting: list[socket.socket] = []
        while True:
            client = socket.socket()
            client.settimeout(0.2)
            self._waiting.append(client)
            try:
                client.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Refuse from now on."""
        for client in self._waiting:
            client.close()
        self._socket.close()

    def __enter__(self) -> FullListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
