"""Which state of code and data a result belongs to: hashes over all that can change it.

Finer than a commit where only documents changed, and right where the working tree differs from any commit.
Of packages of others, those whose arithmetic is in the results: the solver and the arrays, by version.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("fleet", "power_feed", "replay", "router/policy", "site_agent", "simulator")
LIBRARIES = ("highspy", "numpy")
READ_BYTES = 1 << 20
UNRELATED = frozenset({"report.py", "plots.py", "html.py", "batch.py", "cache.py"})
"""Of the simulator: they show results, or find cells to run."""


@lru_cache(maxsize=1)
def code_state() -> str:
    """The same string for the same sources."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(versions().encode())
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if package == "simulator" and path.name in UNRELATED:
                continue
            digest.update(str(path.relative_to(root)).encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def versions() -> str:
    """Of Python and of the libraries that compute; a solver that is not installed solves nothing."""
    found = [f"python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} none")
    return ", ".join(found)


def files_state(paths: Iterable[Path]) -> str:
    """The same string for the same contents in the same order, wherever the files lie.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(_file_state(path, status.st_size, status.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=64)
def _file_state(path: Path, _size: int, _changed_at: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()
