"""What the feed asks of a source. Pure: time is an argument, and the same instant gives the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Measures = Literal["available", "produced"]
"""What the wind could give, or what the farm gave. A curtailed farm produces less than it could, and sites
that follow their own curtailed production starve; `produced` needs a curtailment signal (DESIGN §8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measurement of a farm's power."""

    observed_at_unix_seconds: float
    """When it was made; the same for as long as it is the latest one."""
    watts: float | None
    """None: nothing usable was measured for that step (a gap, the end of a record). May be NaN, negative or
    absurd: the quality checks judge."""
    is_held: bool = False
    """Meant to stand still (scripted, or a replay that waits for its start), so it cannot be stuck."""


class Source(Protocol):
    """A farm's measurements."""

    @property
    def description(self) -> str:
        """What it is, for a reading's `source`: at most 512 characters."""

    @property
    def measures(self) -> Measures: ...

    @property
    def period_seconds(self) -> float:
        """Wall seconds between two measurements."""

    @property
    def speed(self) -> float:
        """Seconds of the source's own time in a wall second; 1 for what is live."""

    def measurement(self, at_unix_seconds: float) -> Measurement:
        """The latest measurement at that instant."""

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        """The first instant after `at_unix_seconds` at which there is a newer measurement; None: never."""
