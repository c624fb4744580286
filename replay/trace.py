"""Reads Azure LLM inference traces row by row: whatever the file's size, memory stays that of two blocks.

Two published forms are taken (FACTS.md; Azure/AzurePublicDataset): the per-request files of 2023
(`2023-11-16 18:17:03.9799600`, naive UTC) and the week of 2024 (`2024-05-10 00:00:00.009930+00:00`, some
stamps without a fraction). Both have the columns TIMESTAMP, ContextTokens, GeneratedTokens.

Rule: no row disappears. A row that cannot be read is counted and reported with its line number; rows out of
order are counted and sorted within a bounded window, and beyond it the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
EXPECTED = (
    "expected a CSV of one request a row, as Azure publishes it: header "
    "TIMESTAMP,ContextTokens,GeneratedTokens, rows like 2023-11-16 18:17:03.9799600,4808,10"
)

BLOCK_BYTES = 64 << 10
"""Read at a time: small enough that a replay which reads while it sends is not held up."""
MAX_LINE_BYTES = 4096
"""A row has about 45; what is longer is no row, and must not be collected in memory."""
MAX_FAULTS = 20
"""Broken rows that are kept with their text; all are counted."""
MAX_ROWS_WITHOUT_A_GOOD_ONE = 1000
"""After so many broken rows from the start the file is of another kind, whatever its header says."""
REORDER_ROWS = 4096
"""A row may stand this many rows from its place: about 90 s of the 2024 conversation week."""
MAX_TOKENS = 10_000_000
"""Per request; above it the number is a fault of the file, not a prompt."""

_ROW = re.compile(
    rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d):(\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:\d\d)?,(\d{1,9}),(\d{1,9})\r?"
)
_STAMP = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?")
_UTC_OFFSETS = (b"", b"Z", b"+00:00")


class TraceError(ValueError):
    """What is no trace, or cannot be replayed as it is; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """One request of a trace."""

    at_seconds: float
    """Since the earliest request of the trace."""
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """A row that could not be read."""

    line: int
    """As an editor counts: the header is line 1."""
    reason: str
    text: str
    """The start of the row."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}: {self.text!r}"


@dataclass(slots=True, kw_only=True)
class TraceReport:
    """What was found in a trace so far; complete once the reader is exhausted."""

    name: str
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    broken_rows: int = 0
    faults: list[RowFault] = field(default_factory=list)
    """The first MAX_FAULTS of the broken rows."""
    reordered_rows: int = 0
    """Rows earlier than one before them, put in their place."""

    def lines(self) -> list[str]:
        """What a person has to know about the file, one sentence each; nothing when all is well."""
        found = []
        if self.broken_rows:
            found.append(f"{self.name}: {self.broken_rows} broken rows were left out")
            found.extend(f"{self.name}: {fault}" for fault in self.faults)
            if self.broken_rows > len(self.faults):
                found.append(f"{self.name}: … and {self.broken_rows - len(self.faults)} more")
        if self.reordered_rows:
            found.append(f"{self.name}: {self.reordered_rows} rows were out of order and were sorted")
        return found


class TraceReader:
    """Iterates over the requests of one trace, once. `report` grows as it goes.

    Iterating raises TraceError: not a trace of requests, no usable row, or a row further out of order than
    REORDER_ROWS.
    """

    def __init__(self, stream: BinaryIO, *, name: str) -> None:
        self._stream = stream
        self._minutes: dict[bytes, float] = {}
        self._base_minute: float | None = None
        self.report = TraceReport(name=name)

    def __iter__(self) -> Iterator[TraceRequest]:
        report = self.report
        origin: float | None = None
        for seconds, prompt_tokens, output_tokens in self._sorted_rows():
            if origin is None:
                origin = seconds
            report.requests += 1
            report.prompt_tokens += prompt_tokens
            report.output_tokens += output_tokens
            yield TraceRequest(
                at_seconds=seconds - origin, prompt_tokens=prompt_tokens, output_tokens=output_tokens
            )

    def _sorted_rows(self) -> Iterator[tuple[float, int, int]]:
        """Rows in order. Half of a buffer of two windows leaves at a time, so each row may move a window."""
        pending: list[tuple[float, int, int]] = []
        latest = emitted = float("-inf")
        is_disordered = False
        for line, row in self._rows():
            seconds = row[0]
            if seconds < latest:
                if seconds < emitted:
                    raise TraceError(
                        f"{self.report.name}: line {line} is {emitted - seconds:.3f} s earlier than a row "
                        f"more than {REORDER_ROWS} rows before it; sort the file by TIMESTAMP first"
                    )
                self.report.reordered_rows += 1
                is_disordered = True
            else:
                latest = seconds
            pending.append(row)
            if len(pending) == 2 * REORDER_ROWS:
                if is_disordered:
                    pending.sort(key=itemgetter(0))
                    is_disordered = False
                emitted = pending[REORDER_ROWS - 1][0]
                yield from pending[:REORDER_ROWS]
                del pending[:REORDER_ROWS]
        if is_disordered:
            pending.sort(key=itemgetter(0))
        if not pending and self.report.requests == 0:
            raise self._no_usable_row()
        yield from pending

    def _rows(self) -> Iterator[tuple[int, tuple[float, int, int]]]:
        has_good_row = False
        broken = 0
        for line, text in self._lines():
            match = _ROW.fullmatch(text) if text is not None else None
            if match is None:
                if text is not None and not text.strip():
                    continue
                fault = _fault(text)
            else:
                minute, second, offset, prompt, output = match.groups(b"")
                seconds = self._seconds(minute, second, offset)
                prompt_tokens, output_tokens = int(prompt), int(output)
                if seconds is not None and prompt_tokens <= MAX_TOKENS and output_tokens <= MAX_TOKENS:
                    has_good_row = True
                    yield line, (seconds, prompt_tokens, output_tokens)
                    continue
                fault = (
                    "TIMESTAMP is no real date and time"
                    if seconds is None
                    else f"more than {MAX_TOKENS} tokens in one request"
                )
            broken += 1
            self._note(line, fault, text)
            if not has_good_row and broken >= MAX_ROWS_WITHOUT_A_GOOD_ONE:
                raise self._no_usable_row()

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Line number and text of each row; None for a line longer than MAX_LINE_BYTES."""
        block = self._stream.read(BLOCK_BYTES)
        _check_kind(block, self.report.name)
        line, rest = 1, b""
        is_skipping = is_header = True
        while block:
            parts = block.split(b"\n")
            if is_header or is_skipping:
                # the header, or the tail of a line already reported as too long
                ended = len(parts) > 1
                parts = parts[1:]
                is_header = False
                is_skipping = not ended
                line += ended
            else:
                parts[0] = rest + parts[0]
            for text in parts[:-1]:
                yield line, text if len(text) <= MAX_LINE_BYTES else None
                line += 1
            rest = parts[-1] if parts else b""
            if len(rest) > MAX_LINE_BYTES:
                yield line, None
                rest = b""
                is_skipping = True
            block = self._stream.read(BLOCK_BYTES)
        if rest:
            yield line, rest

    def _seconds(self, minute: bytes, second: bytes, offset: bytes) -> float | None:
        """Seconds since the first row's minute: small numbers, so that 100 ns survive in a float."""
        key = minute if offset in _UTC_OFFSETS else minute + offset
        start = self._minutes.get(key)
        if start is None:
            try:
                at = datetime.fromisoformat(key.decode())
            except ValueError:
                return None
            unix = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
            if self._base_minute is None:
                self._base_minute = unix
            start = unix - self._base_minute
            self._minutes.clear()  # the rows of a minute stand together: one entry is a cache
            self._minutes[key] = start
        seconds = float(second)
        return start + seconds if seconds < 61 else None

    def _note(self, line: int, reason: str, text: bytes | None) -> None:
        report = self.report
        report.broken_rows += 1
        if len(report.faults) < MAX_FAULTS:
            shown = "" if text is None else text[:80].decode("utf-8", "backslashreplace").rstrip("\r")
            report.faults.append(RowFault(line=line, reason=reason, text=shown))

    def _no_usable_row(self) -> TraceError:
        report = self.report
        first = f"; {report.faults[0]}" if report.faults else ""
        return TraceError(
            f"{report.name}: no usable row ({report.broken_rows} broken rows){first}; {EXPECTED}"
        )


