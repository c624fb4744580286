"""The catalogue of official files."""

from __future__ import annotations

import hashlib
import re

import pytest
from support import official_data

from cli.catalogue import CATALOGUE, DataFile


def test_names_and_files_are_unique() -> None:
    """A name means one file, and no two overwrite each other."""
    assert len({file.name for file in CATALOGUE}) == len(CATALOGUE)
    assert len({file.file for file in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("file", CATALOGUE, ids=lambda file: file.name)
def test_each_entry_is_complete(file: DataFile) -> None:
    """HTTPS addresses, a licence, and either a checksum with its size or a count of rows."""
    assert file.urls
    assert all(url.startswith("https://") for url in file.urls)
    assert file.licence
    assert "/" not in file.file
    if file.sha256 is None:
        assert file.rows
    else:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size_bytes


@pytest.mark.official_data
@pytest.mark.parametrize("file", [file for file in CATALOGUE if file.sha256], ids=lambda file: file.name)
def test_checksums_are_those_of_the_official_files(file: DataFile) -> None:
    """Size and SHA-256 as the file itself has them."""
    content = official_data.path(file.file).read_bytes()
    assert len(content) == file.size_bytes
    assert hashlib.sha256(content).hexdigest() == file.sha256
