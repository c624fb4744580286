"""Nothing stays behind: Ctrl-C, SIGTERM and `kill -9`, of `heron demo` and of `heron up`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tomllib
import urllib.request
from pathlib import Path

import pytest
from support.heron_command import HERON
from support.processes import pids_with
from support.wait import until

from cli.ports import free_ports
from cli.toml_text import to_toml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

START_SECONDS = 60.0
PROCESSES = 13
"""The demo, Redis, the feed, the router; and three times an agent, its watchdog, its fake hardware."""


async def started(
    arguments: list[str], environment: dict[str, str], said: str
) -> tuple[asyncio.subprocess.Process, list[str]]:
    """Start a command and return once its output has `said`."""
    process = await asyncio.create_subprocess_exec(
        *HERON,
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(START_SECONDS):
        while not any(said in line for line in lines):
            line = await process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line.decode())
    return process, lines


async def test_ctrl_c_ends_a_demo_with_its_summary(
    environment: dict[str, str], marker: str, tmp_path: Path
) -> None:
    """Ctrl-C in mid-load: exit 130, the summary of what was done, every process gone, the directory too."""
    out = tmp_path / "out.json"
    process, _ = await started(
        ["demo", "--headless", "--seconds", "600", "--rate", "10", "--scenario", "calm", "--json", str(out)],
        environment,
        " completed ",
    )
    assert len(pids_with(marker)) == PROCESSES
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == 130, output.decode()
    values = json.loads(out.read_text())
    assert values["lost"] == 0
    assert values["problems"] == []
    assert pids_with(marker) == []
    assert list((tmp_path / "run directories").iterdir()) == []


async def test_the_lines_that_a_demo_prints_work_while_it_runs(
    environment: dict[str, str], marker: str, tmp_path: Path
) -> None:
    """The curl line streams an answer, the Python line prints one; the summary counts them apart."""
    out = tmp_path / "out.json"
    process, lines = await started(
        ["demo", "--headless", "--seconds", "600", "--rate", "10", "--scenario", "calm", "--json", str(out)],
        environment,
        " completed ",
    )
    curl = next(line for line in lines if line.lstrip().startswith("curl "))
    python = next(line for line in lines if "from openai import OpenAI" in line)
    answers = []
    for line in (curl, python):
        command = await asyncio.create_subprocess_shell(
            line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        answers.append((await command.communicate())[0].decode())
        assert command.returncode == 0, line
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert answers[0].rstrip().endswith("data: [DONE]")
    assert len(answers[1].split()) == 20
    assert json.loads(out.read_text())["other_clients_requests"] == 2


async def test_ctrl_c_while_starting_is_quiet(environment: dict[str, str], marker: str) -> None:
    """Ctrl-C before anything is ready: exit 130, no traceback, nothing left."""
    process, _ = await started(["demo", "--headless", "--scenario", "calm"], environment, "logs:")
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in output
    assert pids_with(marker) == []


async def test_a_killed_demo_leaves_no_process(environment: dict[str, str], marker: str) -> None:
    """`kill -9` of the demo: routers, agents, watchdogs, engines, feed and Redis all end with it."""
    process, _ = await started(
        ["demo", "--headless", "--seconds", "600", "--rate", "10", "--scenario", "calm"],
        environment,
        "in flight",
    )
    process.kill()
    await process.communicate()
    await until(lambda: pids_with(marker) == [], seconds=20, what="the end of every process")
    assert pids_with(marker) == []


def fleet_file(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """`heron up`'s own example on free ports, one site of it, in a directory with a space."""
    example = tomllib.loads((Path(__file__).parents[2] / "cli" / "example_fleet.toml").read_text())
    redis, router, operations, feed, site, site_operations = free_ports(6)
    example["fleet"]["redis_url"] = f"redis://127.0.0.1:{redis}/0"
    example["router"] |= {"port": router, "operations_port": operations}
    example["power_feed"]["port"] = feed
    example["power_feed"]["farms"] = [
        example["power_feed"]["farms"][0] | {"source": {"kind": "schedule", "points": [[0.0, 0.6]]}}
    ]
    directory = tmp_path / "a fleet"
    directory.mkdir()
    example["sites"] = [
        example["sites"][0]
        | {
            "port": site,
            "operations_port": site_operations,
            "feed_url": f"http://127.0.0.1:{feed}",
            "state_dir": str(directory / "state"),
        }
    ]
    path = directory / "fleet.toml"
    path.write_text(to_toml(example))
    return path, {"router": router, "operations": operations}


def running(marker: str, subcommand: str) -> int:
    """The pid of one of the run's services."""
    for pid in pids_with(marker):
        if subcommand.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no {subcommand} is running")


def fetched(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        value: dict[str, object] = json.load(answer)
        return value


async def test_up_serves_restarts_what_dies_and_stops_in_order(
    environment: dict[str, str], marker: str, tmp_path: Path
) -> None:
    """A fleet from one file: it answers, a killed feed comes back, SIGTERM ends it all with exit 0."""
    path, ports = fleet_file(tmp_path)
    process, _ = await started(["up", "--config", str(path)], environment, "up: http://")
    models = f"http://127.0.0.1:{ports['router']}/v1/models"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while not (await asyncio.to_thread(fetched, models))["data"]:
        assert loop.time() < deadline, "the site's model did not appear"
    os.kill(running(marker, "power-feed"), signal.SIGKILL)
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        while b"power-feed is started again" not in await process.stdout.readline():
            assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"stopped" in output
    assert pids_with(marker) == []
