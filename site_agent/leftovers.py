"""Pid files of the engines, and stopping what an earlier agent left behind.

An ungoverned engine may not run (DESIGN §7): an agent that starts kills leftovers before anything else. A pid
alone proves nothing, since pids are used again; boot and start time must agree as well.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

PIDS_DIRECTORY = "pids"
LOCK_FILE = "agent.lock"
KILL_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.02
_DEAD = (b"Z", b"X")


class LeftoverError(Exception):
    """Another agent runs, or a leftover would not die; the message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """What tells one process from a later one with the same pid."""

    label: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/<pid>/stat."""
    boot_id: str


def boot_id() -> str:
    """Changes with every boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None: there is none, or it is a zombie."""
    fields = _stat(Path(f"/proc/{pid}"))
    return None if fields is None or fields[0] in _DEAD else int(fields[19])


def group_members(group: int) -> list[int]:
    """Pids of a process group's members that are alive."""
    members = []
    for entry in Path("/proc").iterdir():
        fields = _stat(entry) if entry.name.isdigit() else None
        if fields is not None and int(fields[2]) == group and fields[0] not in _DEAD:
            members.append(int(entry.name))
    return members


def _stat(entry: Path) -> list[bytes] | None:
    """What follows the name, which may hold anything, in /proc/<pid>/stat; None: no process of ours."""
    try:
        return (entry / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def take_lock(state_dir: Path) -> IO[str]:
    """Hold the site's lock for as long as the returned file is open: one agent per site and machine.

    Raises:
        LeftoverError: another agent has it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    file = (state_dir / LOCK_FILE).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read(32).strip() or "unknown"
        file.close()
        raise LeftoverError(
            f"{state_dir}: another site agent (pid {owner}) runs with this state_dir; stop it, or give this "
            "site a state_dir of its own"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def write_mark(state_dir: Path, label: str, pid: int) -> None:
    """Note that `pid` leads a process group that must not outlive the agent."""
    ticks = start_ticks(pid)
    if ticks is None:
        return  # it has ended already
    mark = ProcessMark(label=label, pid=pid, start_ticks=ticks, boot_id=boot_id())
    directory = state_dir / PIDS_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{pid}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(mark)))
    partial.replace(path)


def remove_mark(state_dir: Path, pid: int) -> None:
    """The group is gone."""
    (state_dir / PIDS_DIRECTORY / f"{pid}.json").unlink(missing_ok=True)


def stop_leftovers(state_dir: Path) -> list[str]:
    """Kill the process groups that an earlier agent of this site noted, wait until they are gone, name them.

    Blocks for at most KILL_TIMEOUT_SECONDS each; run before the event loop has work.

    A file that says nothing is kept as `.bad`, for a person.

    Raises:
        LeftoverError: one is still there, or a file cannot be read.
    """
    directory = state_dir / PIDS_DIRECTORY
    stopped = []
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
        mark = _read_mark(path)
        if mark is not None and _is_ours(mark):
            logger.warning(
                "an engine was left behind by an earlier agent; killing it",
                extra={"label": mark.label, "pid": mark.pid},
            )
            _kill_group(mark)
            stopped.append(mark.label)
        if mark is None:
            path.replace(path.with_suffix(".bad"))
        else:
            path.unlink(missing_ok=True)
    return stopped


def _read_mark(path: Path) -> ProcessMark | None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LeftoverError(
            f"{path}: {error.strerror}: it names an engine that an earlier agent may have left; make it "
            "readable for this user, or see that the engine is gone and remove the file"
        ) from None
    try:
        values = json.loads(text)
        return ProcessMark(
            label=str(values["label"]),
            pid=int(values["pid"]),
            start_ticks=int(values["start_ticks"]),
            boot_id=str(values["boot_id"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        about = {"path": str(path), "error": repr(error)}
        logger.error("a pid file is damaged, kept as .bad: look for an engine left behind", extra=about)  # noqa: TRY400
        return None


def _is_ours(mark: ProcessMark) -> bool:
    """Whether the group still is the one that was noted.

    While a group has members the kernel gives its number to no new process. So a group whose leader is gone
    is the old one, unless its members are all older than the mark.
    """
    if mark.pid <= 1 or mark.boot_id != boot_id():
        return False
    ticks = start_ticks(mark.pid)
    if ticks is not None:
        return ticks == mark.start_ticks
    starts = [start_ticks(pid) for pid in group_members(mark.pid)]
    return any(start is not None and start >= mark.start_ticks for start in starts)


def _kill_group(mark: ProcessMark) -> None:
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while group_members(mark.pid):
        try:
            os.killpg(mark.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:
            raise LeftoverError(
                f"{mark.label} (pid {mark.pid}) of an earlier agent runs as another user; stop it by hand"
            ) from None
        if time.monotonic() > deadline:
            raise LeftoverError(
                f"{mark.label} (pid {mark.pid}) of an earlier agent does not die; stop it by hand "
                "(a GPU driver that hangs needs a reboot)"
            )
        time.sleep(POLL_SECONDS)
