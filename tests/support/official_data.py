"""Where the official data files are: never in the repository; a test that needs an absent one skips, loudly.

Looked for under `HERON_OFFICIAL_DATA`, else under `shared/data` beside the repository, in sub-folders too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "HERON_OFFICIAL_DATA"
_BESIDE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "data"


def path(name: str) -> Path:
    """The file of this name, or `pytest.skip` saying what is missing and how to provide it."""
    given = os.environ.get(VARIABLE)
    root = Path(given) if given else _BESIDE_REPOSITORY
    found = sorted(root.rglob(name)) if root.is_dir() else []
    if not found:
        pytest.skip(
            f"official data file {name} is absent; fetch it (heron data) and set {VARIABLE} to its folder"
        )
    return found[0]
