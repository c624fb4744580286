"""The fake meter's log: a CSV line every 100 ms, what judges of a run read.

    unix_seconds,site_watts,fake_gpu_0_watts,fake_gpu_1_watts,…

`site_watts` has overhead and host in it; all values have lag and noise in them. A later process appends to
the same file, so that a run with a killed agent is one log with a gap.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

MAX_LOG_BYTES = 64 << 20
"""About 12 hours of a site with 12 GPUs; then the file becomes `<name>.1` and a new one begins."""
_HEAD_BYTES = 65_536


class PowerLog:
    """Appends lines, each flushed."""

    def __init__(self, path: Path, gpu_indices: Sequence[int], *, max_bytes: int = MAX_LOG_BYTES) -> None:
        """Open or go on with the file; one with other columns is put aside as `<name>.1`.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._max_bytes = max_bytes
        columns = ("unix_seconds", "site_watts", *(f"fake_gpu_{index}_watts" for index in gpu_indices))
        self._header = ",".join(columns) + "\n"
        self._last_unix_seconds = 0.0
        self._file = self._open()

    def write(self, unix_seconds: float, site_watts: float, gpu_watts: Sequence[float]) -> None:
        """One line. A clock that was set back repeats the last instant: the log never runs backwards.

        Raises:
            OSError: disk full, or the like.
        """
        self._last_unix_seconds = max(self._last_unix_seconds, unix_seconds)
        gpus = "".join([f",{watts:.1f}" for watts in gpu_watts])
        self._file.write(f"{self._last_unix_seconds:.3f},{site_watts:.1f}{gpus}\n")
        self._file.flush()
        if self._file.tell() >= self._max_bytes:
            self._file.close()
            self._put_aside()
            self._file = self._open()

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def _open(self) -> TextIO:
        if self._path.exists() and self._path.stat().st_size > 0:
            with self._path.open("rb+") as existing:
                head = existing.read(_HEAD_BYTES).split(b"\n", 1)[0] + b"\n"
                if head == self._header.encode():
                    self._cut_half_line(existing.fileno())
                    return self._path.open("a", encoding="ascii")
            self._put_aside()
        log = self._path.open("w", encoding="ascii")
        log.write(self._header)
        log.flush()
        return log

    def _cut_half_line(self, descriptor: int) -> None:
        """A killed process may have left the beginning of a line."""
        size = os.fstat(descriptor).st_size
        tail_at = max(0, size - _HEAD_BYTES)
        tail = os.pread(descriptor, size - tail_at, tail_at)
        end = tail.rfind(b"\n")
        if end >= 0:
            os.ftruncate(descriptor, tail_at + end + 1)

    def _put_aside(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ".1"))
