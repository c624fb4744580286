"""Keeps `Slots` told of what the site's instances can take now: clock, profile, SLO, recent mean request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.profile import PerformanceProfile
from site_agent.engine_metrics import MetricsWindow
from site_agent.limits import Limits, MeanWork, Slo, instance_watts, limits_of
from site_agent.slots import Slots

UPDATE_SECONDS = 1.0
"""As often as engines are asked; a new clock counts at once."""


@dataclass(slots=True, kw_only=True)
class SiteLimits:
    """`update` is called at every turn of the power loop."""

    slots: Slots
    profile: PerformanceProfile
    is_profile_assumed: bool
    slo: Slo
    windows: Mapping[str, MetricsWindow]
    others: Mapping[str, tuple[PerformanceProfile, int]] = field(default_factory=dict)
    """Profile and slots of the instances that have another tensor-parallel degree than `profile`."""
    _clock_mhz: int | None = field(default=None)
    _updated_at: float = field(default=float("-inf"))

    def update(self, clock_mhz: int, now: float) -> None:
        """Bring limits and mean up to date, at most once a second."""
        if clock_mhz == self._clock_mhz and now < self._updated_at + UPDATE_SECONDS:
            return
        self._clock_mhz, self._updated_at = clock_mhz, now
        self._learn()
        self.slots.limits = self._limits(self.profile, clock_mhz, self.slots.limits.max_concurrency)
        made: dict[tuple[PerformanceProfile, int], Limits] = {}
        for instance_id, (profile, most) in self.others.items():
            if (profile, most) not in made:
                made[profile, most] = self._limits(profile, clock_mhz, most)
            self.slots.set_limits(instance_id, made[profile, most])

    def _limits(self, profile: PerformanceProfile, clock_mhz: int, most: int) -> Limits:
        if self.is_profile_assumed:  # watts are the operator's; the rest is nobody's
            return Limits(max_concurrency=most, watts=instance_watts(profile, clock_mhz, most))
        return limits_of(profile, clock_mhz, max_concurrency=most, slo=self.slo, mean=self.slots.mean)

    def _learn(self) -> None:
        """The mean of what finished of late; as before where nothing did."""
        found = [work for window in self.windows.values() if (work := window.work()) is not None]
        finished = sum([one[2] for one in found])
        if finished > 0:
            self.slots.mean = MeanWork(
                prompt_tokens=sum([one[0] for one in found]) / finished,
                output_tokens=sum([one[1] for one in found]) / finished,
            )
