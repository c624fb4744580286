"""docs/metrics.md as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>heron_\w+)` \| (?P<kind>\w+) \| (?P<labels>[\w, ]*?) ?\| (?P<rest>.+) \|$")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True, kw_only=True)
class Documented:
    """One row of a table."""

    name: str
    kind: str
    labels: tuple[str, ...]
    cells: tuple[str, ...]
    """Meaning, and what to do."""

    @property
    def series(self) -> tuple[str, ...]:
        """Names in Prometheus."""
        return tuple(self.name + suffix for suffix in SUFFIXES[self.kind])


def documented() -> list[Documented]:
    """Every row, in order; a line that begins like one and is none is an error."""
    rows = []
    for line in DOCUMENT.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        match = ROW.match(line)
        assert match is not None, line
        rows.append(
            Documented(
                name=match["name"],
                kind=match["kind"],
                labels=tuple(label.strip() for label in match["labels"].split(",") if label.strip()),
                cells=tuple(cell.strip() for cell in match["rest"].split("|")),
            )
        )
    return rows
