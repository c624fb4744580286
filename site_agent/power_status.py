"""The power loop's view of the site, as others read it: metrics, report, ingress."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.records import DrawSource, PowerQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerStatus:
    """One moment."""

    cap_watts: float
    draw_watts: float
    draw_source: DrawSource
    quality: PowerQuality | None
    """Of the last reading; None before the first."""
    target_instances: int
    """How many the governor wants awake."""
    drain_deadline_at: float | None
    """Monotonic."""

    episode_at: float | None = None
    """When the ride-through episode began that runs; monotonic. None: none runs."""

    @property
    def headroom_watts(self) -> float:
        """Negative while the draw is above the cap."""
        return self.cap_watts - self.draw_watts
