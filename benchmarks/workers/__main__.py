"""What workers cost and how evenly they share: CPU per request with 1, 2 and 4, and each one's part.

.venv/bin/python -m benchmarks.workers --seconds 5

CPU is user + system of the router's processes, parent included. Clients and site run on the same cores, so
requests/s say nothing about scaling unless there are cores to spare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from benchmarks.workers.load import ClosedLoop
from cli.ports import free_ports
from fleet.redis_server import find_redis_server

CONNECTIONS = 64
SETTLE_SECONDS = 1.0
"""Of load before it is measured."""
GOAL_CPU_RATIO = 1.1
GOAL_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run."""

    workers: int
    is_kept: bool
    """A connection serves many requests; else one each."""
    requests_per_second: float
    cpu_us_per_request: float
    parent_cpu_us_per_request: float
    worst_share: float
    """How far the worker with the most or the fewest requests is from its even part, as a ratio."""
    faults: int


def cpu_seconds(pid: int) -> float:
    """User + system of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def running(*command: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process for as long as the block lasts."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ready_workers(client: httpx.AsyncClient) -> list[int]:
    """The workers' pids once all serve; empty where the router is one process."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    return [one["pid"] for one in await states(client)]
            await asyncio.sleep(0.1)


async def states(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """What the router says of its workers."""
    page: dict[str, Any] = (await client.get("/heron/v1/fleet")).json()
    return list(page.get("workers", ()))


async def measure(directory: Path, *, workers: int, is_kept: bool, seconds: float) -> Row:
    """One router from start to end."""
    redis_port, port, operations, site_port = free_ports(4)
    url = f"redis://127.0.0.1:{redis_port}/0"
    config = directory / "fleet.toml"
    config.write_text(
        f'[fleet]\nredis_url = "{url}"\n[router]\nport = {port}\noperations_port = {operations}\n'
        f"workers = {workers}\nshutdown_grace_seconds = 1\n"
    )
    redis = (str(find_redis_server()), "--port", str(redis_port), "--save", "", "--dir", str(directory))
    site = (sys.executable, "-m", "benchmarks.workers.site", str(site_port), url)
    router = (sys.executable, "-m", "cli.main", "router", "--config", str(config))
    async with (
        running(*redis, log=directory / "redis.log"),
        running(*site, log=directory / "site.log"),
        running(*router, log=directory / "router.log") as parent,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{operations}", timeout=10) as client,
    ):
        pids = await ready_workers(client)
        load = ClosedLoop(port, connections=CONNECTIONS, is_kept=is_kept)
        await load.start()
        await asyncio.sleep(SETTLE_SECONDS)
        before = (load.completed, cpu_seconds(parent.pid), sum(map(cpu_seconds, pids)), await states(client))
        await asyncio.sleep(seconds)
        completed = load.completed - before[0]
        parent_cpu = cpu_seconds(parent.pid) - before[1]
        workers_cpu = sum(map(cpu_seconds, pids)) - before[2]
        after = await states(client)
        await load.stop()
    shares = [one["requests"] - then["requests"] for one, then in zip(after, before[3], strict=True)]
    even = sum(shares) / len(shares) if shares else 0
    return Row(
        workers=workers,
        is_kept=is_kept,
        requests_per_second=completed / seconds,
        cpu_us_per_request=(parent_cpu + workers_cpu) / completed * 1e6,
        parent_cpu_us_per_request=parent_cpu / completed * 1e6 if pids else 0.0,
        worst_share=max((abs(share / even - 1) for share in shares), default=0.0),
        faults=load.faults,
    )


def main() -> int:
    """Exit 0 when CPU per request and shares are within the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="per row")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=1, help="rows of one kind; the median is judged")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    print("| workers | connections | requests/s | CPU µs/request | of it the parent | worst share |")
    print("|---|---|---|---|---|---|")
    for is_kept in (True, False):
        for _ in range(options.repeat):
            for workers in options.workers:
                with tempfile.TemporaryDirectory(prefix="heron-workers-") as directory:
                    row = uvloop.run(
                        measure(Path(directory), workers=workers, is_kept=is_kept, seconds=options.seconds)
                    )
                rows.append(row)
                kind = "kept" if is_kept else "one per request"
                print(
                    f"| {workers} | {kind} | {row.requests_per_second:,.0f}"
                    f" | {row.cpu_us_per_request:.1f} | {row.parent_cpu_us_per_request:.1f}"
                    f" | {row.worst_share:+.1%} |",
                    flush=True,
                )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if meets_goals(rows) else 1


def meets_goals(rows: list[Row]) -> bool:
    """Says what does not."""
    is_met = True
    for is_kept in (True, False):
        kind = [row for row in rows if row.is_kept is is_kept]
        by_workers = {
            row.workers: sorted(one.cpu_us_per_request for one in kind if one.workers == row.workers)
            for row in kind
        }
        medians = {workers: values[len(values) // 2] for workers, values in by_workers.items()}
        one = medians.get(1)
        for workers, value in medians.items():
            if is_kept and one is not None and value > GOAL_CPU_RATIO * one:
                print(f"{workers} workers: {value / one:.2f} × the CPU of one, goal {GOAL_CPU_RATIO}")
                is_met = False
        for row in kind:
            if row.worst_share > GOAL_SHARE or row.faults:
                print(f"{row.workers} workers: share {row.worst_share:+.0%}, {row.faults} faults")
                is_met = False
    return is_met


if __name__ == "__main__":
    sys.exit(main())
