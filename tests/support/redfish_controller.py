"""A stub of a management controller that speaks Redfish, with one system."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SYSTEM = "/redfish/v1/Systems/1"


class Controller:
    """`state` is its PowerState; every request is kept in `asked` as (method, path, body)."""

    def __init__(self, on_reset: Callable[[bool], None] = lambda _on: None) -> None:
        """`on_reset(on)` is called in a thread of the server, before the answer."""
        self.state = "On"
        self.asked: list[tuple[str, str, str]] = []
        self.status = 200
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Quiet."""

            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                if controller.status == 200:
                    is_on = json.loads(body)["ResetType"] == "On"
                    on_reset(is_on)
                    controller.state = "On" if is_on else "Off"
                self._answer(body)

            def _answer(self, body: str) -> None:
                controller.asked.append((self.command, self.path, body))
                raw = json.dumps({"PowerState": controller.state}).encode()
                self.send_response(controller.status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}{SYSTEM}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
