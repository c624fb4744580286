"""Reads a TOML file of policies' parameters, the same for the router and the simulator:

[power_weighted]
age_seconds = 900

[heron]
packing = 0.5
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from fleet.config import MAX_CONFIG_BYTES, ConfigError
from router.policy.parameters import PolicyParameterError
from router.policy.policies import check_tables


def read_parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Policy → its parameters as given, checked.

    Raises:
        ConfigError: unreadable, not TOML, no such policy or parameter, or a value that is not allowed.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes, at most {MAX_CONFIG_BYTES}")
    try:
        return check_tables(tomllib.loads(raw.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except PolicyParameterError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
