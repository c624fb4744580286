"""Which version of Heron runs."""

from __future__ import annotations

from importlib import metadata


def installed_version() -> str:
    """Of the package; `unknown` when run from files that were never installed."""
    try:
        return metadata.version("heron-router")
    except metadata.PackageNotFoundError:
        return "unknown"
