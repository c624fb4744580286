"""The watchdog with real processes: an agent that dies or hangs takes its engines with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from site_agent import leftovers, watchdog
from site_agent.drivers.interface import DriverError
from site_agent.processes import Processes, WatchdogError

AGENT = """
import subprocess, sys, time
from pathlib import Path
from site_agent.processes import Processes

processes = Processes(state_dir=Path(sys.argv[1]), watchdog_seconds=0.5)
processes.open()
engine = subprocess.Popen(
    ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
)
child = int(engine.stdout.readline())
processes.add("engine", engine.pid)
print(engine.pid, child, processes.watchdog_pid, flush=True)
beats = 0
while True:
    processes.beat()
    beats += 1
    if beats == 20:
        print("beaten for twice the watchdog's time", flush=True)
    time.sleep(0.05)
"""
"""An agent with one engine that has a child of its own."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    return leftovers.start_ticks(pid) is not None


@pytest.fixture
def spawned() -> Iterator[list[int]]:
    """Pids (each a group) that are killed whatever the test does."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def agent(tmp_path: Path, spawned: list[int]) -> Iterator[tuple[subprocess.Popen[str], int, int, int]]:
    """(agent, engine, the engine's child, watchdog), all of them running."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    spawned.append(process.pid)
    assert process.stdout is not None
    engine, child, watcher = (int(word) for word in process.stdout.readline().split())
    spawned += [engine, watcher]
    yield process, engine, child, watcher
    process.kill()
    process.wait()
    process.stdout.close()


def test_an_agent_killed_with_9_takes_its_engines_and_their_children_with_it(
    agent: tuple[subprocess.Popen[str], int, int, int],
) -> None:
    """The pipe ends; the whole process group is killed, and the watchdog ends too."""
    process, engine, child, watcher = agent
    assert is_alive(child)
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(engine) and not is_alive(child), "engine and child dead")
    wait_for(lambda: not is_alive(watcher), "watchdog ended")


def test_an_agent_that_hangs_loses_its_engines(
    agent: tuple[subprocess.Popen[str], int, int, int],
) -> None:
    """Stopped, not dead: the pipe stays open, but no line comes."""
    process, engine, child, watcher = agent
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: not is_alive(engine) and not is_alive(child), "engine and child dead")
    wait_for(lambda: not is_alive(watcher), "watchdog ended")


def test_a_machine_that_stands_still_costs_no_engine(
    agent: tuple[subprocess.Popen[str], int, int, int],
) -> None:
    """Agent and watchdog stopped for longer than the watchdog's time, as in a paused machine, the watchdog
    going on first."""
    process, engine, child, watcher = agent
    os.kill(watcher, signal.SIGSTOP)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # the pause itself: three times the watchdog's time
    os.kill(watcher, signal.SIGCONT)
    time.sleep(0.2)  # the watchdog has looked at the clock, the agent has not spoken yet
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("beaten")
    assert is_alive(watcher)
    assert is_alive(engine)
    assert is_alive(child)


def test_an_agent_that_beats_keeps_its_engines(agent: tuple[subprocess.Popen[str], int, int, int]) -> None:
    """Signals from a terminal do not end the watchdog either."""
    process, engine, child, watcher = agent
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    wait_for(lambda: _ignores(watcher, numbers), "the watchdog is up")
    for number in numbers:
        os.kill(watcher, number)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("beaten")
    assert is_alive(watcher)
    assert is_alive(engine)
    assert is_alive(child)


def _ignores(pid: int, numbers: tuple[signal.Signals, ...]) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return all(mask >> (number - 1) & 1 for number in numbers)


def test_a_watchdog_that_is_killed_is_replaced_and_told_everything(
    tmp_path: Path, spawned: list[int]
) -> None:
    """The engines stay watched."""
    processes = Processes(state_dir=tmp_path, watchdog_seconds=30)
    processes.open()
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    spawned.append(engine.pid)
    processes.add("engine", engine.pid)
    first = processes.watchdog_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not is_alive(first), "watchdog dead")
    processes.beat()
    second = processes.watchdog_pid
    assert second is not None
    assert second != first
    assert processes.watchdog_restarts == 1
    assert processes._watchdog is not None
    assert processes._watchdog.stdin is not None
    processes._watchdog.stdin.close()  # as if the agent had died
    engine.wait(15)
    assert engine.returncode == -signal.SIGKILL
    processes._watchdog.wait(15)


