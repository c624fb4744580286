"""One child process in a process group of its own, its output in a log file, tied to our life.

Rule: whatever happens, `stop` returns with the whole group gone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import site_agent.tether

TETHER = Path(site_agent.tether.__file__)
MAX_LOG_BYTES = 64 << 20
"""A log larger than this is kept once as `.1` and started anew."""
TAIL_BYTES = 16 << 10


class ChildProcess:
    """Started once; a restart is a new object."""

    def __init__(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._argv = tuple(argv)
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._is_gone = False

    async def start(self) -> None:
        """Launch it.

        Raises:
            OSError: the interpreter or the log file cannot be opened.
        """
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *self._argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self._process is None else self._process.returncode

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def wait(self) -> int:
        """Until it ends; its exit code."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def kill(self) -> None:
        """`kill -9` of this process alone, as an accident would; its own children are not touched."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL to the whole group once it has ended or the grace is over. Idempotent."""
        if self._process is None or self._is_gone:
            return
        try:
            if self.is_running:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGTERM)
                async with asyncio.timeout(grace_seconds):
                    await self.wait()
        except TimeoutError:
            pass  # the group is killed below
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        await self.wait()
        self._is_gone = True  # from now on the number may be another program's

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for an error message."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def rotate_log(self) -> None:
        """Keep the log bounded: beyond MAX_LOG_BYTES it is copied to `.1` and emptied (appends go on)."""
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(self.log_path, self.log_path.with_name(self.log_path.name + ".1"))
                os.truncate(self.log_path, 0)
