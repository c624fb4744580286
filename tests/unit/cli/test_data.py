"""`heron data`: names, listings, messages."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from cli import data
from fleet.config import ConfigError


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args(words))


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"HERON_DATA": "/somewhere"}, "/somewhere"),
        ({"XDG_DATA_HOME": "/share"}, "/share/heron/data"),
        ({}, str(Path.home() / ".local/share/heron/data")),
    ],
)
def test_where_files_lie(environment: dict[str, str], directory: str) -> None:
    """The variable of our own first, then the desktop's, then the usual place."""
    assert str(data.default_directory(environment)) == directory


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """An existing file wins over any name."""
    path = tmp_path / "mine.csv"
    path.touch()
    assert data.resolve(path) == path
    assert data.resolve(str(path)) == path


def test_a_name_leads_to_the_fetched_file(tmp_path: Path) -> None:
    """Once it was fetched."""
    environment = {"HERON_DATA": str(tmp_path)}
    with pytest.raises(ConfigError, match="run `heron data fetch fts-213-wind`"):
        data.resolve("fts-213-wind", environment)
    (tmp_path / "fts213_Wind_data.csv").touch()
    assert data.resolve("fts-213-wind", environment) == tmp_path / "fts213_Wind_data.csv"


def test_what_is_neither_says_which_names_there_are(tmp_path: Path) -> None:
    """And a directory is called one."""
    with pytest.raises(ConfigError, match=r"no such file, and no data set of that name.*rts-gmlc-wind"):
        data.resolve("no-such-wind", {})
    with pytest.raises(ConfigError, match="is a directory"):
        data.resolve(tmp_path, {})


def test_the_list_says_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Licence, checksum, address and whether it was fetched."""
    (tmp_path / "fts213_Wind_data.csv").touch()
    assert run("list", "--to", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "fts-213-wind  (2.0 MB, here)" in text
    assert "rts-gmlc-wind  (3.5 MB, not fetched)" in text
    assert "no checksum known: needs --no-verify" in text


def test_the_list_can_be_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts."""
    assert run("list", "--json", "--to", str(tmp_path)) == 0
    listing = json.loads(capsys.readouterr().out)
    assert listing["directory"] == str(tmp_path)
    assert {"name", "sha256", "licence", "urls", "path"} <= set(listing["files"][0])


def test_an_unknown_name_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    """Exit code 2, by way of the configuration error."""
    with pytest.raises(ConfigError, match="nonsense: no such data set"):
        run("fetch", "fts-213-wind", "nonsense", "--to", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_had_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are fetched all the same; the message says what to do."""
    assert run("fetch", "fts-213-wind", "--mirror", str(tmp_path / "none"), "--to", str(tmp_path)) == 1
    message = capsys.readouterr().err
    assert "fts-213-wind could not be fetched" in message
    assert "--mirror" in message