def test_a_watchdog_that_reads_no_more_is_replaced(tmp_path: Path) -> None:
    """One that was stopped by a signal takes 55 minutes of heartbeats into its pipe before that is full."""
    processes = Processes(state_dir=tmp_path, watchdog_seconds=0.6)
    processes.open()
    first = processes.watchdog_pid
    assert first is not None

    def beat() -> int:
        processes.beat()
        return processes._read_bytes

    wait_for(beat, "the first line is read")
    os.kill(first, signal.SIGSTOP)

    def is_replaced() -> bool:
        processes.beat()
        return processes.watchdog_restarts == 1

    wait_for(is_replaced, "another watchdog")
    assert processes.watchdog_pid != first
    assert not is_alive(first)
    wait_for(beat, "the other one reads")
    assert processes.watchdog_restarts == 1
    processes.close()


def test_a_process_that_cannot_be_noted_is_ended(tmp_path: Path, spawned: list[int]) -> None:
    """A full disk: no next agent would find it. The start has failed, and the agent goes on."""
    (tmp_path / "pids").write_text("no directory")
    processes = Processes(state_dir=tmp_path, watchdog_seconds=30)
    processes.open()
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    spawned.append(engine.pid)
    with pytest.raises(DriverError, match="engine: it cannot be noted"):
        processes.add("engine", engine.pid)
    assert engine.wait(15) == -signal.SIGKILL
    assert processes.groups == {}
    processes.close()


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_released_watchdog_kills_what_the_agent_has_not_stopped(
    tmp_path: Path, spawned: list[int], is_gone: bool
) -> None:
    """And nothing that it has, as that number may be another's by then."""
    processes = Processes(state_dir=tmp_path, watchdog_seconds=30)
    processes.open()
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    spawned.append(engine.pid)
    processes.add("engine", engine.pid)
    if is_gone:
        processes.remove(engine.pid)
    watcher = processes.watchdog_pid
    assert watcher is not None
    processes.close()
    processes.close()
    assert not is_alive(watcher)
    assert is_alive(engine.pid) is is_gone
    engine.kill()
    engine.wait()


def test_without_a_watchdog_there_is_no_heartbeat(tmp_path: Path) -> None:
    """An agent must not believe that its engines are watched."""
    with pytest.raises(WatchdogError, match="never started"):
        Processes(state_dir=tmp_path, watchdog_seconds=3).beat()


def test_what_is_removed_is_neither_watched_nor_noted(tmp_path: Path, spawned: list[int]) -> None:
    """A pid may be somebody else's soon."""
    processes = Processes(state_dir=tmp_path, watchdog_seconds=30)
    processes.open()
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    spawned.append(engine.pid)
    processes.add("engine", engine.pid)
    assert processes.groups == {engine.pid: "engine"}
    processes.remove(engine.pid)
    assert processes.groups == {}
    assert not list((tmp_path / leftovers.PIDS_DIRECTORY).iterdir())
    assert processes._watchdog is not None
    assert processes._watchdog.stdin is not None
    processes._watchdog.stdin.close()
    processes._watchdog.wait(15)
    assert is_alive(engine.pid)
    engine.kill()
    engine.wait()


def test_patience_ends_after_its_seconds_of_silence() -> None:
    """Counted from the last word."""
    patience = watchdog.Patience(3.0, 100.0)
    patience.hear(101.0)
    now = 101.0
    while now < 103.9:
        now += patience.sleep(now)
        assert patience.wake(now) == (now >= 104.0)
    while not patience.wake(now):
        now += patience.sleep(now)
    assert now == 104.0


def test_patience_gives_a_moment_after_a_standstill_and_only_so_many() -> None:
    """A watchdog that wakes late grants a second, three times in one silence; a word renews them."""
    patience = watchdog.Patience(3.0, 100.0)
    for round_start in (100.0, 200.0):
        patience.hear(round_start)
        now = round_start
        for _ in range(watchdog.MAX_GRACES):
            now += patience.sleep(now) + 5.0
            assert not patience.wake(now)
        now += patience.sleep(now) + 5.0
        assert patience.wake(now)


def test_lines_come_in_any_pieces_and_nonsense_is_ignored() -> None:
    """Whatever is in the pipe, group 0 and 1 are never killed."""
    watch = watchdog.Watch()
    for piece in (b"+ 1", b"23\n+ 45", b"6\n", b"- 123\n+ 1\n+ 0\n+ -5\n+ x\n\xff\n", b"x" * 100_000):
        watch.feed(piece)
    assert watch.groups == {456}
    assert not watch.is_released
    watch.feed(b"\nbye\n")
    assert watch.is_released
