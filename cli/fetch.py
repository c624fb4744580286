"""Fetches one published file: from its URLs or a mirror, resumed where it broke off, checked by SHA-256.

Rule: a file appears under its name only whole and checked. Until then it is `<file>.part`, which the next
try continues.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from cli.catalogue import DataFile

CHUNK_BYTES = 1 << 20
MAX_BYTES = 4 << 30
"""Of a file whose size is not known: four times the largest."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
ROW_TOLERANCE = 1
"""A published count may or may not include the header or an unfinished last line."""

Progress = Callable[[int, int | None], None]
"""(bytes so far, all bytes or None)."""


class FetchError(Exception):
    """A file that could not be fetched; says why, from where, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was done."""

    path: Path
    sha256: str
    was_there: bool
    is_verified: bool
    """Its checksum was known, and is right."""


@dataclass(slots=True)
class _Digest:
    sha256: str
    rows: int
    """Line ends."""


def fetch(
    file: DataFile,
    directory: Path,
    *,
    mirror: str | None = None,
    verify: bool = True,
    on_progress: Progress | None = None,
) -> Fetched:
    """Put `file` into `directory`, unless it is there already.

    `mirror` is a directory or a URL that holds it as `<folder>/<file>` or `<file>`. `verify=False` takes a
    file whose checksum is not known; one whose checksum is known is always checked.

    Raises:
        FetchError: it cannot be had, or is not what was published.
    """
    target = directory / file.file
    if target.exists():
        digest = _digest(target)
        if file.sha256 is None or digest.sha256 == file.sha256:
            return Fetched(
                path=target, sha256=digest.sha256, was_there=True, is_verified=file.sha256 is not None
            )
        raise FetchError(
            f"{target} is there, but is not what was published (SHA-256 {digest.sha256}, expected "
            f"{file.sha256}): move it away, then fetch again"
        )
    if file.sha256 is None and verify:
        raise FetchError(
            f"{file.name}: no checksum known, so it cannot be verified: fetch it with --no-verify, which "
            "prints its SHA-256"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / f"{file.file}.part") as part:
            _fill(part, file, mirror, on_progress)
            digest = _check(Path(part.name), file)
            os.fsync(part.fileno())
            Path(part.name).replace(target)
    except OSError as error:
        raise FetchError(f"{file.name}: {error.filename or directory}: {error.strerror or error}") from None
    return Fetched(path=target, sha256=digest.sha256, was_there=False, is_verified=file.sha256 is not None)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    with path.open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FetchError(f"{path} is being written by another fetch: wait for it") from None
        yield part


def _fill(part: BinaryIO, file: DataFile, mirror: str | None, on_progress: Progress | None) -> None:
    """Try every place in turn, going on with what is there."""
    faults = []
    for place in _places(file, mirror):
        try:
            if isinstance(place, Path):
                _copy(place, part, file, on_progress)
            else:
                _download(place, part, file, on_progress)
        except FileNotFoundError:
            faults.append(f"{place}: not there")
        except httpx.HTTPStatusError as error:
            faults.append(f"{place}: HTTP {error.response.status_code} {error.response.reason_phrase}")
        except httpx.HTTPError as error:
            faults.append(f"{place}: {str(error) or type(error).__name__}")
        except httpx.InvalidURL as error:
            faults.append(f"{place}: {error}")
        else:
            return
    kept = part.seek(0, os.SEEK_END)
    if not kept:
        Path(part.name).unlink()
    advice = f"; {kept} bytes are kept and the next try goes on from there" if kept else ""
    raise FetchError(
        f"{file.name} could not be fetched:\n  " + "\n  ".join(faults) + "\n"
        f"Offline? Give --mirror a directory or URL that holds {file.folder}/{file.file} or {file.file}"
        + advice
    )


def _places(file: DataFile, mirror: str | None) -> list[str | Path]:
    if mirror is None:
        return list(file.urls)
    if "://" in mirror and not mirror.startswith("file://"):
        base = mirror.rstrip("/")
        return [f"{base}/{file.folder}/{file.file}", f"{base}/{file.file}"]
    root = Path(mirror.removeprefix("file://")).expanduser()
    return [root / file.folder / file.file, root / file.file]


def _copy(source: Path, part: BinaryIO, file: DataFile, on_progress: Progress | None) -> None:
    with source.open("rb") as original:
        part.truncate(0)
        done = 0
        while chunk := original.read(CHUNK_BYTES):
            done = _append(part, chunk, done, file)
            if on_progress is not None:
                on_progress(done, file.size_bytes)
    part.flush()


def _download(url: str, part: BinaryIO, file: DataFile, on_progress: Progress | None) -> None:
    done = part.seek(0, os.SEEK_END)
    if file.size_bytes is not None and done >= file.size_bytes:
        if done == file.size_bytes:
            return  # whole; the checksum decides
        part.truncate(0)
        done = 0
    headers = {"accept-encoding": "identity"} | ({"range": f"bytes={done}-"} if done else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left of it
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            part.truncate(0)
            done = 0
        length = response.headers.get("content-length")
        total = file.size_bytes or (done + int(length) if length and length.isdigit() else None)
        for chunk in response.iter_raw():
            done = _append(part, chunk, done, file)
            if on_progress is not None:
                on_progress(done, total)
    part.flush()


def _append(part: BinaryIO, chunk: bytes, done: int, file: DataFile) -> int:
    done += len(chunk)
    limit = file.size_bytes or MAX_BYTES
    if done > limit:
        part.truncate(0)
        raise FetchError(f"{file.name}: more than the {limit} bytes expected: this is another file")
    part.write(chunk)
    return done


def _digest(path: Path) -> _Digest:
    digest, rows = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            rows += chunk.count(b"\n")
    return _Digest(digest.hexdigest(), rows)


def _check(part: Path, file: DataFile) -> _Digest:
    digest = _digest(part)
    if file.sha256 is not None and digest.sha256 != file.sha256:
        size = part.stat().st_size
        part.unlink()
        raise FetchError(
            f"{file.name}: what came is not what was published ({size} bytes, SHA-256 {digest.sha256}, "
            f"expected {file.sha256}); it was deleted: fetch again, or from another place"
        )
    if file.sha256 is None and file.rows is not None and abs(digest.rows - 1 - file.rows) > ROW_TOLERANCE:
        part.unlink()
        raise FetchError(
            f"{file.name}: what came has {digest.rows - 1} rows, {file.rows} were published; it was deleted: "
            "fetch again, or from another place"
        )
    return digest
