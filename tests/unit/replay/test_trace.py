"""replay.trace: every row is read, or counted with its line number; other files are refused."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import official_data

from replay import trace
from replay.trace import TraceError, TraceReader, TraceRequest, check_trace

HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"


def read(content: bytes) -> tuple[list[TraceRequest], trace.TraceReport]:
    reader = TraceReader(io.BytesIO(content), name="t.csv")
    return list(reader), reader.report


def request(at: float, prompt: int, output: int) -> TraceRequest:
    return TraceRequest(at_seconds=pytest.approx(at, abs=1e-9), prompt_tokens=prompt, output_tokens=output)


def test_2023_rows() -> None:
    """Seven fractional digits, Windows line ends, no line end after the last row."""
    rows, report = read(
        HEADER + b"\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319601,3180,8"
    )
    assert rows == [request(0.0, 4808, 10), request(0.0520001, 3180, 8)]
    assert (report.requests, report.prompt_tokens, report.output_tokens) == (2, 7988, 18)
    assert report.lines() == []


def test_2024_rows() -> None:
    """Offsets, stamps with and without a fraction, and a day's end between them."""
    rows, report = read(
        HEADER + b"\n2024-05-10 23:59:59.009930+00:00,10,1\n2024-05-11 00:00:00+00:00,20,2\n"
        b"2024-05-11 00:00:00.5Z,30,3\n"
    )
    assert rows == [request(0.0, 10, 1), request(0.99007, 20, 2), request(1.49007, 30, 3)]
    assert report.broken_rows == 0


def test_other_offsets_are_the_same_instant() -> None:
    """01:00 at +01:00 is 00:00 UTC."""
    rows, _ = read(HEADER + b"\n2024-05-10 00:00:00,1,1\n2024-05-10 01:00:30+01:00,2,2\n")
    assert rows == [request(0.0, 1, 1), request(30.0, 2, 2)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"2023-11-16 18:17:03,10", "2 columns instead of 3"),
        (b"2023-11-16 18:17:03,10,5,6", "4 columns instead of 3"),
        (b"16.11.2023 18:17,10,5", "TIMESTAMP is not"),
        (b"2023-13-16 18:17:03,10,5", "no real date"),
        (b"2023-11-16 18:17:99,10,5", "no real date"),
        (b"2023-11-16 18:17:03,ten,5", "ContextTokens is not a whole number"),
        (b"2023-11-16 18:17:03,-1,5", "ContextTokens is not a whole number"),
        (b"2023-11-16 18:17:03,1,5.5", "GeneratedTokens is not a whole number"),
        (b"2023-11-16 18:17:03,1,nan", "GeneratedTokens is not a whole number"),
        (b"2023-11-16 18:17:03,99999999,5", "more than 10000000 tokens"),
        (b"\xff\xfe\x00", "1 columns instead of 3"),
    ],
)
def test_broken_rows_are_reported_with_their_line(row: bytes, reason: str) -> None:
    """A broken row is left out, and said with its line, why and what it was."""
    good = b"2023-11-16 18:17:03,1,2\n"
    rows, report = read(HEADER + b"\n" + good + row + b"\n" + good)
    assert len(rows) == 2
    assert report.broken_rows == 1
    assert report.faults[0].line == 3
    assert reason in report.faults[0].reason
    assert "1 broken rows were left out" in report.lines()[0]
    assert "line 3" in report.lines()[1]


def test_faults_are_bounded_and_all_are_counted() -> None:
    """Of 50 broken rows 20 are kept with their text."""
    rows, report = read(HEADER + b"\n2023-11-16 18:17:03,1,2\n" + b"x\n" * 50)
    assert len(rows) == 1
    assert (report.broken_rows, len(report.faults)) == (50, 20)
    assert report.lines()[-1] == "t.csv: … and 30 more"


def test_blank_lines_are_no_rows() -> None:
    """They change neither the requests nor the line numbers."""
    rows, report = read(HEADER + b"\n\n2023-11-16 18:17:03,1,2\n  \nx\n")
    assert len(rows) == 1
    assert [fault.line for fault in report.faults] == [5]


