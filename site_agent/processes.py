"""The agent's end of the watchdog's pipe, and the pid files: who must die with the agent.

Rule: a process group is noted (pipe, then file) before anything else happens with it; one that cannot be
noted is killed. A watchdog that ended is replaced at once and told every group anew; where that fails, the
agent must stop its engines.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

from site_agent import leftovers, watchdog
from site_agent.drivers.interface import DriverError

logger = logging.getLogger(__name__)

BYE_TIMEOUT_SECONDS = 5.0
FIRST_READ_SECONDS = 15.0
"""A watchdog reads at once; on a busy machine it takes a while to get there."""
DEAF_BEATS = 10
"""So many must lie unread too: a machine that stood still gives its watchdog a moment to catch up."""


class WatchdogError(Exception):
    """No watchdog can be had; engines may not run."""


class Processes:
    """Implements `site_agent.drivers.interface.ProcessRegistry`."""

    def __init__(self, *, state_dir: Path, watchdog_seconds: float) -> None:
        self._state_dir = state_dir
        self._seconds = watchdog_seconds
        self._groups: dict[int, str] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.watchdog_restarts = 0
        self._written_bytes = 0
        self._read_bytes = 0
        """Of those, what the watchdog was seen to have read."""
        self._read_at = 0.0
        self._unread_beats = 0

    @property
    def groups(self) -> dict[int, str]:
        """Process group → label."""
        return dict(self._groups)

    @property
    def watchdog_pid(self) -> int | None:
        return None if self._watchdog is None else self._watchdog.pid

    def open(self) -> None:
        """Start the watchdog.

        Raises:
            WatchdogError: it cannot be started.
        """
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, "--seconds", str(self._seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise WatchdogError(f"the watchdog process cannot be started: {error}") from None
        assert self._watchdog.stdin is not None
        os.set_blocking(self._watchdog.stdin.fileno(), False)
        self._written_bytes = self._read_bytes = self._unread_beats = 0
        self._read_at = time.monotonic()
        for group in sorted(self._groups):
            self._tell(f"+ {group}\n")

    def add(self, label: str, pid: int) -> None:
        """See ProcessRegistry."""
        self._groups[pid] = label
        self._tell(f"+ {pid}\n")
        try:
            leftovers.write_mark(self._state_dir, label, pid)
        except OSError as error:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self.remove(pid)
            why = f"{label}: it cannot be noted in {self._state_dir} ({error}), and was ended again"
            raise DriverError("failed", why) from None

    def remove(self, pid: int) -> None:
        """See ProcessRegistry."""
        if self._groups.pop(pid, None) is not None:
            self._tell(f"- {pid}\n")
            try:
                leftovers.remove_mark(self._state_dir, pid)
            except OSError as error:  # the next agent sees that the process is gone
                logger.warning("a pid file stays behind: %s", error)

    def beat(self) -> None:
        """Say that the agent lives; replace a watchdog that ended, or reads no more.

        Raises:
            WatchdogError: there is none and none can be started.
        """
        if self._watchdog is None:
            raise WatchdogError("the watchdog was never started")
        if self._is_deaf(self._watchdog):
            logger.error("the watchdog reads nothing; killing it")
            self._watchdog.kill()
            self._watchdog.wait()
        status = self._watchdog.poll()
        if status is not None:
            self.watchdog_restarts += 1
            logger.error("the watchdog ended; starting another", extra={"exit_status": status})
            self._close_pipe()
            self.open()
        self._tell(".\n")

    def close(self) -> None:
        """Release the watchdog: the engines have been stopped; those that have not it kills. Idempotent."""
        process, self._watchdog = self._watchdog, None
        if process is None:
            return
        assert process.stdin is not None
        try:
            if not self._groups:
                os.write(process.stdin.fileno(), b"bye\n")
            process.stdin.close()
            process.wait(BYE_TIMEOUT_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("the watchdog did not end by itself; killed", extra={"error": repr(error)})
            process.kill()
            process.wait()

    def _is_deaf(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has read nothing for `watchdog_seconds`: stopped by a signal, for example."""
        assert process.stdin is not None
        answer = fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, bytes(4))
        unread = int.from_bytes(answer, sys.byteorder)
        read, now = self._written_bytes - unread, time.monotonic()
        if not unread or read > self._read_bytes:
            self._read_bytes, self._read_at, self._unread_beats = read, now, 0
            return False
        self._unread_beats += 1
        patience = self._seconds if self._read_bytes else max(self._seconds, FIRST_READ_SECONDS)
        return self._unread_beats > DEAF_BEATS and now - self._read_at > patience

    def _tell(self, line: str) -> None:
        """A pipe that is full or closed means a watchdog that hangs or is gone: `beat` replaces it."""
        process = self._watchdog
        if process is None or process.poll() is not None:
            return
        assert process.stdin is not None
        try:
            self._written_bytes += os.write(process.stdin.fileno(), line.encode())
        except OSError:
            logger.exception("the watchdog takes no more lines; killing it")
            process.kill()
            process.wait()

    def _close_pipe(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
