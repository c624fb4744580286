"""What TLS costs the router: CPU time a request, a chunk and a new connection, memory; beside plain HTTP.

.venv/bin/python -m benchmarks.router.tls [--rounds N]

Three routers of one process each run side by side: plain at both ends, TLS to clients, TLS to clients and to
the site (mutual). They are loaded in turn, round for round; the medians are printed, with what each is to the
plain one. The keys are of the kind `ec` (P-256) or, with `--rsa`, RSA of 2,048 bits. Needs `openssl`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.router.process import cpu_seconds, proportional_bytes
from fleet.config import FleetConfig
from fleet.memory_store import MemoryStore
from fleet.records import ModelReport, SiteReport
from gateway.client_request import ClientRequest
from gateway.server import HttpServer
from gateway.tls import CallerFiles, PortFiles
from gateway.tls_renewal import RenewedTls
from gateway.upstream import Origin, UpstreamPool
from router.app import Router
from router.config import RouterConfig

MODEL = "bench"
BODY = b'{"model":"bench","messages":[{"role":"user","content":"%b"}],"stream":%b}' % (b"wind " * 200, b"%b")
ANSWER = b'{"choices":[{"message":{"content":"%b"},"finish_reason":"stop"}]}' % (b"word " * 100)
CHUNK = b'data: {"choices":[{"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
CONNECTIONS, REQUESTS = 8, 2000
STREAMS, CHUNKS, CHUNK_SECONDS = 16, 250, 0.01
HANDSHAKES = 150
IDLE_BEFORE, IDLE = 50, 400
CELLS = {"plain": (False, False), "tls": (True, False), "tls+site": (True, True)}
PAIR = ("pair.pem", "pair.key")
"""One certificate for all, which signs itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One router under load."""

    pid: int
    origin: Origin
    calls: RenewedTls


def files(directory: Path) -> tuple[PortFiles, CallerFiles]:
    """Of a port that asks for a certificate, and of its callers."""
    certificate, key = (directory / name for name in PAIR)
    return (
        PortFiles(certificate=certificate, key=key, client_ca=certificate),
        CallerFiles(ca=certificate, certificate=certificate, key=key),
    )


async def site(directory: Path, *, is_tls: bool) -> None:
    """Answers at once, or a chunk each `CHUNK_SECONDS`; until killed."""

    async def answer(request: ClientRequest) -> None:
        if b'"stream":true' not in request.body:
            request.respond(200, [(b"content-type", b"application/json")], ANSWER)
            return
        request.start(200, [(b"content-type", b"text/event-stream")])
        for _ in range(CHUNKS):
            request.write(CHUNK)
            await asyncio.sleep(CHUNK_SECONDS)
        request.write(LAST)
        request.finish()

    tls = RenewedTls("site", files(directory)[0]) if is_tls else None
    server = HttpServer(hot=lambda _method, _path: answer, tls=tls)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


async def route(directory: Path, site_url: str, *, is_tls: bool) -> None:
    """A router with that site, until killed."""
    port, calls = files(directory)
    store = MemoryStore(clock=time.monotonic)
    config = RouterConfig(
        port=0,
        operations_port=0,
        log_level="error",
        tls_certificate_file=port.certificate if is_tls else None,
        tls_key_file=port.key if is_tls else None,
    )
    fleet = FleetConfig(
        tls_ca_file=calls.ca,
        tls_client_certificate_file=calls.certificate,
        tls_client_key_file=calls.key,
    )
    router = Router(fleet, config, store)
    await router.start()
    print(router.port, flush=True)
    sequence = time.time_ns() // 1_000_000
    while True:
        sequence += 1
        report = SiteReport(
            agent_id="agent",
            sequence=sequence,
            site_id="site",
            observed_at_unix_seconds=time.time(),
            ingress_url=site_url,
            state="serving",
            models=(ModelReport(model=MODEL, ready_instances=1, max_concurrency=512, headroom_requests=512),),
        )
        await store.publish_site_report("site", report.to_json(), time.time())
        await asyncio.sleep(1.0)


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[tuple[int, int]]:
    """A process of this module; its pid and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.router.tls", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def _ask(pool: UpstreamPool, cell: Cell, stream: bytes) -> None:
    response = await pool.send(
        cell.origin, "POST", "/v1/chat/completions", [], BODY % stream, first_byte_timeout_seconds=30
    )
    try:
        body = await response.read(1 << 20)
        assert response.status == 200, body
    finally:
        response.close()


def _pool(cell: Cell) -> UpstreamPool:
    return UpstreamPool(connect_timeout_seconds=10, ssl_context=lambda: cell.calls.context)


