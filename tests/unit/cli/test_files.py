"""Files that commands are given."""

from pathlib import Path

import pytest

from cli.files import check_writable, read_tables
from fleet.config import ConfigError


def test_what_can_be_written_passes(tmp_path: Path) -> None:
    """A new file, an old one, and none at all."""
    old = tmp_path / "old.json"
    old.write_text("{}")
    for path in (tmp_path / "new.json", old, None):
        check_writable("--json", path)
    assert old.read_text() == "{}"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    """A directory; a file in a directory that is not there."""
    with pytest.raises(ConfigError, match=r"--json .*: cannot be written: it is a directory"):
        check_writable("--json", tmp_path)
    with pytest.raises(ConfigError, match=r"--report .*: cannot be written: there is no directory .*nowhere"):
        check_writable("--report", tmp_path / "nowhere" / "out.html")


def test_tables_of_a_file(tmp_path: Path) -> None:
    """With the keys that are allowed; without a file there are none."""
    path = tmp_path / "sites.toml"
    path.write_text("count = 3\n")
    assert read_tables("--sites", path, ("count",)) == {"count": 3}
    assert read_tables("--sites", None, ("count",)) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[sitee]\n", "no such key: sitee; allowed are count, site"),
        (b"x = = 1", "is no TOML"),
        (b"\xff\xfe\x00", "is no TOML"),
    ],
)
def test_a_file_that_is_none_of_this_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A misspelt key, bad TOML, a binary file."""
    path = tmp_path / "sites.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_tables("--sites", path, ("count", "site"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """And a directory."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_tables("--sites", tmp_path / "none.toml", ())
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_tables("--sites", tmp_path, ())
