"""What the site would draw and deliver in each configuration it can choose. Pure.

A configuration is (layout, clock): how many instances of each tensor-parallel degree are awake, and the one
clock that all their GPUs run at. Its *worst case* is every awake instance busy at the worst batch that
admission allows, or with nothing but prompts where that draws more, every other GPU without an engine,
overhead and hosts on top: what fits by this number fits whatever the load does.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet.capacity import Slo
from fleet.profile import PerformanceProfile, ProfileRow, SitePowerModel

FULL_POWER_GUARD_RATIO = 0.10
"""Default `max_site_watts` is the worst case and this much more: room for noise and the governor's guard."""
CLOCK_STEP_MHZ = 50
"""About so far apart are the clocks that are set. A profile names them 200 MHz apart, 100 to 300 W of an
instance: watts that would be left unused. GPUs take steps of 15 MHz."""
LEAST_SLOTS_RATIO, BACK_SLOTS_RATIO = 0.125, 0.5
"""Of an instance's slots, those that must fit beside others' for it to stay, and for it to come back."""
MAX_REMEMBERED_LAYOUTS = 4096
"""Far more than the layouts of a server of 8 GPUs."""

Layout = tuple[tuple[int, int], ...]
"""(tensor-parallel degree, instances) of what is awake: ascending, without zeros. Empty: nothing is awake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What is awake, and at which clock its GPUs run."""

    layout: Layout
    clock_mhz: int
    is_worth_a_pause: bool = False
    """As a wish: nothing may serve until it has come about."""

    @property
    def awake(self) -> int:
        """Instances."""
        return sum(count for _, count in self.layout)


