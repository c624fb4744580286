"""Which state of code and data a result belongs to: hashes over all that can change it.

Finer than a commit, and right where the working tree differs from any: of our sources those that a run
imports, itself or by others. Of packages of others, those whose arithmetic is in the results: the solver and
the arrays, by version.
"""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

ROOTS = ("simulator.run", "simulator.bounds")
"""What makes a result."""
DECIDING = ("fleet", "power_feed", "replay", "router.config", "router.policy", "site_agent", "simulator")
"""Packages and modules whose imports are followed. What is elsewhere carries requests: of that, what the
simulator itself imports counts, and goes no further."""
LIBRARIES = ("highspy", "numpy")
READ_BYTES = 1 << 20


@lru_cache(maxsize=1)
def code_state() -> str:
    """The same string for the same deciding sources."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(versions().encode())
    for path in deciding_sources(root):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def deciding_sources(root: Path) -> list[Path]:
    """Files under `root` that a run imports, in order; of a compiled module the source that lies beside."""
    found: set[Path] = set()
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        place = root.joinpath(*name.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file() and path not in found:
                found.add(path)
                waiting += [
                    one for one in _imports(path) if _is_deciding(one) or name.startswith("simulator")
                ]
    return sorted(found)


def _is_deciding(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in DECIDING)


def _imports(path: Path) -> Iterator[str]:
    """Names of modules, and of what may be one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


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
