"""What the site would draw and deliver in each configuration it can choose. Pure.

A configuration is (awake instances, clock). Its *worst case* is every awake instance busy at the worst batch
that admission allows, every other GPU without an engine, overhead and hosts on top: what fits by this number
fits whatever the load does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fleet.profile import PerformanceProfile, ProfileRow, SitePowerModel

FULL_POWER_GUARD_RATIO = 0.10
"""Default `max_site_watts` is the worst case and this much more: room for noise and the governor's guard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How many instances are awake, and at which clock their GPUs run."""

    awake: int
    clock_mhz: int


@dataclass(frozen=True, kw_only=True)
class SiteModel:
    """The profile of one instance, times the instances of the site."""

    profile: PerformanceProfile
    power: SitePowerModel
    instances: int
    max_concurrency: int
    clocks_mhz: tuple[int, ...]
    """Ascending; only the full clock where clocks cannot be set."""

    @property
    def lowest_clock_mhz(self) -> int:
        return self.clocks_mhz[0]

    @property
    def full_clock_mhz(self) -> int:
        return self.clocks_mhz[-1]

    @cached_property
    def server_idle_watts(self) -> float:
        """The site with every engine stopped, overhead included: the least it can draw."""
        return self.power.site_watts(self.instances * self.profile.stopped_watts)

    @cached_property
    def full_watts(self) -> float:
        """Worst case of everything awake at full clock."""
        return self.worst_watts(self.instances, self.full_clock_mhz)

    def worst_watts(self, awake: int, clock_mhz: int) -> float:
        """Site draw with `awake` instances busy at this clock and the rest stopped."""
        stopped = self.instances - awake
        return self.power.site_watts(
            awake * self._worst_instance_watts[clock_mhz] + stopped * self.profile.stopped_watts
        )

    def output_tokens_per_second(self, awake: int, clock_mhz: int) -> float:
        """Decode throughput with every slot taken; orders configurations, promises nothing."""
        return awake * self.max_concurrency / self.profile.itl_seconds(self.max_concurrency, clock_mhz)

    def modelled_watts(self, running: list[int], clock_mhz: int) -> float:
        """Site draw with these running counts of the awake instances: the draw where nothing measures it."""
        awake = sum(self.profile.watts(count, clock_mhz) for count in running)
        return self.power.site_watts(awake + (self.instances - len(running)) * self.profile.stopped_watts)

    def clock_that_fits(self, awake: int, budget_watts: float) -> int | None:
        """The highest clock at which `awake` instances fit, None if none does."""
        for clock in reversed(self.clocks_mhz):
            if self.worst_watts(awake, clock) <= budget_watts:
                return clock
        return None

    def best(self, budget_watts: float, *, most_awake: int | None = None) -> Configuration:
        """The configuration of the highest throughput whose worst case fits; none awake if nothing does.

        At equal throughput the one with more instances, which keeps more requests where they are.
        """
        best, best_rate = Configuration(awake=0, clock_mhz=self.lowest_clock_mhz), 0.0
        for awake in range(1, (self.instances if most_awake is None else most_awake) + 1):
            clock = self.clock_that_fits(awake, budget_watts)
            if clock is None:
                break
            rate = self.output_tokens_per_second(awake, clock)
            if rate >= best_rate:
                best, best_rate = Configuration(awake=awake, clock_mhz=clock), rate
        return best

    @cached_property
    def _worst_instance_watts(self) -> dict[int, float]:
        batches = {1, self.max_concurrency} | {
            row.running_requests for row in self.profile.rows if row.running_requests <= self.max_concurrency
        }
        return {
            clock: max(self.profile.watts(batch, clock) for batch in sorted(batches))
            for clock in self.clocks_mhz
        }


def assumed_profile(
    *, model: str, stopped_watts: float, idle_watts: float, busy_watts: float
) -> PerformanceProfile:
    """A flat profile for hardware that nobody has measured (engines on a CPU): all of it is assumed."""
    source = "assumed: configuration"
    return PerformanceProfile(
        profile_id="assumed",
        model=model,
        gpu_model="unknown",
        tensor_parallel_degree=1,
        full_clock_mhz=1000,
        clocks_mhz=(1000,),
        stopped_watts=stopped_watts,
        idle_watts=idle_watts,
        prefill_tokens_per_second=1000.0,
        kv_tokens=1_000_000,
        max_model_len=1 << 20,
        rows=(ProfileRow(running_requests=1, watts=busy_watts, itl_seconds=0.02, source=source),),
        idle_source=source,
        prefill_source=source,
    )
