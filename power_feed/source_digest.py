"""A check sum of how a source is read: its scaling, what it measures, its curtailment signal. Pure.

A restarted feed learns from its power log (`history`). Where a unit or a scale was wrong and has since been
corrected, the old watts must teach nothing: so whatever may change the numbers is in the check sum, and only
what concerns the connection is left out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fleet.config import ConfigModel

CONNECTION_KEYS = frozenset(
    {
        "timeout_seconds",
        "max_retry_seconds",
        "silent_seconds",
        "poll_seconds",
        "username",
        "password_file",
        "security",
        "tls",
        "client_id",
        "headers",
        "bearer_token_file",
        "ca_file",
        "qos",
    }
)
"""Settings of a source, also inside another, by which no number changes."""
CHARACTERS = 8


def digest(source: ConfigModel) -> str:
    """Of a farm's `source` table; the same in every process."""
    counted = json.dumps(_counted(source.model_dump(mode="json")), sort_keys=True)
    return hashlib.sha256(counted.encode()).hexdigest()[:CHARACTERS]


def _counted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _counted(inner) for key, inner in value.items() if key not in CONNECTION_KEYS}
    return [_counted(inner) for inner in value] if isinstance(value, list) else value
