"""Pid files and leftovers with real processes: what an earlier agent left is killed, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from site_agent import leftovers
from site_agent.leftovers import LeftoverError, ProcessMark


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own with a child."""
    process = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def mark_of(process: subprocess.Popen[bytes]) -> ProcessMark:
    ticks = leftovers.start_ticks(process.pid)
    assert ticks is not None
    return ProcessMark(label="engine", pid=process.pid, start_ticks=ticks, boot_id=leftovers.boot_id())


def write(state_dir: Path, mark: ProcessMark) -> Path:
    path = state_dir / leftovers.PIDS_DIRECTORY / f"{mark.pid}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(mark)))
    return path


def test_a_leftover_is_killed_with_its_group(tmp_path: Path, engine: subprocess.Popen[bytes]) -> None:
    """And its pid file is gone."""
    leftovers.write_mark(tmp_path, "engine", engine.pid)
    assert leftovers.stop_leftovers(tmp_path) == ["engine"]
    engine.wait(10)
    assert leftovers.group_members(engine.pid) == []
    assert not list((tmp_path / leftovers.PIDS_DIRECTORY).iterdir())
    assert leftovers.stop_leftovers(tmp_path) == []


def test_children_whose_leader_is_gone_are_killed_too(
    tmp_path: Path, engine: subprocess.Popen[bytes]
) -> None:
    """The kernel gives the group's number to nobody else while they live."""
    leftovers.write_mark(tmp_path, "engine", engine.pid)
    deadline = time.monotonic() + 10
    while len(leftovers.group_members(engine.pid)) < 2:  # the shell has not started its child yet
        assert time.monotonic() < deadline
    engine.kill()
    engine.wait()
    assert leftovers.group_members(engine.pid)
    assert leftovers.stop_leftovers(tmp_path) == ["engine"]
    assert leftovers.group_members(engine.pid) == []


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}, {"pid": 1}])
def test_another_process_with_the_same_pid_is_left_alone(
    tmp_path: Path, engine: subprocess.Popen[bytes], change: dict[str, int | str]
) -> None:
    """A pid alone proves nothing."""
    path = write(tmp_path, replace(mark_of(engine), **change))  # type: ignore[arg-type]
    assert leftovers.stop_leftovers(tmp_path) == []
    assert leftovers.start_ticks(engine.pid) is not None
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": "x"}', "\x00"])
def test_a_broken_pid_file_is_ignored(tmp_path: Path, text: str) -> None:
    """Said in the log, and removed."""
    path = tmp_path / leftovers.PIDS_DIRECTORY / "1.json"
    path.parent.mkdir()
    path.write_text(text)
    assert leftovers.stop_leftovers(tmp_path) == []
    assert not path.exists()


def test_a_process_that_has_ended_is_not_noted(tmp_path: Path) -> None:
    """There is nothing to stop."""
    process = subprocess.Popen(["true"])
    process.wait()
    leftovers.write_mark(tmp_path, "engine", process.pid)
    assert not (tmp_path / leftovers.PIDS_DIRECTORY).exists()


def test_one_agent_per_site(tmp_path: Path) -> None:
    """A second one says who has the lock; after the first has closed it, it is free."""
    first = leftovers.take_lock(tmp_path)
    with pytest.raises(LeftoverError, match=f"pid {os.getpid()}"):
        leftovers.take_lock(tmp_path)
    first.close()
    leftovers.take_lock(tmp_path).close()


def test_a_name_that_is_no_text_hides_nothing(tmp_path: Path, engine: subprocess.Popen[bytes]) -> None:
    """The kernel cuts names at 15 bytes, in the midst of a letter too; any process here may have one."""
    odd = tmp_path / "аналитика-ветра"
    odd.symlink_to("/bin/sleep")
    other = subprocess.Popen([str(odd), "600"])
    try:
        assert b"\xd0)" in Path(f"/proc/{other.pid}/stat").read_bytes()
        assert engine.pid in leftovers.group_members(engine.pid)
        assert leftovers.start_ticks(other.pid) is not None
    finally:
        other.kill()
        other.wait()


def test_a_pid_file_that_says_nothing_is_kept_for_a_person(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be all that is known of an engine; it does not keep the agent from its start."""
    directory = tmp_path / leftovers.PIDS_DIRECTORY
    directory.mkdir()
    (directory / "77.json").write_bytes(b'{"label": "north-0", "pi\xff')
    assert leftovers.stop_leftovers(tmp_path) == []
    assert [one.name for one in directory.iterdir()] == ["77.bad"]
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert leftovers.stop_leftovers(tmp_path) == []


def test_a_pid_file_that_cannot_be_read_is_not_forgotten(tmp_path: Path) -> None:
    """An engine may run that nobody governs: the agent says so, and does not start."""
    unreadable = tmp_path / leftovers.PIDS_DIRECTORY / "77.json"
    unreadable.mkdir(parents=True)
    with pytest.raises(LeftoverError, match=r"77\.json: .*see that the engine is gone"):
        leftovers.stop_leftovers(tmp_path)
    assert unreadable.exists()
