"""`[sites.governor]` and `[sites.restart]`: the ladder's time constants, and the patience with engines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.config import ConfigModel
from site_agent.controls import DEFAULT_CONTROL, ControlName
from site_agent.reshaping import HOUR_SECONDS
from site_agent.situation import GovernorRule

MAX_STARTING_RATIO = 0.25
MAX_STARTS_PER_HOUR = 240
"""By default."""


class GovernorOptions(ConfigModel):
    """`[sites.governor]`: the ladder's time constants (see site_agent/governor.py)."""

    enabled: bool = True
    """False: the cap is not kept. For tests that must see it exceeded; said loudly at start."""
    tick_seconds: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Time between two decisions; a new reading is acted on at once."""
    control: ControlName = DEFAULT_CONTROL
    """Who decides: `governed`, or one of those it is compared with (docs/decisions/0009)."""
    guard_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.04
    """The worst case stays this far below the cap: the meter's noise (1 %, four sigma)."""
    turbulence_factor: Annotated[float, Field(ge=0, le=20)] = 6.5
    """Headroom for turbulence: so many times the root mean square of the cap's small falls per second. (Of
    a normal distribution half are rises: 6.5 are 4.6 sigma.) 0: none."""
    reaction_seconds: Annotated[float, Field(ge=0, le=60)] = 1.2
    """From the wind's fall to the first command: the feed's interval and one tick."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 1.5
    """How long requests may finish on an instance that must go while the draw is above the cap."""
    stop_seconds: Annotated[float, Field(ge=0, le=600)] = 1.5
    """From the order to stop an engine until the watts are gone: its end, and the GPUs' lag."""
    further_fall_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The deepest further fall within one episode that must still be kept, as a share of the cap. 1: any, so
    that a fall that puts the draw above the cap empties the site. Less keeps engines and promises less."""
    calm_drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """The same as `drain_seconds` while the draw is within the cap."""
    rest_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    """An instance that a dip of the power has emptied stays awake for so long, where its idle draw fits and
    slows nobody: when power returns it is back at once, without an engine's start. 0: it is stopped."""
    rise_hold_seconds: Annotated[float, Field(ge=0, le=3600)] = 3.0
    """A higher cap counts only when it has lasted so long."""
    rise_step_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Between two steps up."""
    rise_gain_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    """An engine is started only for this much more throughput."""
    max_starts_per_hour: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Engine starts after stops that the governor ordered, all instances together: no flapping. (What ends by
    itself is bounded by `restart.max_per_hour`, each instance for itself.) None: so many that an instance
    spends a quarter of its time starting at most, by `engine.start_seconds`: 15 each at 60 s, 240 in all. On
    real wind there are 0.25 to 0.7 an hour (benchmarks/governor): what holds starts back is resting; a limit
    that binds costs wind."""
    max_switches_per_hour: Annotated[int, Field(ge=0, le=100_000)] = 12
    """Times that instances are taken down which nothing forces down: for a plan, a layout, or to pack."""
    load_hold_seconds: Annotated[float, Field(ge=0, le=86_400)] = 120.0
    """The load to be ready for is the most of so long."""
    load_ratio: Annotated[float, Field(gt=0, le=1)] = 0.6
    """`dynamo_like`: instances are enough for a load up to this share of what they end within the SLO."""
    reshard_patience_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """A change of layout that leaves nothing serving meanwhile waits until nothing runs, or for so long.
    None: for as long as something runs."""

    def rule(
        self,
        *,
        max_ramp_watts_per_second: float | None,
        safe_floor_watts: float,
        start_seconds: float,
        instances: int,
    ) -> GovernorRule:
        """As the pure governor takes it."""
        values = self.model_dump(exclude={"tick_seconds", "control"})
        if self.max_starts_per_hour is None:
            values["max_starts_per_hour"] = _starts_per_hour(start_seconds, instances)
        return GovernorRule(
            **values,
            max_ramp_watts_per_second=max_ramp_watts_per_second,
            safe_floor_watts=safe_floor_watts,
            start_seconds=start_seconds,
        )


def _starts_per_hour(start_seconds: float, instances: int) -> int:
    """At least one each, so that a site comes back whole."""
    each = HOUR_SECONDS * MAX_STARTING_RATIO / max(start_seconds, 1.0)
    return min(MAX_STARTS_PER_HOUR, max(1, int(each)) * instances)


class RestartOptions(ConfigModel):
    """`[sites.restart]`: engines that end by themselves, or do not start."""

    backoff_seconds: Annotated[float, Field(gt=0, le=3600)] = 0.5
    """Before the first restart; doubled with each failure in a row."""
    max_backoff_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Failures of one instance in an hour; beyond, it stays down until the hour has passed."""
    probe_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Between two health probes of an engine that is ready."""
    probe_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failed probes in a row: the engine hangs, is killed, and started again."""
    stall_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """The same for one that has requests running and made no token for so long; more than the longest prompt
    takes to prefill, as vLLM counts a prompt when it is done."""
