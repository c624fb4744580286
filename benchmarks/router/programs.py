"""What has to be there before anything is measured: the C programs, and the peers' environments.

All of it lives in the user's cache, and is made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


class MissingError(RuntimeError):
    """Something is not installed; the message says what to do."""


def cache() -> Path:
    """`heron` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "heron"


def native(name: str) -> Path:
    """The compiled `native/<name>.c`.

    Raises:
        MissingError: there is no C compiler.
    """
    source = HERE / "native" / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    binary = cache() / "bench-native" / f"{name}-{digest}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        partial = binary.with_suffix(f".{os.getpid()}")
        subprocess.run([system("gcc"), "-O3", "-Wall", "-o", partial, source], check=True)
        partial.rename(binary)
    return binary


def system(name: str) -> str:
    """A program of the system.

    Raises:
        MissingError: it is not there.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise MissingError(f"there is no {name}: apt-get install {name}")
    return path


def pinned(text: str) -> dict[str, str]:
    """Name → requirement, of the lines of a requirements file."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {line.partition("==")[0].partition("[")[0]: line for line in lines if line}


def requirement(name: str) -> str:
    """The pinned requirement of a peer."""
    return pinned((HERE / "peers.txt").read_text())[name]


def environment(name: str) -> Path:
    """The bin directory of a peer's own environment; it is made where it is not there.

    Raises:
        MissingError: it cannot be installed.
    """
    wanted = requirement(name)
    directory = cache() / f"bench-{name}-{wanted.partition('==')[2]}"
    if not (directory / ".whole").exists():
        print(f"installing {wanted}", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
            pip = [str(directory / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
            subprocess.run([*pip, wanted], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise MissingError(f"{wanted} could not be installed: {str(error.stderr)[-500:]}") from None
        (directory / ".whole").touch()
    return directory / "bin"
