"""Which version of Heron runs, and how to get the rest of it."""

from __future__ import annotations

from importlib import metadata


def installed_version() -> str:
    """Of the package; `unknown` when run from files that were never installed."""
    try:
        return metadata.version("heron-router")
    except metadata.PackageNotFoundError:
        return "unknown"


def extra_hint(extra: str) -> str:
    """How to install what an extra brings. Not by the package's name: it is on no index."""
    return f"pip install '.[{extra}]' in a checkout of Heron"
