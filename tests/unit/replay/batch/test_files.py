"""The files: what is checked, what is taken up, what is refused."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.batch import files
from replay.batch.files import BatchFileError, RecordFile, check, open_input, remaining
from replay.batch.ids import IdSet
from replay.batch.records import answered, expired

RNG = Random(1)


def line(custom_id: str) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"model": "m"}}
    return json.dumps(value).encode() + b"\n"


def good(custom_id: str) -> bytes:
    return answered(custom_id, 200, "", b"{}", RNG).line


def ids_in(path: Path) -> list[str]:
    return [json.loads(one)["custom_id"] for one in path.read_bytes().splitlines()]


def taken_up(path: Path) -> IdSet:
    done = IdSet()
    RecordFile(path, done).close()
    return done


def test_every_bad_line_is_counted_and_the_first_are_told() -> None:
    """With their numbers; a custom_id that comes twice is one."""
    found = check(io.BytesIO(line("a") + line("a") + b"\n" + b"{}\n" * 20), IdSet())
    assert (found.lines, found.bad_lines, len(found.faults)) == (22, 21, 10)
    assert found.faults[0] == "line 2: custom_id 'a' is that of an earlier line"
    assert found.faults[1].startswith("line 4: custom_id is missing")


def test_what_is_done_is_left_out() -> None:
    """And counted beforehand."""
    done = IdSet()
    done.add("b")
    done.add("of another file")
    stream = io.BytesIO(line("a") + line("b") + line("c"))
    assert check(stream, done).kept == 1
    stream.seek(0)
    assert [one.custom_id for one in remaining(stream, 3, done) if one is not None] == ["a", "c"]


def test_a_long_row_of_done_ones_lets_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """None stands for so many."""
    monkeypatch.setattr(files, "SKIPPED_AT_ONCE", 2)
    done = IdSet()
    for custom_id in "abcde":
        done.add(custom_id)
    stream = io.BytesIO(b"".join(line(custom_id) for custom_id in "abcdef"))
    assert [one and one.custom_id for one in remaining(stream, 6, done)] == [None, None, "f"]


def test_an_input_that_changes_meanwhile_is_noticed() -> None:
    """What was added since is not sent; what was broken is said."""
    assert [one and one.custom_id for one in remaining(io.BytesIO(line("a") + line("b")), 1, IdSet())] == [
        "a"
    ]
    with pytest.raises(BatchFileError, match="line 1 has changed since it was checked: not JSON"):
        next(remaining(io.BytesIO(b"{\n"), 1, IdSet()))


def test_too_many_requests_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for their ids is bounded."""
    monkeypatch.setattr("replay.batch.ids.MAX_IDS", 1)
    with pytest.raises(BatchFileError, match=r"line 2: more than .* requests: split the file"):
        check(io.BytesIO(line("a") + line("b")), IdSet())


def test_a_pipe_is_copied_so_that_it_can_be_read_twice(tmp_path: Path) -> None:
    """As a file would be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(line("a"),))
    writing.start()
    with open_input(pipe) as stream:
        writing.join()
        assert stream.read() == line("a")
        stream.seek(0)
        assert stream.read() == line("a")


def test_an_input_that_is_not_there_is_said(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(BatchFileError, match=r"none\.jsonl: cannot be read: No such file"):
        open_input(tmp_path / "none.jsonl")


def test_what_is_not_final_is_taken_out(tmp_path: Path) -> None:
    """And so is a line cut short, and one that comes twice; the file keeps its mode."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(good("a") + expired("b", RNG).line + good("c") + good("a") + good("d")[:-1])
    out.chmod(0o640)
    done = taken_up(out)
    assert [custom_id in done for custom_id in "abcd"] == [True, False, True, False]
    assert ids_in(out) == ["a", "c"]
    assert out.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_that_fails_meanwhile_leaves_the_output_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing beside it."""
    path = tmp_path / "out.jsonl"
    before = good("a") + expired("b", RNG).line
    path.write_bytes(before)

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(BatchFileError, match="Input/output error"):
        taken_up(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]
    monkeypatch.undo()
    assert len(taken_up(path)) == 1


def test_what_is_written_goes_to_the_end(tmp_path: Path) -> None:
    """Also of a file that was written anew."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(good("a") + expired("b", RNG).line)
    output = RecordFile(out, IdSet())
    output.write(good("b"))
    output.write(good("c"))
    output.close()
    assert ids_in(out) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (line("a"), "line 1 is an object without id, response and error: this is no output of a batch"),
        (good("a") + b"text\n", "line 2 is not JSON: this is no output of a batch; give another file"),
        (b"text", "line 1 is cut short: this is no output"),
    ],
)
def test_another_file_is_not_touched(tmp_path: Path, content: bytes, said: str) -> None:
    """The input given as output, or somebody's notes."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(content)
    with pytest.raises(BatchFileError) as error:
        taken_up(out)
    assert said in str(error.value)
    assert out.read_bytes() == content


def test_an_output_of_too_many_lines_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an input is."""
    monkeypatch.setattr("replay.batch.ids.MAX_IDS", 1)
    (tmp_path / "out.jsonl").write_bytes(good("a") + good("b"))
    with pytest.raises(BatchFileError, match=r"out\.jsonl: more than .* requests"):
        taken_up(tmp_path / "out.jsonl")


def test_one_output_has_one_writer(tmp_path: Path) -> None:
    """The second is refused, also once the first has written the file anew; then it may."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(expired("a", RNG).line)
    first = RecordFile(out, IdSet())
    with pytest.raises(BatchFileError, match="another heron batch writes to it now"):
        RecordFile(out, IdSet())
    first.close()
    RecordFile(out, IdSet()).close()


def test_a_full_disk_names_the_file() -> None:
    """What is not a regular file is written to and not read."""
    output = RecordFile(Path("/dev/full"), IdSet())
    with pytest.raises(OSError, match="No space left") as error:
        output.write(good("a"))
    assert error.value.filename == "/dev/full"
    output.close()


@given(
    cut=st.integers(0, 10_000),
    outcomes=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12),
)
def test_a_run_that_goes_on_gives_each_id_once(
    tmp_path_factory: pytest.TempPathFactory, cut: int, outcomes: list[tuple[int, bool]]
) -> None:
    """Wherever the one before was cut off, and whatever became of its requests."""
    out = tmp_path_factory.mktemp("out") / "out.jsonl"
    written = b"".join(
        good(str(number)) if is_good else expired(str(number), RNG).line for number, is_good in outcomes
    )
    out.write_bytes(written[: cut % (len(written) + 1)])
    done = IdSet()
    output = RecordFile(out, done)
    stream = io.BytesIO(b"".join(line(str(number)) for number in range(10)))
    for one in remaining(stream, 10, done):
        assert one is not None
        output.write(good(one.custom_id))
    output.close()
    assert sorted(ids_in(out)) == [str(number) for number in range(10)]
