"""Fetching over real HTTP: checked, resumed, refused."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.catalogue import DataFile
from cli.fetch import FetchError, fetch

CONTENT = b"time,north\n" + b"0,0.5\n" * 50_000


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; may break off after some bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.break_after: int | None = None
        self.ignore_range = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["range"]
        self.server.requests.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and not self.server.ignore_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(content) - start))
        self.end_headers()
        end = len(content) if self.server.break_after is None else start + self.server.break_after
        self.wfile.write(content[start:end])

    def log_message(self, *args: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def server() -> Iterator[Server]:
    subject = Server()
    thread = threading.Thread(target=subject.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield subject
    subject.shutdown()
    thread.join()
    subject.server_close()


def entry(*urls: str, checked: bool = True, rows: int | None = None) -> DataFile:
    return DataFile(
        name="wind",
        kind="wind",
        title="",
        folder="wind",
        file="wind.csv",
        urls=urls,
        licence="",
        sha256=hashlib.sha256(CONTENT).hexdigest() if checked else None,
        size_bytes=len(CONTENT) if checked else None,
        rows=rows,
    )


def test_a_file_is_fetched_and_verified(server: Server, tmp_path: Path) -> None:
    """It lies under its name, alone; a second fetch asks nobody."""
    server.files["/a/wind.csv"] = CONTENT
    progress: list[tuple[int, int | None]] = []
    file = entry(f"{server.url}/a/wind.csv")
    done = fetch(file, tmp_path / "new", on_progress=lambda at, total: progress.append((at, total)))
    assert done.path.read_bytes() == CONTENT
    assert (done.is_verified, done.was_there) == (True, False)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wind.csv"]
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(file, tmp_path / "new").was_there
    assert len(server.requests) == 1


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    """The part that came is kept, and only the rest is asked for."""
    server.files["/wind.csv"] = CONTENT
    server.break_after = 100_000
    file = entry(f"{server.url}/wind.csv")
    with pytest.raises(FetchError, match="100000 bytes are kept"):
        fetch(file, tmp_path)
    assert not (tmp_path / "wind.csv").exists()
    server.break_after = None
    assert fetch(file, tmp_path).path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/wind.csv", "bytes=100000-")


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    """A whole answer to a request for the rest replaces what was kept."""
    (tmp_path / "wind.csv.part").write_bytes(CONTENT[:500])
    server.files["/wind.csv"] = CONTENT
    server.ignore_range = True
    assert fetch(entry(f"{server.url}/wind.csv"), tmp_path).path.read_bytes() == CONTENT


def test_another_content_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    """What is not what was published never gets the name."""
    server.files["/wind.csv"] = CONTENT.replace(b"0.5", b"0.6")
    with pytest.raises(FetchError, match="is not what was published"):
        fetch(entry(f"{server.url}/wind.csv"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_bytes_than_the_file_has_are_not_taken(server: Server, tmp_path: Path) -> None:
    """A server cannot fill the disk."""
    server.files["/wind.csv"] = CONTENT + b"x" * 3_000_000
    with pytest.raises(FetchError, match="this is another file"):
        fetch(entry(f"{server.url}/wind.csv"), tmp_path)
    assert not (tmp_path / "wind.csv").exists()


def test_the_next_address_is_tried(server: Server, tmp_path: Path) -> None:
    """The first is gone, the second has it."""
    server.files["/b/wind.csv"] = CONTENT
    file = entry(f"{server.url}/a/wind.csv", f"{server.url}/b/wind.csv")
    assert fetch(file, tmp_path).path.exists()
    assert [path for path, _ in server.requests] == ["/a/wind.csv", "/b/wind.csv"]


def test_a_mirror_by_url_is_asked_instead(server: Server, tmp_path: Path) -> None:
    """With the folder first, then flat."""
    server.files["/copy/wind.csv"] = CONTENT
    file = entry("https://unreachable.invalid/wind.csv")
    assert fetch(file, tmp_path, mirror=f"{server.url}/copy/").path.exists()
    assert [path for path, _ in server.requests] == ["/copy/wind/wind.csv", "/copy/wind.csv"]


@pytest.mark.parametrize("place", ["wind/wind.csv", "wind.csv"])
def test_a_mirror_may_be_a_directory(tmp_path: Path, place: str) -> None:
    """Copied and checked like a download."""
    (tmp_path / "mirror" / place).parent.mkdir(parents=True)
    (tmp_path / "mirror" / place).write_bytes(CONTENT)
    done = fetch(entry("https://unreachable.invalid/"), tmp_path / "to", mirror=str(tmp_path / "mirror"))
    assert done.path.read_bytes() == CONTENT


def test_offline_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    """Every address with its fault, then the way out; no empty file is left."""
    with pytest.raises(FetchError) as raised:
        fetch(entry("http://127.0.0.1:9/wind.csv"), tmp_path)
    assert "http://127.0.0.1:9/wind.csv: " in str(raised.value)
    assert "Give --mirror a directory or URL that holds wind/wind.csv" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_without_a_checksum_it_must_be_asked_for(server: Server, tmp_path: Path) -> None:
    """`no checksum known`; with --no-verify it is taken and its SHA-256 is told."""
    server.files["/wind.csv"] = CONTENT
    file = entry(f"{server.url}/wind.csv", checked=False, rows=50_000)
    with pytest.raises(FetchError, match="no checksum known"):
        fetch(file, tmp_path)
    assert server.requests == []
    done = fetch(file, tmp_path, verify=False)
    assert not done.is_verified
    assert done.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_without_a_checksum_the_published_rows_must_be_there(server: Server, tmp_path: Path) -> None:
    """A truncated file is noticed by its count."""
    server.files["/wind.csv"] = CONTENT
    with pytest.raises(FetchError, match="has 50000 rows, 27303999 were published"):
        fetch(entry(f"{server.url}/wind.csv", checked=False, rows=27_303_999), tmp_path, verify=False)
    assert not (tmp_path / "wind.csv").exists()


def test_no_verify_does_not_switch_off_a_known_checksum(server: Server, tmp_path: Path) -> None:
    """It is for files whose checksum nobody published."""
    server.files["/wind.csv"] = CONTENT.replace(b"0.5", b"0.6")
    with pytest.raises(FetchError, match="is not what was published"):
        fetch(entry(f"{server.url}/wind.csv"), tmp_path, verify=False)


def test_a_file_of_that_name_with_other_content_is_left_alone(tmp_path: Path) -> None:
    """Somebody's own file is not overwritten."""
    (tmp_path / "wind.csv").write_text("mine")
    with pytest.raises(FetchError, match="move it away"):
        fetch(entry("http://127.0.0.1:9/"), tmp_path)
    assert (tmp_path / "wind.csv").read_text() == "mine"


def test_two_fetches_at_once_do_not_mix(server: Server, tmp_path: Path) -> None:
    """The second is told to wait."""
    import fcntl

    with (tmp_path / "wind.csv.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="is being written by another fetch"):
            fetch(entry(f"{server.url}/wind.csv"), tmp_path)


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With its path and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(FetchError, match=r"wind: .*Not a directory"):
        fetch(entry("http://127.0.0.1:9/"), tmp_path / "file" / "to")
