"""The note of what Heron changed on GPUs, for whoever puts it back: power limits by UUID, in watts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


def read(path: Path) -> dict[str, float]:
    """What is noted; nothing where there is no note, or none that can be read, which is said."""
    try:
        values = json.loads(path.read_text())
        return {str(uuid): float(watts) for uuid, watts in values["power_limit_watts"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the note of GPU settings cannot be read; ignored", extra={"error": repr(error)})
        return {}


def write(path: Path, settings: Mapping[str, float]) -> None:
    """Note this in place of what was; no file where it is nothing.

    Raises:
        OSError: it cannot be written.
    """
    if not settings:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"power_limit_watts": settings}))
    partial.replace(path)