def check_trace(path: Path) -> None:
    """Look at the head of a file before anything is started for it.

    Raises:
        TraceError: it cannot be opened or is not a trace of requests; the message says what was expected.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(BLOCK_BYTES)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}; {EXPECTED}") from None
    _check_kind(head, path.name)


def _check_kind(head: bytes, name: str) -> None:
    if not head.strip():
        raise TraceError(f"{name}: is empty; {EXPECTED}")
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise TraceError(f"{name}: is compressed; unpack it first; {EXPECTED}")
    header = head.split(b"\n", 1)[0].removeprefix(b"\xef\xbb\xbf").strip()
    if header == HEADER:
        return
    if b"\x00" in head:
        raise TraceError(f"{name}: is a binary file; {EXPECTED}")
    shown = header[:80].decode("utf-8", "backslashreplace")
    names = [column.strip().lower() for column in header.split(b",")]
    if names == [b"time", b"timestamp"]:
        what = "counts requests per 10 s and has no sizes"
    elif b"period" in names or any(column.startswith((b"area", b"wind")) for column in names):
        what = "looks like a wind file (that is --wind)"
    else:
        what = "is not a trace of requests"
    raise TraceError(f"{name}: {what} (its first line is {shown!r}); {EXPECTED}")


def _fault(text: bytes | None) -> str:
    if text is None:
        return f"longer than {MAX_LINE_BYTES} bytes"
    columns = text.rstrip(b"\r").split(b",")
    if len(columns) != 3:
        return f"{len(columns)} columns instead of 3"
    if not _STAMP.fullmatch(columns[0]):
        return "TIMESTAMP is not YYYY-MM-DD HH:MM:SS[.fraction][+00:00]"
    column = "ContextTokens" if not re.fullmatch(rb"\d{1,9}", columns[1]) else "GeneratedTokens"
    return f"{column} is not a whole number of 0 or more"