def test_an_endless_line_is_not_collected() -> None:
    """A line over the limit is one broken row; the rows behind it keep their line numbers."""
    rows, report = read(
        HEADER + b"\n2023-11-16 18:17:03,1,2\n" + b"9" * 300_000 + b"\n2023-11-16 18:17:04,3,4\nx\n"
    )
    assert rows == [request(0.0, 1, 2), request(1.0, 3, 4)]
    assert [(fault.line, fault.reason) for fault in report.faults] == [
        (3, "longer than 4096 bytes"),
        (5, "1 columns instead of 3"),
    ]


def test_rows_out_of_order_are_noted_and_sorted() -> None:
    """The earliest row is the start, wherever it stands."""
    rows, report = read(
        HEADER + b"\n2023-11-16 18:17:03,1,1\n2023-11-16 18:17:01,2,2\n2023-11-16 18:17:02,3,3\n"
    )
    assert rows == [request(0.0, 2, 2), request(1.0, 3, 3), request(2.0, 1, 1)]
    assert report.reordered_rows == 2
    assert report.lines() == ["t.csv: 2 rows were out of order and were sorted"]


def test_a_row_beyond_the_window_is_refused() -> None:
    """A row more than REORDER_ROWS from its place names its line and the remedy."""
    lines = [b"2023-11-16 18:17:%02d,1,1" % (10 + i // 1000) for i in range(2 * trace.REORDER_ROWS)]
    content = HEADER + b"\n" + b"\n".join(lines) + b"\n2023-11-16 18:17:01,1,1\n"
    with pytest.raises(TraceError, match=r"line 8194 is .* s earlier .* sort the file by TIMESTAMP"):
        read(content)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b" \r\n\n", "is empty"),
        (b"\x1f\x8b\x08abc", "is compressed"),
        (b"\x7fELF\x00\x00\x01", "is a binary file"),
        (b"Time,TIMESTAMP\n2024-05-10 00:00:00,146\n", "counts requests per 10 s"),
        (b"Year,Month,Day,Period,309_WIND_1\n2020,1,1,1,3.0\n", "looks like a wind file"),
        (b"Day,Time,Area1,Area2\n1,0:00,0.1,0.2\n", "looks like a wind file"),
        (b"2023-11-16 18:17:03,1,2\n", "is not a trace of requests"),
        (b"hello\n", "is not a trace of requests"),
    ],
)
def test_files_of_another_kind_are_refused(content: bytes, what: str, tmp_path: Path) -> None:
    """The message says what the file is and what was expected; checking the head alone says the same."""
    with pytest.raises(TraceError, match=what) as raised:
        read(content)
    assert "TIMESTAMP,ContextTokens,GeneratedTokens" in str(raised.value)
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(TraceError, match=what):
        check_trace(file)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    """A directory and a missing file give a TraceError with the system's reason."""
    with pytest.raises(TraceError, match="Is a directory"):
        check_trace(tmp_path)
    with pytest.raises(TraceError, match="No such file"):
        check_trace(tmp_path / "none.csv")


@pytest.mark.parametrize("rows", [b"", b"x\n" * 2000])
def test_a_header_without_a_usable_row_is_refused(rows: bytes) -> None:
    """A right header does not make a trace; broken rows without end are given up early."""
    with pytest.raises(TraceError, match="no usable row"):
        read(HEADER + b"\n" + rows)


ROWS = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=3_000_000_000),
        st.integers(min_value=0, max_value=100_000),
        st.integers(min_value=0, max_value=10_000),
    ),
    min_size=1,
    max_size=60,
)


