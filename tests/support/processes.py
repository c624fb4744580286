"""Which processes belong to a run: found by a marker in their environment, whoever started them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def pids_with(marker: str) -> list[int]:
    """Living processes (this one excepted) that have `marker`, `NAME=/a/directory`, in their environment.

    Or whose working directory is below that one: redis-server writes its title over its environment.
    """
    directory = Path(marker.partition("=")[2])
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            environment = (process / "environ").read_bytes().split(b"\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            is_ours = marker.encode() in environment or (process / "cwd").readlink().is_relative_to(directory)
            if is_ours and state not in "ZX":
                found.append(int(process.name))
    return sorted(found)


def kill_all_with(marker: str) -> None:
    """End what a failed test may have left, so that it cannot disturb the next."""
    for pid in pids_with(marker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
