"""Processes under measurement: started on one core, read from /proc, always ended.

CPU time is read from the kernel's clock of a process (user and system, every thread, in nanoseconds), which
does not round to ticks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.router.programs import REPOSITORY

TETHER = REPOSITORY / "site_agent" / "tether.py"
STOP_SECONDS = 5.0
SCHEDULER_CLOCK = 2
"""CPUCLOCK_SCHED: the kind of a process's clock that counts what the scheduler gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Of a process tree, both only ever growing while its threads live."""

    cpu_seconds: float = 0.0
    """User and system."""
    waited_seconds: float = 0.0
    """Ready to run, and something else had the core: noise of the machine."""


class Process:
    """One program with its children, on one core; its output is in a file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int | str,
        log: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), "taskset", "-c", str(core)]
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [*tether, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env={**os.environ, **(environ or {})},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def clocks(self) -> Clocks:
        """What the tree has used so far, and how long it stood waiting for its core."""
        pids = tree(self.pid)
        return Clocks(
            cpu_seconds=sum(cpu_seconds(pid) for pid in pids),
            waited_seconds=sum(waited_seconds(pid) for pid in pids),
        )

    def memory_bytes(self) -> int:
        """Proportional set size of the tree: shared pages count once."""
        return sum(proportional_bytes(pid) for pid in tree(self.pid))

    def resident_bytes(self) -> int:
        """Resident set size of the tree."""
        return sum(status_bytes(pid, "VmRSS") for pid in tree(self.pid))

    def peak_bytes(self) -> int:
        """Largest resident set of the tree since `forget_peak`: the sum of each process's."""
        return sum(status_bytes(pid, "VmHWM") for pid in tree(self.pid))

    def forget_peak(self) -> None:
        """Let `peak_bytes` begin anew from what is resident now."""
        for pid in tree(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def open_files(self) -> int:
        """File descriptors that the tree has open."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in tree(self.pid))

    def last_words(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the whole tree; returns when it is gone."""
        pids = tree(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_SECONDS)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, core: int | str, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A process for the length of a block."""
    process = Process(command, core=core, log=log, environ=environ)
    try:
        yield process
    finally:
        process.stop()


def run_command(main: Callable[[], int]) -> int:
    """Run one of the commands here. Ctrl-C and SIGTERM end it as an exception does, so that what it started
    ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return main()
    except KeyboardInterrupt:
        print("ended by hand", file=sys.stderr)
        return 128 + signal.SIGINT


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody has now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, in order."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in sorted(Path(f"/proc/{one}/task").iterdir()):
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of one process, 0 where it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | SCHEDULER_CLOCK)
    except OSError:
        return 0.0


def waited_seconds(pid: int) -> float:
    """Time that the threads of a process were ready and did not run."""
    waited = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                waited += waited_nanoseconds((task / "schedstat").read_text())
    return waited / 1e9


def waited_nanoseconds(schedstat: str) -> int:
    """The second of schedstat's fields: run time, wait time, turns."""
    return int(schedstat.split()[1])


def field_bytes(text: str, name: str) -> int:
    """A `Name:  12 kB` line of /proc, in bytes; 0 where there is none."""
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def status_bytes(pid: int, name: str) -> int:
    """A field of /proc/PID/status (VmRSS, VmHWM)."""
    return _read_bytes(Path(f"/proc/{pid}/status"), name)


def proportional_bytes(pid: int) -> int:
    """Pss of one process."""
    return _read_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def _read_bytes(path: Path, name: str) -> int:
    try:
        return field_bytes(path.read_text(), name)
    except OSError:
        return 0