async def requests(cell: Cell) -> float:
    """CPU seconds of the router for each of many requests, over a few connections."""
    pool = _pool(cell)

    async def some(count: int) -> None:
        for _ in range(count):
            await _ask(pool, cell, b"false")

    await asyncio.gather(*(some(20) for _ in range(CONNECTIONS)))
    before = cpu_seconds(cell.pid)
    await asyncio.gather(*(some(REQUESTS // CONNECTIONS) for _ in range(CONNECTIONS)))
    used = cpu_seconds(cell.pid) - before
    await pool.aclose()
    return used / REQUESTS


async def chunks(cell: Cell) -> float:
    """The same for each chunk of streams side by side."""
    pool = _pool(cell)
    before = cpu_seconds(cell.pid)
    await asyncio.gather(*(_ask(pool, cell, b"true") for _ in range(STREAMS)))
    used = cpu_seconds(cell.pid) - before
    await pool.aclose()
    return used / (STREAMS * CHUNKS)


async def connections(cell: Cell) -> float:
    """The same for a request that comes by a connection of its own."""
    before = cpu_seconds(cell.pid)
    for _ in range(HANDSHAKES):
        pool = _pool(cell)
        await _ask(pool, cell, b"false")
        await pool.aclose()
    return (cpu_seconds(cell.pid) - before) / HANDSHAKES


async def idle_bytes(cell: Cell) -> float:
    """Memory of the router for each connection that stays open behind its request; the first time only."""
    pools = [_pool(cell) for _ in range(IDLE_BEFORE + IDLE)]
    before = 0
    for index, pool in enumerate(pools):
        if index == IDLE_BEFORE:
            before = proportional_bytes(cell.pid)
        await _ask(pool, cell, b"false")
    used = proportional_bytes(cell.pid) - before
    for pool in pools:
        await pool.aclose()
    return used / IDLE


MEASURES: dict[str, Callable[[Cell], Awaitable[float]]] = {
    "request": requests,
    "chunk": chunks,
    "request on a new connection": connections,
}


async def measure(directory: Path, rounds: int) -> None:
    """Print the table."""
    with contextlib.ExitStack() as stack:
        sites = {
            is_tls: stack.enter_context(child("--site", str(directory), scheme(is_tls)))[1]
            for is_tls in (False, True)
        }
        cells = {}
        for name, (is_tls, is_site_tls) in CELLS.items():
            url = f"{scheme(is_site_tls)}://127.0.0.1:{sites[is_site_tls]}"
            pid, port = stack.enter_context(child("--router", str(directory), scheme(is_tls), url))
            cells[name] = Cell(
                pid=pid,
                origin=Origin.parse(f"{scheme(is_tls)}://127.0.0.1:{port}"),
                calls=RenewedTls("load", files(directory)[1]),
            )
        await asyncio.sleep(3.0)  # a site counts as fresh once it has reported twice
        for name, cell in cells.items():
            print(f"{'idle connection':28} {name:9} {await idle_bytes(cell) / 1024:7.1f} KiB", flush=True)
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for what, take in MEASURES.items():
                for name, cell in cells.items():
                    found.setdefault((what, name), []).append(await take(cell))
        for what in MEASURES:
            plain = statistics.median(found[what, "plain"])
            for name in CELLS:
                values = found[what, name]
                middle = statistics.median(values)
                spread = f"{1e6 * min(values):.0f}–{1e6 * max(values):.0f}"
                print(f"{what:28} {name:9} {1e6 * middle:7.1f} µs ({spread})  {middle / plain:.2f}")


def scheme(is_tls: bool) -> str:
    return "https" if is_tls else "http"


def make_pair(directory: Path, *, is_rsa: bool) -> None:
    """By openssl."""
    kind = ("rsa:2048",) if is_rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=bench", "-newkey", *kind]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-out", str(directory / PAIR[0]), "-keyout", str(directory / PAIR[1])]
    subprocess.run(command, check=True, capture_output=True)


def main(arguments: list[str]) -> int:
    """Exit 0."""
    if arguments[:1] == ["--site"]:
        uvloop.run(site(Path(arguments[1]), is_tls=arguments[2] == "https"))
    elif arguments[:1] == ["--router"]:
        uvloop.run(route(Path(arguments[1]), arguments[3], is_tls=arguments[2] == "https"))
    else:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.router.tls", description=__doc__)
        parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
        parser.add_argument("--rsa", action="store_true", help="keys of 2,048 bits, not P-256")
        options = parser.parse_args(arguments)
        with tempfile.TemporaryDirectory(prefix="heron-tls-") as name:
            make_pair(Path(name), is_rsa=options.rsa)
            uvloop.run(measure(Path(name), options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
