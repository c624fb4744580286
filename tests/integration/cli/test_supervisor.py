"""The supervisor with real processes: order, readiness, death, restart, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import kill_all_with, pids_with
from support.wait import until

from cli import supervisor as supervision
from cli.ports import free_ports
from cli.supervisor import Service, StartError, Supervisor

SERVER = """
import http.server, os, signal, subprocess, sys
name, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if how == "broken":
    print("cannot find my configuration", flush=True)
    sys.exit(3)
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    def stop(*_):
        print("stopping", name, flush=True)
        with open(os.environ["EVENTS"], "a") as events: events.write(f"stop {name}\\n")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
if how == "parent":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if how == "unready" else 200)
        self.end_headers()
        self.wfile.write(b"not yet" if how == "unready" else b"ok")
    def log_message(self, *_): pass
with open(os.environ["EVENTS"], "a") as events: events.write(f"start {name}\\n")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def free_port() -> int:
    return free_ports(1)[0]


def service(name: str, how: str = "plain", **keywords: float) -> Service:
    port = free_port()
    return Service(
        name=name,
        arguments=(sys.executable, "-c", SERVER, name, str(port), how),
        ready_url=f"http://127.0.0.1:{port}/readyz",
        stop_grace_seconds=keywords.get("stop_grace_seconds", 10.0),
        ready_timeout_seconds=keywords.get("ready_timeout_seconds", 30.0),
        is_heron=False,
    )


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """`NAME=value` in the environment of everything the test starts."""
    text = f"TEST_OF_HERON={tmp_path}"
    yield text
    kill_all_with(text)


def supervisor(
    tmp_path: Path, marker: str, *stages: list[Service], restart: bool = False
) -> tuple[Supervisor, list[str]]:
    name, _, value = marker.partition("=")
    said: list[str] = []
    environment = {**os.environ, name: value, "EVENTS": str(tmp_path / "events")}
    made = Supervisor(
        stages, log_directory=tmp_path, environment=environment, report=said.append, restart=restart
    )
    return made, said


def events(tmp_path: Path) -> list[str]:
    return (tmp_path / "events").read_text().split("\n")[:-1]


async def test_a_fleet_that_runs_already_is_not_started_again(tmp_path: Path, marker: str) -> None:
    """Its answers would be taken for those of what was just started, whose port is taken."""
    agent = service("agent")
    first, _ = supervisor(tmp_path, marker, [agent])
    await first.start()
    second, _ = supervisor(tmp_path, marker, [agent])
    with pytest.raises(StartError, match=r"answers before agent was started: does this fleet run already\?"):
        await second.start()
    await second.stop()
    assert events(tmp_path) == ["start agent"], "and the one that runs is left alone"
    await first.stop()


async def test_stages_stop_in_reverse(tmp_path: Path, marker: str) -> None:
    """What others wait for starts first; stopping goes stage by stage the other way, and leaves nothing."""
    redis = replace(service("redis"), is_awaited=True)
    made, said = supervisor(
        tmp_path, marker, [redis], [service("agent a"), service("agent b")], [service("router")]
    )
    await made.start()
    await made.stop()
    log = events(tmp_path)
    assert (log[0], log[4], log[7]) == ("start redis", "stop router", "stop redis")
    assert sorted(log[1:4]) == ["start agent a", "start agent b", "start router"]
    assert sorted(log[5:7]) == ["stop agent a", "stop agent b"]
    assert pids_with(marker) == []
    assert said == []


async def test_a_service_that_ends_while_starting_is_shown_with_its_log(tmp_path: Path, marker: str) -> None:
    """The error has the name, the exit code and the end of the log; what was started already is stopped."""
    made, _ = supervisor(tmp_path, marker, [service("redis"), service("router", "broken")])
    with pytest.raises(StartError, match=r"(?s)router ended with exit code 3 .*cannot find my configuration"):
        await made.start()
    await made.stop()
    assert pids_with(marker) == []


async def test_a_service_that_never_gets_ready_is_given_up(tmp_path: Path, marker: str) -> None:
    """The error says what the readiness URL answered last."""
    made, _ = supervisor(tmp_path, marker, [service("router", "unready", ready_timeout_seconds=1.0)])
    with pytest.raises(StartError, match=r"router was not ready within 1 s \(it answers 503: not yet\)"):
        await made.start()
    await made.stop()
    assert pids_with(marker) == []


async def test_a_service_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path, marker: str) -> None:
    """Beyond the grace the whole process group gets SIGKILL."""
    made, _ = supervisor(
        tmp_path, marker, [service("stubborn", "stubborn", stop_grace_seconds=0.2), service("p", "parent")]
    )
    await made.start()
    assert len(pids_with(marker)) == 3
    await made.stop()
    assert pids_with(marker) == []


async def test_an_unexpected_death_is_reported_once(tmp_path: Path, marker: str) -> None:
    """Without restart a death is reported with its exit code, counted, and nothing else happens."""
    made, said = supervisor(tmp_path, marker, [service("router")])
    await made.start()
    made.child("router").kill()
    await until(lambda: said, what="the report")
    assert made.unexpected_deaths == {"router": 1}
    assert said[0].startswith("router ended with exit code -9")
    await made.stop()
    assert len(said) == 1


async def test_a_service_that_died_is_restarted(
    tmp_path: Path, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With restart the service comes back by itself, after a back-off that is said."""
    monkeypatch.setattr(supervision, "FIRST_BACK_OFF_SECONDS", 0.05)
    made, said = supervisor(tmp_path, marker, [service("router")], restart=True)
    await made.start()
    first = made.child("router").pid
    made.child("router").kill()
    await until(lambda: events(tmp_path).count("start router") == 2, seconds=30, what="the restart")
    assert made.child("router").pid != first
    assert any("started again" in line for line in said)
    await made.stop()
    assert pids_with(marker) == []


async def test_an_expected_death_is_no_fault_and_can_be_mended(tmp_path: Path, marker: str) -> None:
    """What a scenario kills is not reported, stays dead until it is started again, and is watched again."""
    made, said = supervisor(tmp_path, marker, [service("agent")], restart=True)
    await made.start()
    made.expect_death("agent")
    made.child("agent").kill()
    await made.child("agent").wait()
    await made.restart_service("agent")
    assert made.child("agent").is_running
    assert (said, made.unexpected_deaths) == ([], {})
    await made.stop()
    assert pids_with(marker) == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_nothing_outlives_a_killed_parent(tmp_path: Path, marker: str, loop: str) -> None:
    """`kill -9` of the process that runs the supervisor takes every child with it."""
    name, _, value = marker.partition("=")
    code = f"""
import asyncio, os, sys, uvloop
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
import test_supervisor as t
async def run():
    made, _ = t.supervisor(Path({str(tmp_path)!r}), {marker!r}, [t.service("a"), t.service("b")])
    await made.start()
    print("up", flush=True)
    await asyncio.Event().wait()
{loop}.run(run())
"""
    tests = str(Path(__file__).parents[2])
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, name: value, "PYTHONPATH": tests},
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    assert len(pids_with(marker)) == 3
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: pids_with(marker) == [], what="the end of every child")
    assert pids_with(marker) == []
