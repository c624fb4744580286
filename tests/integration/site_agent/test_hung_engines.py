"""Engines that stay behind and engines that hang, through the whole agent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import orjson
import pytest
from support.processes import pids_with
from support.stub_feed import reading, running_feed
from support.wait import until

from site_agent import leftovers
from tests.integration.site_agent.test_agent import (
    FULL_GRANT,
    _read,
    agent_process,
    begin_streams,
    running_agent,
)

ROOT = Path(__file__).parents[3]
STAND_IN = """#!/bin/sh
''''exec "{python}" "$0" "$@" # for Python a string, for sh an exec
'''
import http.server, os, subprocess, sys
if "--help=all" in sys.argv:
    sys.exit(1)
sys.path.insert(0, "{root}")
from site_agent import leftovers
starts = open("{starts}", "a+")
starts.seek(0)
left = [member for line in starts for member in leftovers.group_members(int(line.split()[0]))]
starts.write(f"{{os.getpgrp()}} {{len(left)}}\\n")
starts.close()
subprocess.Popen(["sleep", "600"])
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"data": [{{"max_model_len": 2048}}], "paths": {{}}}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
"""A `vllm` with a child; at its start it notes its group, and how many members of earlier groups live."""


def stand_in(tmp_path: Path) -> tuple[str, Path]:
    """The engine's table, and the file of its starts."""
    starts = tmp_path / "starts"
    command = tmp_path / "vllm"
    command.write_text(STAND_IN.format(python=sys.executable, root=ROOT, starts=starts))
    command.chmod(0o755)
    options = f'kind = "vllm", model = "m", model_path = "hub/m", command = ["{command}"], instances = 1'
    return f"{{ {options}, gpus_per_instance = 0, max_concurrency = 8 }}", starts


def noted(starts: Path) -> list[tuple[int, int]]:
    lines = starts.read_text().splitlines() if starts.exists() else []
    return [(int(group), int(left)) for group, left in (line.split() for line in lines)]


async def test_what_agent_and_watchdog_left_behind_is_gone_before_the_first_start(tmp_path: Path) -> None:
    """Both killed at once, as by the machine when memory ends: the engine's leader goes with its agent, its
    children stay, until the next agent."""
    engine, starts = stand_in(tmp_path)
    async with running_feed() as feed, agent_process(tmp_path, feed, engine=engine, slots=8) as agent:
        [(group, _)] = noted(starts)
        watchdogs = [
            pid for pid in agent.others() if "watchdog.py" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        agent.process.send_signal(signal.SIGSTOP)  # else it would replace the watchdog
        os.kill(watchdogs[0], signal.SIGKILL)
        agent.process.kill()
        await agent.process.wait()
        await until(lambda: leftovers.start_ticks(group) is None, what="the leader has ended")
        assert len(leftovers.group_members(group)) == 1, "its child is left"
        async with agent_process(tmp_path, feed, "2", engine=engine, slots=8):
            [_, (again, left)] = noted(starts)
            assert again != group
            assert left == 0
            assert leftovers.group_members(group) == []
        assert pids_with(agent.marker) == []


async def test_an_engine_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    """SIGSTOP: its port takes connections, and nothing answers."""
    engine, starts = stand_in(tmp_path)
    probes = "{ probe_seconds = 0.2, probe_failures = 2 }"
    async with (
        running_feed() as feed,
        agent_process(tmp_path, feed, engine=engine, slots=8, restart=probes) as agent,
    ):
        [(group, _)] = noted(starts)
        os.killpg(group, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while len(noted(starts)) < 2 or await agent.slots() < 8:
                feed.say(reading(FULL_GRANT))  # else the cap walks down
                await asyncio.sleep(0.2)
        assert noted(starts)[1][1] == 0
        assert leftovers.group_members(group) == []


async def test_emulated_engines_that_hang_lose_their_streams_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of the fake hardware is stopped: engines, GPUs and meter hang together. Its streams break,
    so that routers resume them elsewhere, and the site serves again."""
    restart = {"probe_seconds": 0.2, "probe_failures": 2}
    async with running_agent(tmp_path, monkeypatch, restart=restart) as site:
        await site.until_report({"state": "serving", "ready": 3})
        streams = await begin_streams(site, 6)
        control = orjson.loads((site.state_dir / "fake-hardware.json").read_bytes())
        os.kill(control["pid"], signal.SIGSTOP)
        assert set(await asyncio.gather(*streams)) == {"broken"}
        assert await site.metric('heron_site_engine_faults_total{reason="timeout"') >= 3
        await site.until_report({"state": "serving", "ready": 3}, seconds=60)
        assert leftovers.start_ticks(control["pid"]) is None
        assert await site.metric("heron_site_in_flight_requests") == 0
        assert await site.metric("heron_site_cap_exceeded_seconds_total") == 0
        assert await _read(site, 10) == "complete"