@dataclass(frozen=True, kw_only=True)
class SiteModel:
    """The profile of one instance times the instances of the site; further profiles on the same GPUs."""

    profile: PerformanceProfile
    """Of the site's own tensor-parallel degree."""
    power: SitePowerModel
    instances: int
    """How many of the own degree its GPUs can hold."""
    max_concurrency: int
    clocks_mhz: tuple[int, ...]
    """Ascending, as the profile and a plan name them; only the full clock where clocks cannot be set. What is
    set are `steps_mhz`."""
    other_profiles: tuple[PerformanceProfile, ...] = ()
    """Further tensor-parallel degrees that the same GPUs can be split into, for plans that want them."""
    other_max_concurrency: tuple[int, ...] = ()
    """Of those, in their order; empty: the same as `max_concurrency`."""
    slo: Slo | None = None
    """What a request may take here; None: nobody has said."""
    spare_gpus: int = 0
    """GPUs of the server that no instance uses: they draw as those without an engine do."""
    degree: int = field(init=False, compare=False, repr=False)
    """The site's own tensor-parallel degree."""
    gpu_count: int = field(init=False, compare=False, repr=False)
    profiles: dict[int, PerformanceProfile] = field(init=False, compare=False, repr=False)
    """By tensor-parallel degree, the own one first."""
    concurrency: dict[int, int] = field(init=False, compare=False, repr=False)
    """Requests that one instance runs at once, by degree."""
    steps_mhz: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """The clocks that are set: the named ones, and others between them."""
    server_idle_watts: float = field(init=False, compare=False, repr=False)
    """The site with every engine stopped, overhead included: the least it can draw."""
    full_watts: float = field(init=False, compare=False, repr=False)
    """Worst case of everything awake at full clock, in the worst layout of one degree."""
    _clock_positions: dict[int, int] = field(init=False, compare=False, repr=False)
    _stopped_gpu_watts: float = field(init=False, compare=False, repr=False)
    _spare_watts: float = field(init=False, compare=False, repr=False)
    _worst_instance_watts: dict[tuple[int, int], float] = field(init=False, compare=False, repr=False)
    _full_rates: dict[int, dict[int, float]] = field(init=False, compare=False, repr=False)
    _held: dict[tuple[int, int], float] = field(default_factory=dict, init=False, compare=False, repr=False)
    """(degree, requests) → the worst case of so many at the lowest clock, of those asked for."""
    _remembered: dict[Layout, tuple[float, ...]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    _at_full: dict[Layout, Configuration] = field(default_factory=dict, init=False, compare=False, repr=False)
    _least_from: dict[Layout, tuple[float, ...]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        """The tables, made once, each of those before it (compiled there is no `cached_property`)."""
        own, put = self.profile, object.__setattr__
        profiles = {one.tensor_parallel_degree: one for one in (own, *self.other_profiles)}
        others = self.other_max_concurrency or (self.max_concurrency,) * len(self.other_profiles)
        put(self, "degree", own.tensor_parallel_degree)
        put(self, "gpu_count", self.instances * self.degree)
        put(self, "profiles", profiles)
        put(self, "concurrency", dict(zip(profiles, (self.max_concurrency, *others), strict=True)))
        put(self, "steps_mhz", _steps(self.clocks_mhz))
        put(self, "_clock_positions", {clock: position for position, clock in enumerate(self.steps_mhz)})
        put(self, "_stopped_gpu_watts", own.stopped_watts / self.degree)
        put(self, "_spare_watts", self.spare_gpus * self._stopped_gpu_watts)
        worst = {
            (degree, clock): self._worst_up_to(degree, clock, self.concurrency[degree])
            for degree in profiles
            for clock in self.steps_mhz
        }
        put(self, "_worst_instance_watts", worst)
        put(self, "_full_rates", {clock: self._rates(clock) for clock in self.steps_mhz})
        stopped = self.instances * own.stopped_watts + self._spare_watts
        put(self, "server_idle_watts", self.power.site_watts(stopped))
        full = [
            self.worst_watts(self.uniform(self.most(degree), degree), self.full_clock_mhz)
            for degree in profiles
        ]
        put(self, "full_watts", max(full))

    @property
    def lowest_clock_mhz(self) -> int:
        return self.clocks_mhz[0]

    @property
    def full_clock_mhz(self) -> int:
        return self.clocks_mhz[-1]

    def most(self, degree: int) -> int:
        """Instances of this degree that the GPUs can hold; 0 for a degree without a profile."""
        return self.gpu_count // degree if degree in self.profiles else 0

    def uniform(self, awake: int, degree: int | None = None) -> Layout:
        """So many instances of one degree; None: the own one."""
        return ((self.degree if degree is None else degree, awake),) if awake > 0 else ()

    def layout_of(self, degrees: Iterable[int]) -> Layout:
        """Of instances with these degrees; 0 is the own one."""
        counts: dict[int, int] = {}
        for given in degrees:
            degree = given or self.degree
            counts[degree] = counts.get(degree, 0) + 1
        return tuple(sorted(counts.items()) if len(counts) > 1 else counts.items())

    def at_full(self, layout: Layout) -> Configuration:
        """With the full clock, which is no ceiling: one object a layout, as every decision asks for some."""
        found = self._at_full.get(layout)
        if found is None:
            if len(self._at_full) >= MAX_REMEMBERED_LAYOUTS:
                self._at_full.clear()
            found = self._at_full[layout] = Configuration(layout=layout, clock_mhz=self.full_clock_mhz)
        return found

    # Watts

    def worst_watts(self, layout: Layout, clock_mhz: int) -> float:
        """Site draw with all of this busy at this clock and every other GPU without an engine."""
        return self._watts_by_clock(layout)[self._clock_positions[clock_mhz]]

    def rest_watts(self, degree: int) -> float:
        """What an instance that is awake and empty draws at the site beyond stopped GPUs."""
        profile = self.profiles[degree or self.degree]
        stopped = profile.tensor_parallel_degree * self._stopped_gpu_watts
        return max(0.0, profile.idle_watts - stopped) * self.power.overhead_ratio

    def start_spare_watts(self, degree: int, *, is_alone: bool) -> float:
        """How much less an instance that starts draws than its worst case, at the lowest clock.

        It serves nobody: for the most part it loads weights, at about its idle draw; what it runs to try
        itself out is one prompt or one request at a time. Only where it is alone does the first count.
        """
        degree, clock = degree or self.degree, self.lowest_clock_mhz
        profile = self.profiles[degree]
        busy = profile.idle_watts
        if not is_alone:
            busy = max(profile.watts(1, clock), profile.prefill_watts(clock))
        spare = self._worst_instance_watts[degree, clock] - busy
        return max(0.0, spare) * self.power.overhead_ratio

    def held_watts(self, instances: Iterable[tuple[int, int]]) -> float:
        """Worst case at the lowest clock of instances (degree, requests) that run no more than so many."""
        watts, gpus = 0.0, 0
        for given, requests in instances:
            degree = given or self.degree
            most = min(requests, self.concurrency[degree])
            worst = self._held.get((degree, most))
            if worst is None:
                worst = self._held[degree, most] = self._worst_up_to(degree, self.lowest_clock_mhz, most)
            watts += worst
            gpus += degree
        stopped = (self.gpu_count - gpus) * self._stopped_gpu_watts
        return self.power.site_watts(watts + stopped + self._spare_watts)

    def slots_of(self, degree: int, ratio: float) -> int:
        """So large a share of an instance's slots, one at least."""
        return max(1, math.ceil(self.concurrency[degree or self.degree] * ratio))

    def may_come_back(self, degree: int, budget_watts: float) -> bool:
        """Whether one that a dip has emptied is worth the power there is, with some of its slots."""
        slots = self.slots_of(degree, BACK_SLOTS_RATIO)
        return self.held_watts([(degree, slots)]) <= budget_watts

    def clock_that_fits(self, layout: Layout, budget_watts: float) -> int | None:
        """The highest clock at which this fits, None if none does."""
        least = self._least_from.get(layout)
        if least is None:  # of each clock and all above it; ascending, whatever the watts do
            if len(self._least_from) >= MAX_REMEMBERED_LAYOUTS:
                self._least_from.clear()
            watts = self._watts_by_clock(layout)
            least = self._least_from[layout] = tuple(itertools.accumulate(reversed(watts), min))[::-1]
        position = bisect_right(least, budget_watts)
        return self.steps_mhz[position - 1] if position else None

    def modelled_watts(
        self, running: Sequence[int], clock_mhz: int | Sequence[int], degrees: Sequence[int] = ()
    ) -> float:
        """Site draw with these running counts of the awake instances: the draw where nothing measures it.

        `clock_mhz` of all of them, or of each; `degrees` of the same instances; empty: all of the own one.
        """
        degrees = [degree or self.degree for degree in degrees or (0,) * len(running)]
        clocks = (clock_mhz,) * len(running) if isinstance(clock_mhz, int) else clock_mhz
        awake = sum(
            [
                self.profiles[degree].watts(count, clock)
                for count, clock, degree in zip(running, clocks, degrees, strict=True)
            ]
        )
        stopped = (self.gpu_count - sum(degrees)) * self._stopped_gpu_watts
        return self.power.site_watts(awake + stopped + self._spare_watts)

    # What it delivers

    def slots(self, layout: Layout) -> int:
        """Requests that it runs at once."""
        return sum([count * self.concurrency[degree] for degree, count in layout])

    def output_tokens_per_second(self, layout: Layout, clock_mhz: int) -> float:
        """Decode throughput with every slot taken; orders configurations, promises nothing."""
        rates = self._full_rates[clock_mhz]
        return sum([count * rates[degree] for degree, count in layout])

    def best(
        self, budget_watts: float, *, most_awake: int | None = None, degree: int | None = None
    ) -> Configuration:
        """The configuration of one degree with the highest throughput whose worst case fits.

        None awake if nothing does. At equal throughput the one with more instances, which keeps more
        requests where they are.
        """
        degree = self.degree if degree is None else degree
        most = self.most(degree) if most_awake is None else most_awake
        return self.best_of([self.uniform(awake, degree) for awake in range(most + 1)], budget_watts)

    def best_of(self, layouts: Iterable[Layout], budget_watts: float) -> Configuration:
        """The one of these with the highest throughput that fits; at equal throughput the later one."""
        best: Layout = ()
        best_clock, best_rate = self.lowest_clock_mhz, 0.0
        for layout in layouts:
            clock = self.clock_that_fits(layout, budget_watts) if layout else None
            if clock is None:
                continue
            rate = self.output_tokens_per_second(layout, clock)
            if rate >= best_rate:
                best, best_clock, best_rate = layout, clock, rate
        return Configuration(layout=best, clock_mhz=best_clock)

    # Tables, made once

    def _watts_by_clock(self, layout: Layout) -> tuple[float, ...]:
        found = self._remembered.get(layout)
        if found is None:
            if len(self._remembered) >= MAX_REMEMBERED_LAYOUTS:
                self._remembered.clear()
            stopped = self.gpu_count - sum(degree * count for degree, count in layout)
            found = self._remembered[layout] = tuple(
                self.power.site_watts(
                    sum([count * self._worst_instance_watts[degree, clock] for degree, count in layout])
                    + stopped * self._stopped_gpu_watts
                    + self._spare_watts
                )
                for clock in self.steps_mhz
            )
        return found

    def _rates(self, clock_mhz: int) -> dict[int, float]:
        """Of one full instance of each degree."""
        return {
            degree: self.concurrency[degree] / profile.itl_seconds(self.concurrency[degree], clock_mhz)
            for degree, profile in self.profiles.items()
        }

    def _worst_up_to(self, degree: int, clock_mhz: int, requests: int) -> float:
        """Of one that runs at most so many, or does nothing but prefill; measured rows are not monotone."""
        profile = self.profiles[degree]
        batches = {1, max(1, requests)} | {
            row.running_requests for row in profile.rows if row.running_requests <= requests
        }
        found = max(profile.watts(batch, clock_mhz) for batch in sorted(batches))
        return max(found, profile.prefill_watts(clock_mhz))


def _steps(clocks_mhz: tuple[int, ...]) -> tuple[int, ...]:
    steps = list(clocks_mhz[:1])
    for low, high in itertools.pairwise(clocks_mhz):
        parts = max(1, round((high - low) / CLOCK_STEP_MHZ))
        steps += [low + round((high - low) * part / parts) for part in range(1, parts + 1)]
    return tuple(steps)


def slo_of(*, ttft_seconds: float | None, e2e_seconds: float | None) -> Slo | None:
    """Of a configuration; None where it names neither."""
    if ttft_seconds is None and e2e_seconds is None:
        return None
    return Slo(
        ttft_seconds=math.inf if ttft_seconds is None else ttft_seconds,
        e2e_seconds=math.inf if e2e_seconds is None else e2e_seconds,
    )


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
