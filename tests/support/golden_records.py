"""The golden records: one example of each record of the wire contract, as it stands in docs/records.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet.records import (
    ApiKey,
    Cordon,
    Plan,
    PlannerLease,
    PowerReading,
    RouterPresence,
    SiteInfo,
    SiteReport,
)
from fleet.wire import Document

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "records"
RECORDS: tuple[type[Document], ...] = (
    PowerReading,
    SiteInfo,
    SiteReport,
    Plan,
    RouterPresence,
    PlannerLease,
    ApiKey,
    Cordon,
)
KINDS = tuple(record.kind for record in RECORDS)
MINIMAL_SITE_REPORT = "SiteReport.minimal"


def golden_bytes(name: str) -> bytes:
    """The file as it is."""
    return (FOLDER / f"{name}.json").read_bytes()


def golden_value(name: str) -> dict[str, Any]:
    """The file as a JSON value, a fresh one each time."""
    value: dict[str, Any] = json.loads(golden_bytes(name))
    return value
