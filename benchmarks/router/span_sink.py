"""Takes what the router's spans are posted as, and says thanks: `python -m benchmarks.router.span_sink PORT`.

Heron with all of its requests traced, and with one in a hundred, as rows of the comparison.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

from benchmarks.router.heron import HERON, launch
from benchmarks.router.peers import Launch, Peer, Place
from benchmarks.router.process import free_ports, running


class _Thanks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Nothing: it would be most of the work."""


def _launch(place: Place, stack: ExitStack, ratio: float) -> Launch:
    """The sink on the load's core, as a collector is another machine's."""
    (port,) = free_ports(1)
    command = [sys.executable, "-P", "-m", "benchmarks.router.span_sink", str(port)]
    stack.enter_context(running(command, core=place.load_core, log=place.directory / "sink.log"))
    launched = launch(place, stack)
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(ratio),
    }
    return replace(launched, environ={**launched.environ, **asked})


HERON_SPANS = Peer(
    name="heron-spans", launch=lambda place, stack: _launch(place, stack, 1.0), version=HERON.version
)
HERON_SPANS_SAMPLED = Peer(
    name="heron-spans-1%", launch=lambda place, stack: _launch(place, stack, 0.01), version=HERON.version
)

if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), _Thanks).serve_forever()
