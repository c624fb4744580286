"""CPU of a whole agent beside a busy 70B instance: ingress, governor, meter, scraper, metrics, reports.

    python -m benchmarks.site_agent

The instance is emulated (Llama 3.1 70B on four H100, in a process of its own); agent and feed are `heron`'s
own commands. CPU seconds are the kernel's, of the agent's process alone, so that a busy machine changes them
little. Redis is away: the agent goes on without, and tries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.ports import free_ports
from cli.toml_text import to_toml

ROOT = Path(__file__).parents[2]
GOAL_RATIO = 0.10
"""Of a core, per busy 70B instance."""
START_SECONDS = 60.0
SETTLE_SECONDS = 3.0
OUTPUT_TOKENS = 6000
"""More than come in any window, so that every stream lasts through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One window."""

    streams: int
    tokens_per_second: float
    core_ratio: float
    """CPU seconds of the agent ÷ seconds."""


def main() -> int:
    """1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.site_agent")
    parser.add_argument("--streams", type=int, nargs="+", default=[0, 16, 64, 128])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print("| streams | tokens/s | of a core | µs a token, idle cost off |\n|---|---|---|---|")
    idle, worst = 0.0, 0.0
    for streams in options.streams:
        result = measure(streams, options.seconds)
        if streams == 0:
            idle = result.core_ratio
        each = (
            1e6 * (result.core_ratio - idle) / result.tokens_per_second if result.tokens_per_second else 0.0
        )
        print(
            f"| {streams} | {result.tokens_per_second:.0f} | {result.core_ratio:.1%} | {each:.1f} |",
            flush=True,
        )
        worst = max(worst, result.core_ratio)
    return 1 if worst > GOAL_RATIO else 0


def measure(streams: int, seconds: float) -> Result:
    """A fresh feed and agent, so many streams."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), max(streams, 1)) as (agent, port),
    ):
        return asyncio.run(_window(agent.pid, port, streams, seconds))


@contextmanager
def running(directory: Path, max_concurrency: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Feed and agent up and serving; the agent and its port."""
    feed_port, port, operations, nobody = free_ports(4)
    tables = {
        "fleet": {"redis_url": f"redis://127.0.0.1:{nobody}/0"},
        "sites": [
            {
                "site_id": "north",
                "farm_id": "farm",
                "port": port,
                "operations_port": operations,
                "feed_url": f"http://127.0.0.1:{feed_port}",
                "state_dir": str(directory / "north"),
                "resume_reserve_ratio": 0.0,
                "engine": {"kind": "emulated", "instances": 1, "max_concurrency": max_concurrency},
            }
        ],
        "power_feed": {
            "port": feed_port,
            "farms": [
                {
                    "farm_id": "farm",
                    "site_id": "north",
                    "nameplate_watts": 20_000.0,
                    "source": {"kind": "schedule", "points": [[0.0, 1.0]]},
                }
            ],
        },
    }
    file = directory / "fleet.toml"
    file.write_text(to_toml(tables))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "cli.main", *words, "--config", str(file)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        for words in (["power-feed"], ["site-agent", "--site", "north"])
    ]
    try:
        _wait(f"http://127.0.0.1:{port}/heron/v1/report")
        yield processes[1], port
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(url, trust_env=False).json().get("state") == "serving":
                return
        except (httpx.HTTPError, json.JSONDecodeError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{url}: not serving within {START_SECONDS:g} s")
        time.sleep(0.1)


async def _window(pid: int, port: int, streams: int, seconds: float) -> Result:
    counts = [0] * streams
    begun = [asyncio.get_running_loop().create_future() for _ in range(streams)]
    tasks = [asyncio.create_task(_stream(port, number, counts, begun[number])) for number in range(streams)]
    async with asyncio.timeout(START_SECONDS):
        await asyncio.gather(*begun)
    await asyncio.sleep(SETTLE_SECONDS)
    began_at, cpu, before = time.monotonic(), _cpu_seconds(pid), sum(counts)
    await asyncio.sleep(seconds)
    took = time.monotonic() - began_at
    spent, tokens = _cpu_seconds(pid) - cpu, sum(counts) - before
    if any(task.done() for task in tasks):
        raise SystemExit("a stream ended within the window: what was measured is no steady load")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Result(streams=streams, tokens_per_second=tokens / took, core_ratio=spent / took)


async def _stream(port: int, number: int, counts: list[int], begun: asyncio.Future[None]) -> None:
    body = json.dumps(
        {
            "model": "llama-3.1-70b",
            "prompt": f"{number} " + "wind " * 500,
            "max_tokens": OUTPUT_TOKENS,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    try:
        while data := await reader.read(65_536):
            counts[number] += data.count(b"data: {")
            if counts[number] and not begun.done():
                begun.set_result(None)
    finally:
        writer.close()


def _cpu_seconds(pid: int) -> float:
    """User and system time of the process with its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
