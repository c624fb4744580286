"""A profile by its name or its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4, PROFILES
from fleet.profile_file import Profiles, find_profile, is_file, placed
from fleet.profiles.document import MAX_DOCUMENT_BYTES, ProfileDocumentError
from fleet.profiles.measured_watts import AssumedWatts


def write(path: Path) -> str:
    """A file as `heron profile run` writes it."""
    document = document_of([row_of(LLAMA_70B_H100_TP4, 8, 512, 1980)])
    path.write_text(json.dumps(document.model_dump(mode="json")))
    return str(path)


def test_a_name_is_a_shipped_profile_and_what_ends_in_json_a_file(tmp_path: Path) -> None:
    """The file's watts are completed by what the configuration says."""
    assert not any(is_file(name) for name in PROFILES)
    assert find_profile("llama-3.1-70b/h100/tp4") is LLAMA_70B_H100_TP4
    found = find_profile(write(tmp_path / "mine.json"), AssumedWatts(stopped=111.0))
    assert (found.model, found.stopped_watts) == ("llama-3.1-70b", 111.0)


def test_a_file_without_watts_is_no_profile_until_somebody_says_them(tmp_path: Path) -> None:
    """Then they are the configuration's, and the profile says so."""
    path = tmp_path / "mine.json"
    rows = [row_of(LLAMA_70B_H100_TP4, 8, 512, 1980, watts=None)]
    path.write_text(json.dumps(document_of(rows, idle_watts=None).model_dump(mode="json")))
    with pytest.raises(ProfileDocumentError, match=r"mine\.json: no row has watts"):
        find_profile(str(path))
    found = find_profile(str(path), AssumedWatts(idle=500.0, busy=2100.0))
    assert (found.idle_watts, found.watts(8, 1980), found.has_assumed_watts) == (500.0, 2100.0, True)
    assert not find_profile(write(path)).has_assumed_watts


def test_a_file_is_placed_and_nobodys_home_is_refused(tmp_path: Path) -> None:
    """A name stays a name."""
    assert placed("mine.json", tmp_path) == str(tmp_path / "mine.json")
    assert placed("~/mine.json", tmp_path) == str(Path.home() / "mine.json")
    assert placed("llama-3.1-70b/h100/tp4", tmp_path) == "llama-3.1-70b/h100/tp4"
    with pytest.raises(ProfileDocumentError, match=r"~nosuchuser/mine\.json: there is no such home"):
        placed("~nosuchuser/mine.json", tmp_path)


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """What changes on disk counts at the next start."""
    profiles, path = Profiles(), tmp_path / "mine.json"
    found = profiles.find(write(path))
    path.unlink()
    assert profiles.find(str(path)) is found


def test_a_name_that_nobody_knows_is_told_which_there_are() -> None:
    """And that it may be a file."""
    with pytest.raises(ProfileDocumentError, match=r"'mine' is no profile: known are llama.*end in \.json"):
        find_profile("mine")


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    """A pipe or a device would never end."""
    pipe, large, folder = tmp_path / "pipe.json", tmp_path / "large.json", tmp_path / "folder.json"
    os.mkfifo(pipe)
    folder.mkdir()
    with large.open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    for path in (pipe, folder, tmp_path / "nothing.json", Path("/dev/zero.json"), Path("a\0.json")):
        with pytest.raises(ProfileDocumentError, match=r"is not there, or is no file.*heron profile run"):
            find_profile(str(path))
    with pytest.raises(ProfileDocumentError, match=f"more than {MAX_DOCUMENT_BYTES} bytes"):
        find_profile(str(large))
    looping = tmp_path / "loop.json"
    looping.symlink_to(looping)
    with pytest.raises(ProfileDocumentError, match=r"loop\.json"):
        find_profile(str(looping))