@given(ROWS, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_every_good_row_comes_back(rows: list[tuple[int, int, int]], end: bytes, has_offset: bool) -> None:
    """Whatever the order, all rows come back sorted, and their sums are the file's."""
    lines = []
    for micros, prompt, output in rows:
        minutes, rest = divmod(micros, 60_000_000)
        second = f"{rest // 1_000_000:02d}" + (f".{rest % 1_000_000:06d}" if rest % 1_000_000 else "")
        zone = "+00:00" if has_offset else ""
        lines.append(f"2024-05-10 00:{minutes:02d}:{second}{zone},{prompt},{output}".encode())
    found, report = read(HEADER + end + end.join(lines) + end)
    assert report.broken_rows == 0
    assert [item.at_seconds for item in found] == sorted(item.at_seconds for item in found)
    start = min(micros for micros, _, _ in rows)
    expected = sorted((micros - start) / 1e6 for micros, _, _ in rows)
    assert [item.at_seconds for item in found] == pytest.approx(expected, abs=1e-6)
    assert report.prompt_tokens == sum(prompt for _, prompt, _ in rows)
    assert report.output_tokens == sum(output for _, _, output in rows)


@given(st.binary(max_size=400))
def test_no_content_crashes_the_reader(content: bytes) -> None:
    """Any bytes behind a right header: each line is a request, a fault or blank, or the file is refused."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    try:
        found, report = read(HEADER + b"\n" + content)
    except TraceError as error:
        assert "no usable row" in str(error)  # noqa: PT017 - either way is right
    else:
        assert len(found) + report.broken_rows == len(lines)


def test_blocks_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie across two blocks are read as if in one."""
    content = HEADER + b"\n" + b"2023-11-16 18:17:03.9799600,4808,10\r\n" * 100
    expected, _ = read(content)
    monkeypatch.setattr(trace, "BLOCK_BYTES", 61)
    assert read(content)[0] == expected


class Endless(io.RawIOBase):
    """A file of many rows that is nowhere: each block is made when it is read."""

    def __init__(self, rows: int) -> None:
        self._parts = iter([HEADER + b"\n"])
        self._left = rows

    def read(self, size: int = -1) -> bytes:
        head = next(self._parts, None)
        if head is not None:
            return head
        rows = min(self._left, 1000)
        self._left -= rows
        return b"2024-05-10 00:00:00.009930+00:00,1000,100\n" * rows


def test_memory_does_not_grow_with_the_file() -> None:
    """100,000 rows need no more than the window of rows that may be out of order."""
    tracemalloc.start()
    try:
        count = sum(1 for _ in TraceReader(Endless(100_000), name="t.csv"))  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 6 << 20


@pytest.mark.official_data
@pytest.mark.parametrize(
    ("name", "count", "prompts", "outputs"),
    [
        ("code", 8819, [147, 578, 1469, 2744, 5188, 7303, 7436], [7, 9, 13, 24, 55, 90, 251]),
        ("conv", 19366, [207, 396, 1020, 1189, 2734, 4083, 4142], [54, 85, 129, 395, 424, 451, 601]),
    ],
)
def test_official_2023_traces(name: str, count: int, prompts: list[int], outputs: list[int]) -> None:
    """Row counts and the p10 25 50 75 90 95 99 of both sizes are the published ones."""
    file = official_data.path(f"AzureLLMInferenceTrace_{name}.csv")
    with file.open("rb") as stream:
        reader = TraceReader(stream, name=file.name)
        rows = list(reader)
    assert (len(rows), reader.report.broken_rows, reader.report.reordered_rows) == (count, 0, 0)
    assert [percentile([row.prompt_tokens for row in rows], level) for level in LEVELS] == prompts
    assert [percentile([row.output_tokens for row in rows], level) for level in LEVELS] == outputs


LEVELS = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)


def percentile(values: list[int], level: float) -> int:
    """As the published table was made: linear between ranks, rounded (halves down)."""
    ordered = sorted(values)
    position = level * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return int(ordered[low] + (position - low) * (ordered[high] - ordered[low]) + 0.5 - 1e-9)


@pytest.mark.official_data
@pytest.mark.parametrize("name", ["code", "conv"])
def test_the_official_count_files_are_refused(name: str) -> None:
    """The 10-s counts of 2024 are not requests."""
    file = official_data.path(f"azure2024_{name}_1week_invocations_10s.csv")
    with pytest.raises(TraceError, match="counts requests per 10 s"):
        check_trace(file)


@pytest.mark.official_data
@pytest.mark.parametrize("name", ["fts213_Wind_data.csv", "rts_gmlc_REAL_TIME_wind.csv"])
def test_the_official_wind_files_are_refused(name: str) -> None:
    """A wind file given as a trace is recognised."""
    file = official_data.path(name)
    with pytest.raises(TraceError, match="looks like a wind file"):
        check_trace(file)
