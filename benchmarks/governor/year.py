"""The pure governor on real wind: cap-exceeded seconds, and energy against perfect foresight.

One server of 8 GPUs at one wind site, right-sized: its highest draw is the p-th percentile of the site's
power. Between the record's samples the mean is linear, with turbulence on top (`simulator.wind`); sudden
trips are injected (to a random share of the power, back after a minute or two). The load saturates. The
server is switched off while the grant is below its idle draw, and takes `BOOT_SECONDS` to come back.

Actuators and meter lag: a clock takes hold `CLOCK_LAG_SECONDS` after the order, an engine is gone
`STOP_SECONDS` after it, GPUs follow in 0.3 s, the meter is `METER_DELAY_SECONDS` old and noisy.

**Foresight** (`foresight.py`) draws at every second the most that any configuration draws under that second's
cap less the guard. *Ideal*: engines are up just when they are wanted, so no governor can draw more within the
same margin. *With the same lags*: an engine serves when its start has fitted for `START_SECONDS`, a server
when its idle draw has for `BOOT_SECONDS`; what a ride-through bridges breaks neither. It knows no hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.governor.foresight import foresight_joules
from benchmarks.governor.site import SimulatedSite
from benchmarks.governor.switched import BOOT_SECONDS, cap_at, live_under
from fleet.power import RideThrough
from fleet.profile import PROFILES, SitePowerModel
from simulator.trips import trips
from simulator.wind import Turbulence, per_second
from site_agent.site_model import FULL_POWER_GUARD_RATIO, SiteModel
from site_agent.situation import GovernorRule, SetClock, StartEngine

DAY_SECONDS = 86_400
MARGIN_RATIO = 0.05
START_SECONDS = 60.0
STOP_SECONDS = 1.0
CLOCK_LAG_SECONDS = 0.2
METER_DELAY_SECONDS = 0.3


def reference_model(max_concurrency: int = 64) -> SiteModel:
    """The reference server of all experiments at tensor-parallel 4."""
    profile = PROFILES["llama-3.1-70b/h100/tp4"]
    return SiteModel(
        profile=profile,
        power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
        instances=8 // profile.tensor_parallel_degree,
        max_concurrency=max_concurrency,
        clocks_mhz=profile.clocks_mhz,
    )


@dataclass(slots=True, kw_only=True)
class DayResult:
    """Of one stretch of wind."""

    seconds: int = 0
    trips: int = 0
    exceeded_seconds: float = 0.0
    """With the server's idle draw within the cap: what a governor can keep."""
    below_idle_seconds: float = 0.0
    """Above a cap that the server's idle draw exceeds, until it is switched off."""
    episodes: int = 0
    starts: int = 0
    clock_changes: int = 0
    decisions: int = 0
    broken: int = 0
    joules: float = 0.0
    ideal_joules: float = 0.0
    """Of foresight that needs no time."""
    foresight_joules: float = 0.0
    """Of foresight with the same lags."""
    wind_joules: float = 0.0

    @property
    def energy_ratio(self) -> float:
        """Our draw ÷ that of foresight with the same lags."""
        return self.joules / self.foresight_joules if self.foresight_joules else 1.0

    @property
    def ideal_ratio(self) -> float:
        """Our draw ÷ that of foresight that needs no time."""
        return self.joules / self.ideal_joules if self.ideal_joules else 1.0

    def add(self, other: DayResult) -> None:
        """Sum up."""
        for name in DayResult.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def nameplate_watts(model: SiteModel, samples: Sequence[float], percentile: float) -> float:
    """So that the server's full draw under its margin is this percentile of the site's power."""
    known = sorted(value for value in samples if not math.isnan(value))
    level = known[int(percentile / 100 * (len(known) - 1))]
    if level <= 0:
        raise ValueError(f"the {percentile:g}th percentile of the wind is 0: choose a higher one")
    return model.full_watts / (1 - MARGIN_RATIO) / level


def run_day(
    model: SiteModel,
    samples: Sequence[float],
    *,
    period_seconds: float,
    start_seconds: float,
    seconds: int,
    nameplate: float,
    rule: GovernorRule,
    trips_per_day: float,
    turbulence: Turbulence,
    seed: str,
    control: str = "governed",
) -> DayResult:
    """One stretch, from dark to its end."""
    rng = random.Random(seed)
    wind = per_second(
        samples,
        period_seconds=period_seconds,
        start_seconds=start_seconds,
        seconds=seconds,
        nameplate_watts=nameplate,
        turbulence=turbulence,
        seed=seed,
    ).tolist()
    fallen = trips(seconds, trips_per_day, rng)
    for begin, end, share in fallen:
        for second in range(begin, min(end, seconds)):
            wind[second] *= share
    most = model.full_watts * (1 + FULL_POWER_GUARD_RATIO)
    idle = model.server_idle_watts
    caps = [min(watts * (1 - MARGIN_RATIO), most) for watts in wind]
    caps = [cap if cap >= idle else 0.0 for cap in caps]
    site = SimulatedSite(
        model,
        rule,
        RideThrough.for_site(max_site_watts=most),
        cap_at(caps),
        rng,
        control_name=control,
        start_seconds=START_SECONDS,
        stop_seconds=STOP_SECONDS,
        clock_lag_seconds=CLOCK_LAG_SECONDS,
        meter_delay_seconds=METER_DELAY_SECONDS,
        is_judged_by_meter=False,
    )
    live_under(site, caps)
    ideal, lagging = foresight_joules(
        model,
        caps,
        guard_ratio=rule.guard_ratio,
        start_seconds=START_SECONDS,
        boot_seconds=BOOT_SECONDS,
        ride_through_seconds=site.ride_through.seconds,
    )
    return DayResult(
        seconds=seconds,
        trips=len(fallen),
        exceeded_seconds=site.judge.exceeded_seconds - site.judge.below_idle_seconds,
        below_idle_seconds=site.judge.below_idle_seconds,
        episodes=site.judge.episodes,
        starts=sum(isinstance(command, StartEngine) for _, command in site.commands),
        clock_changes=sum(isinstance(command, SetClock) for _, command in site.commands),
        decisions=site.decisions,
        broken=site.broken,
        joules=site.joules,
        ideal_joules=ideal,
        foresight_joules=lagging,
        wind_joules=sum(wind),
    )
