"""What the feed asks of a source. Pure: time is an argument, and the same instant gives the same answer.

A record (a file, a script) knows its whole future. A live source must run to know anything: it has a task
that puts the newest measurement where `measurement` finds it, and that is the only difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

Measures = Literal["available", "produced"]
"""What the wind could give, or what the farm gave. A curtailed farm produces less than it could, and sites
that follow their own curtailed production starve; `produced` needs a curtailment signal (DESIGN §8)."""

FaultKind = Literal[
    "connect",
    "timeout",
    "silence",
    "credentials",
    "refused",
    "protocol",
    "missing",
    "wrong_type",
    "bad_status",
    "clock",
    "too_large",
    "internal",
]
"""What can go wrong between a source and the feed; a metric's label, so the list is closed."""


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
    is_repeat: bool = False
    """Only what else goes into it was measured anew: no new word for or against this value."""


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


@dataclass(slots=True, kw_only=True)
class LiveStatus:
    """How a live source fares; its own task writes it."""

    is_connected: bool = False
    connections: int = 0
    """Times that it was reached; one less than that are reconnects."""
    faults: dict[FaultKind, int] = field(default_factory=dict)
    last_fault: tuple[FaultKind, str] | None = None
    """Kind and message of the latest."""
    value_at_unix_seconds: float | None = None
    """When a value last came, by the feed's own clock; None: never."""


class Watcher(Protocol):
    """Who wants to know at once what happens to a live source."""

    def changed(self) -> None:
        """There is a newer measurement."""

    def connected(self) -> None: ...

    def failed(self, kind: FaultKind) -> None: ...


class LiveSource(Source, Protocol):
    """A source that must run."""

    @property
    def kind(self) -> str:
        """As in the configuration."""

    @property
    def status(self) -> LiveStatus: ...

    def watch(self, watcher: Watcher) -> None:
        """Tell one watcher; before `run`."""

    async def run(self) -> None:
        """Keep the connection up, for ever. Nothing that the other side does ends it."""
