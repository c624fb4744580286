"""One proxy in one round: requests at full load, latency at one connection, paced streams.

The load generator and the upstream share one core, the proxy has the other. Latency is compared with that of
the upstream itself, taken a moment before, so that a change of the machine's mood hits both.
"""

from __future__ import annotations

import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.router import load
from benchmarks.router.peers import Launch, Peer, Place
from benchmarks.router.process import Clocks, Process, free_ports, running
from benchmarks.router.programs import native
from benchmarks.router.table import Sample

SITES = 5
CONNECTIONS = 64
PERIOD_US = 10_000
START_SECONDS = 90.0
"""LiteLLM takes 15 s on an idle machine."""
WARM_UP_SECONDS = 0.5
STREAM_WARM_UP_SECONDS = 1.5
STREAM_SPARE_SECONDS = 0.5
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the whole campaign runs."""

    proxy_core: int | str
    load_core: int
    seconds: float
    use_keys: bool = False
    workers: int = 1
    upstream_core: int | None = None
    """Of the upstream; None: it shares the load's."""


class NotReadyError(RuntimeError):
    """A proxy did not give the right answer in time."""


@contextmanager
def upstream(
    setting: Setting, *, period_us: int = PERIOD_US, count: int = SITES, fault_every: int = 0
) -> Iterator[list[int]]:
    """The fast upstream; its ports. Each `fault_every`th request meets a fault; 0: none does."""
    ports = free_ports(count)
    with tempfile.TemporaryDirectory(prefix="heron-bench-") as name:
        command: list[str | Path] = [native("upstream"), str(period_us), *map(str, ports)]
        environ = {"UPSTREAM_FAULT_EVERY": str(fault_every)}
        core = setting.load_core if setting.upstream_core is None else setting.upstream_core
        with running(command, core=core, log=Path(name) / "upstream.log", environ=environ) as process:
            _wait(process, ports[0])
            yield ports


@contextmanager
def proxy(
    peer: Peer, setting: Setting, upstream_ports: list[int], *, soft_files: int | None = None
) -> Iterator[tuple[Process, Place]]:
    """A proxy that answers rightly; `soft_files` is its soft limit of open files, if not the harness's.

    Raises:
        MissingError: it is not installed.
        NotReadyError: it gave no right answer in time; its last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="heron-bench-") as name, ExitStack() as stack:
        place = Place(
            directory=Path(name),
            port=_port_pair(),
            upstream_ports=upstream_ports,
            proxy_core=setting.proxy_core,
            load_core=setting.load_core,
            use_keys=setting.use_keys,
            workers=setting.workers,
        )
        launch: Launch = peer.launch(place, stack)
        log = place.directory / "proxy.log"
        limit = [] if soft_files is None else ["prlimit", f"--nofile={soft_files}:"]
        process = stack.enter_context(
            running([*limit, *launch.command], core=setting.proxy_core, log=log, environ=launch.environ)
        )
        _wait(process, place.port)
        time.sleep(launch.settle_seconds)
        yield process, place


def _port_pair() -> int:
    """A free port with a free one after it."""
    while True:
        (port,) = free_ports(1)
        if port < 65_535 and _is_free(port + 1):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait(process: Process, port: int) -> None:
    give_up = time.monotonic() + START_SECONDS
    content = load.body()
    headers = {"content-type": "application/json", "authorization": f"Bearer {load.API_KEY}"}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", content, headers, method="POST"
    )
    why = "no answer"
    while time.monotonic() < give_up and process.is_alive:
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
                if answer.read().count(b"~") == load.ANSWER_TOKENS:
                    return
                why = "a wrong answer"
        except (OSError, urllib.error.HTTPError) as error:
            why = str(error)
        time.sleep(0.05)
    raise NotReadyError(f"{why}\nits last words:\n{process.last_words()}")


def direct(setting: Setting, ports: list[int]) -> Sample:
    """The upstream itself: what the load generator and it can do on one core."""
    full = requests(setting, ports[0], CONNECTIONS)
    return Sample(
        requests_per_second=full.requests / full.seconds, errors=full.errors, first_error=full.first_error
    )


def one(peer: Peer, setting: Setting, ports: list[int]) -> Sample:
    """One proxy, started for this and ended after it."""
    with proxy(peer, setting, ports) as (process, place):
        full = requests(setting, place.port, CONNECTIONS, process)
        base = requests(setting, ports[0], 1)
        single = requests(setting, place.port, 1)
        streamed = paced_streams(setting, place.port, peer.streams, process)
        memory = process.memory_bytes()
        runs = (full, single, streamed)
        return Sample(
            requests_per_second=full.requests / full.seconds,
            cpu_us_per_request=1e6 * full.cpu_seconds / full.requests if full.requests else None,
            cpu_us_per_chunk=1e6 * streamed.cpu_seconds / streamed.chunks if streamed.chunks else None,
            added_latency_us_p50=single.p50_us - base.p50_us,
            added_latency_us_p99=single.p99_us - base.p99_us,
            memory_mib=memory / MIB,
            chunk_late_us_p99=streamed.p99_us,
            waited_ratio=(full.waited_seconds + streamed.waited_seconds) / (full.seconds + streamed.seconds),
            errors=sum(run.errors for run in runs),
            first_error=next((run.first_error for run in runs if run.first_error), ""),
        )


def requests(
    setting: Setting,
    port: int,
    connections: int,
    process: Process | None = None,
    *,
    is_kept: bool = True,
    clocks: Callable[[], Clocks] | None = None,
) -> load.Load:
    """So many connections in closed loop; not `is_kept`: each request on a new one. `clocks` instead
    of those of `process`."""
    return load.run(
        "requests",
        port=port,
        core=setting.load_core,
        connections=connections,
        warm_up_seconds=WARM_UP_SECONDS,
        seconds=setting.seconds,
        content=load.body(),
        is_kept=is_kept,
        clocks=clocks or (process.clocks if process is not None else Clocks),
    )


def paced_streams(setting: Setting, port: int, count: int, process: Process | None = None) -> load.Load:
    """So many streams at once, one chunk each 10 ms; all are open for the whole window."""
    seconds = STREAM_WARM_UP_SECONDS + setting.seconds + STREAM_SPARE_SECONDS
    tokens = round(seconds * 1e6 / PERIOD_US)
    return load.run(
        "streams",
        port=port,
        core=setting.load_core,
        connections=count,
        warm_up_seconds=STREAM_WARM_UP_SECONDS,
        seconds=setting.seconds,
        content=load.body(stream_tokens=tokens),
        tokens=tokens,
        period_us=PERIOD_US,
        clocks=process.clocks if process is not None else Clocks,
    )
