"""Files that commands are given: looked at before the work begins, so that an hour's run does not end in an
error that a second could have told.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fleet.config import ConfigError


def check_writable(option: str, path: Path | None) -> None:
    """`path` can be written, as far as that is known beforehand; None: nothing is to be written.

    Raises:
        ConfigError: it is a directory, its directory is not there, or either is not this user's to write.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path}: cannot be written: it is a directory")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: cannot be written: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option} {path}: cannot be written: permission denied")


def read_tables(option: str, path: Path | None, allowed: Collection[str]) -> dict[str, Any]:
    """The top-level keys of a TOML file; none without a file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has a key that is not `allowed`.
    """
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise ConfigError(f"{option} {path}: is no TOML: {error}") from None
    names = ", ".join(sorted(allowed))
    for key in tables:
        if key not in allowed:
            raise ConfigError(f"{option} {path}: no such key: {key}; allowed are {names}")
    return tables
