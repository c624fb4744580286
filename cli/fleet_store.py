"""Which fleet's Redis a command speaks to: `heron keys`, `heron cordon`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.services import CONFIG_VARIABLE
from fleet.config import NO_FILE, ConfigError, load_fleet
from fleet.keys import Keys
from fleet.redis_store import RedisStore
from fleet.signing import SIGNS_NOTHING
from fleet.signing_keys import Signing, signing_of, trust_of

PATIENCE_SECONDS = 10.0
"""With Redis: a person waits, no request does."""


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        help=f"the fleet's configuration, for its [fleet] table (default: ${CONFIG_VARIABLE})",
    )


def open_store(tables: Mapping[str, Any], path: Path | None, *, writes: bool) -> tuple[RedisStore, Signing]:
    """The store of the fleet that these tables of `path` describe, and how an operator's records are signed.
    Who only reads needs no key.

    Raises:
        ConfigError: they are wrong, or the key cannot be used.
    """
    source = NO_FILE if path is None else str(path)
    fleet = load_fleet(tables, source, path=path)
    try:
        signing = (
            signing_of(fleet, "operator", "fleet", fleet.operator_key_file, key="operator_key_file")
            if writes
            else Signing(SIGNS_NOTHING, trust_of(fleet))
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return RedisStore(fleet.redis_url, Keys(fleet=fleet.name), timeout_seconds=PATIENCE_SECONDS), signing
