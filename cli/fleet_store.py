"""Which fleet's Redis a command speaks to: `heron keys`, `heron cordon`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.services import CONFIG_VARIABLE
from fleet.config import NO_FILE, load_fleet
from fleet.keys import Keys
from fleet.redis_store import RedisStore

PATIENCE_SECONDS = 10.0
"""With Redis: a person waits, no request does."""


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        help=f"the fleet's configuration, for [fleet] name and redis_url (default: ${CONFIG_VARIABLE})",
    )


def open_store(tables: Mapping[str, Any], path: Path | None) -> RedisStore:
    """The store of the fleet that these tables of `path` describe.

    Raises:
        ConfigError: they are wrong.
    """
    fleet = load_fleet(tables, NO_FILE if path is None else str(path))
    return RedisStore(fleet.redis_url, Keys(fleet=fleet.name), timeout_seconds=PATIENCE_SECONDS)
