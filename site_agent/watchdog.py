"""A small process beside the agent that kills the engines when the agent dies or hangs (DESIGN §7).

Standard library only, and no other module of Heron, so that it starts at once and has nothing to fail on. It
reads lines from its standard input, a pipe whose other end only the agent holds:

    + <group>     this process group must die with the agent
    - <group>     it is gone
    .             the agent is alive
    bye           the agent has stopped its engines itself; end without killing

The end of the pipe, or no line for `--seconds`, is death: every group is killed. Signals
from a terminal do not end it; it ends with the pipe.

A machine that stands still (a virtual machine that is paused, seen here for 3 s at a time) silences a healthy
agent, but the watchdog too: one that wakes late gives the agent a moment to speak before it judges.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time

KILL_ROUNDS = 5
"""SIGKILL cannot be caught; the further rounds are for a group that was just being made."""
KILL_PAUSE_SECONDS = 0.02
MAX_LINE_BYTES = 4096
SLICE_SECONDS = 0.25
"""The watchdog looks at the clock so often, to know whether it stood still itself."""
LATE_SECONDS = 0.5
"""Woken so much later than asked for, it stood still, and so did the agent."""
GRACE_SECONDS = 1.0
"""For the agent to speak after that: it beats ten times a second."""
MAX_GRACES = 3
"""In one silence; a machine so busy that the watchdog is always late must not hide a dead agent."""
EXIT_KILLED = 3
"""The agent was dead or hung, and its engines were killed."""


class Watch:
    """The groups to kill, from the lines of the agent."""

    def __init__(self) -> None:
        self.groups: set[int] = set()
        self.is_released = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes of the pipe. A line that is not understood says at least that the agent lives."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:MAX_LINE_BYTES]
        for line in lines:
            order, _, number = line.partition(b" ")
            if order == b"bye":
                self.is_released = True
            elif order in (b"+", b"-") and number.isdigit() and int(number) > 1:
                (self.groups.add if order == b"+" else self.groups.discard)(int(number))


class Patience:
    """How long the agent may still be silent. Times are one monotonic clock's, in seconds."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._wakes_at = now
        self.hear(now)

    def hear(self, now: float) -> None:
        """The agent said something."""
        self._ends_at = now + self._seconds
        self._graces = 0

    def sleep(self, now: float) -> float:
        """How long to listen before the next `wake`."""
        seconds = max(0.0, min(SLICE_SECONDS, self._ends_at - now))
        self._wakes_at = now + seconds
        return seconds

    def wake(self, now: float) -> bool:
        """Nothing was heard up to now; True once the agent counts as dead."""
        if now - self._wakes_at > LATE_SECONDS and self._graces < MAX_GRACES:
            self._graces += 1
            self._ends_at = max(self._ends_at, now + GRACE_SECONDS)
        return now >= self._ends_at


def kill_groups(groups: set[int]) -> None:
    """SIGKILL every group."""
    for _ in range(KILL_ROUNDS):
        for group in sorted(groups):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or another user's by now
                os.killpg(group, signal.SIGKILL)
        time.sleep(KILL_PAUSE_SECONDS)


def main() -> int:
    """Watch until the pipe ends."""
    parser = argparse.ArgumentParser(description="Kills a site agent's engines when the agent dies or hangs.")
    parser.add_argument("--seconds", type=float, required=True, help="silence that counts as death")
    seconds = parser.parse_args().seconds
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    source = sys.stdin.fileno()
    watch = Watch()
    patience = Patience(seconds, time.monotonic())
    while not watch.is_released:
        readable, _, _ = select.select([source], [], [], patience.sleep(time.monotonic()))
        if not readable:
            if patience.wake(time.monotonic()):
                kill_groups(watch.groups)
                return EXIT_KILLED
            continue
        data = os.read(source, 65_536)
        if not data:
            kill_groups(watch.groups)
            return EXIT_KILLED
        patience.hear(time.monotonic())
        watch.feed(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
