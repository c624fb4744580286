"""What the workers of one router share of the load that they put on a model at a site. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """One (site, model)'s part of the memory that all workers of a router see.

    The newest figure is one for all, and so is what was in flight when it came: were each worker to count
    from the moment at which it hears of a report, every one would send what the report has room for.
    """

    in_flight: memoryview[int]
    """One cell per worker, which alone writes it."""
    own: int
    """Which of them is this worker's."""
    figure: memoryview[int]
    """One cell: room, times 2^32, plus what was in flight when it was given. One word, so that both change at
    once; whoever has a newer figure writes it."""
    prefill_clear_at: memoryview[float]
    """One cell: monotonic seconds, a clock that all processes of a machine have in common. Written by all; a
    lost update lets one prompt more through."""
    worked_off_at: memoryview[float]
    """The same of all work, as `router.policy.triage` counts it."""
    takes_reports: bool = False
    """The one process that writes the figures of reports, before it tells the others of them."""
