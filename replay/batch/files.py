"""The files of a batch: the input is checked as a whole before anything is sent; the output only grows, one
whole line at a time, and has one writer.

Rule: what a run was killed at is a line cut short at the end of the output, and nothing else. The next run
cuts it off; lines that are not final are taken out by writing the file anew beside it and renaming.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from replay.batch.ids import MAX_IDS, IdSet
from replay.batch.lines import BadLineError, BatchRequest, numbered_lines, read_line
from replay.batch.records import NotARecordError, is_torn, read_record

MAX_SHOWN_FAULTS = 10
MAX_RECORD_BYTES = 128 << 20
"""The largest answer, with room for what is around it."""
NO_OUTPUT = "this is no output of a batch; give another file"
_WITHOUT_DISK = frozenset({errno.EINVAL, errno.EROFS, errno.ENOTSUP})
"""What fsync says of a pipe or a terminal."""
SKIPPED_AT_ONCE = 256
"""Lines that are done already, after which others get a turn."""


class BatchFileError(Exception):
    """A file cannot be used; the text says which, where, and what to do."""


@dataclass(slots=True)
class Checked:
    """What the first pass over the input found."""

    lines: int = 0
    """Requests, good or bad."""
    kept: int = 0
    """Of them, those that an earlier run has answered."""
    bad_lines: int = 0
    faults: list[str] = field(default_factory=list)
    """The first of the bad lines', each with its number."""


def open_input(path: Path | None) -> BinaryIO:
    """The input, to be read from its beginning as often as need be; None: standard input. What cannot be read
    twice, a pipe, is copied into a temporary file first.

    Raises:
        BatchFileError: it cannot be read.
    """
    try:
        stream = open(0, "rb", closefd=False) if path is None else path.open("rb")  # noqa: SIM115
        if stream.seekable():
            return stream
        with stream:
            copy = tempfile.TemporaryFile(prefix="heron-batch-")  # noqa: SIM115 - whoever called closes it
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            return copy
    except OSError as error:
        name = "standard input" if path is None else path
        raise BatchFileError(f"{name}: cannot be read: {error.strerror}") from None


def check(stream: BinaryIO, done: IdSet) -> Checked:
    """Read all of the input once, from where it stands."""
    found, seen = Checked(), IdSet()
    for number, line in numbered_lines(stream):
        found.lines += 1
        try:
            request = _new_request(line, seen)
        except BadLineError as error:
            found.bad_lines += 1
            if len(found.faults) < MAX_SHOWN_FAULTS:
                found.faults.append(f"line {number}: {error}")
        except OverflowError:
            raise BatchFileError(f"line {number}: more than {MAX_IDS:,} requests: split the file") from None
        else:
            found.kept += request.custom_id in done
    return found


def _new_request(line: bytes, seen: IdSet) -> BatchRequest:
    request = read_line(line)
    if not seen.add(request.custom_id):
        raise BadLineError(f"custom_id {request.custom_id!r} is that of an earlier line")
    return request


def remaining(stream: BinaryIO, lines: int, done: IdSet) -> Iterator[BatchRequest | None]:
    """Those of the checked `lines` that are not done; now and then None, where many are.

    Raises:
        BatchFileError: the file is no longer what was checked.
    """
    skipped = 0
    for number, line in islice(numbered_lines(stream), lines):
        try:
            request = read_line(line)
        except BadLineError as error:
            raise BatchFileError(f"line {number} has changed since it was checked: {error}") from None
        if request.custom_id not in done:
            yield request
            continue
        skipped += 1
        if skipped % SKIPPED_AT_ONCE == 0:
            yield None


class RecordFile:
    """One output file, locked while it is open. `done` gets the ids of the final lines that it has."""

    def __init__(self, path: Path, done: IdSet) -> None:
        """Open, lock, take out what is not final, cut off a torn end.

        Raises:
            BatchFileError: it is no output of a batch, another run writes to it, or it cannot be used.
        """
        self._path = path = Path(os.path.realpath(path))
        try:
            self._fd = _open_locked(path)
        except OSError as error:
            raise BatchFileError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._take_up(done)
        except (NotARecordError, OverflowError) as error:
            os.close(self._fd)
            raise BatchFileError(f"{path}: {error}") from None
        except OSError as error:
            os.close(self._fd)
            raise BatchFileError(f"{path}: cannot be taken up: {error.strerror}") from None
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, line: bytes) -> None:
        """Append one whole line.

        Raises:
            OSError: naming the file; a part of the line may be there.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            error.filename = str(self._path)
            raise

    def close(self) -> None:
        """What was written is on the disk, and the lock is free."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in _WITHOUT_DISK:
                raise
        finally:
            os.close(self._fd)

    def _take_up(self, done: IdSet) -> None:
        with open(self._fd, "rb", closefd=False) as stream:
            is_kept, whole_bytes, outdated, number = _Keeper(), 0, 0, 0
            stream.seek(0)
            while (line := stream.readline(MAX_RECORD_BYTES)).endswith(b"\n"):
                number += 1
                try:
                    custom_id = is_kept(line)
                except NotARecordError as error:
                    raise NotARecordError(f"line {number} is {error}: {NO_OUTPUT}") from None
                if custom_id is None:
                    outdated += 1
                else:
                    done.add(custom_id)
                whole_bytes += len(line)
            if line and not is_torn(line):
                raise NotARecordError(f"line {number + 1} is cut short: {NO_OUTPUT}")
            os.ftruncate(self._fd, whole_bytes)
            if outdated:
                stream.seek(0)
                self._rewrite(stream)

    def _rewrite(self, stream: BinaryIO) -> None:
        """Only what is kept, in a new file in place of this one."""
        beside = self._path.with_name(f"{self._path.name}.tmp")
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fd, stat.S_IMODE(os.fstat(self._fd).st_mode))
            is_kept = _Keeper()
            with open(fd, "wb", closefd=False) as copy:
                copy.writelines(line for line in stream if is_kept(line) is not None)
            os.fsync(fd)
            beside.rename(self._path)
        except BaseException:
            os.close(fd)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd


class _Keeper:
    """Which lines of an output stay: the first final one of each id."""

    def __init__(self) -> None:
        self._ids = IdSet()

    def __call__(self, line: bytes) -> str | None:
        """The id of a line that stays, None: it goes.

        Raises:
            NotARecordError: it is no record.
        """
        record = read_record(line)
        return record.custom_id if record.is_final and self._ids.add(record.custom_id) else None


def _open_locked(path: Path) -> int:
    """The file that is there under this name once it is locked: another run may have renamed one over it."""
    while True:
        is_other = path.exists() and not path.is_file()  # a pipe, a device: nothing to take up
        fd = os.open(path, os.O_WRONLY if is_other else os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if is_other:
                return fd
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise BatchFileError(f"{path}: another heron batch writes to it now") from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
