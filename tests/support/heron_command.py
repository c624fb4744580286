"""Running the real command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

HERON = (sys.executable, "-m", "cli.main")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A `heron` command that has ended."""

    code: int
    output: str
    """Standard output and error together."""
    summary: dict[str, Any] | None
    """What it wrote as JSON, if it did."""

    def values(self) -> dict[str, Any]:
        """The JSON summary, which must be there."""
        assert self.summary is not None, self.output
        return self.summary
