"""What a site control sees and what it may order: plain values, no behaviour (DESIGN §7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from fleet.instance import InstanceState
from site_agent.limits import MeanWork
from site_agent.site_model import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class SetClock:
    """Lock the GPUs of every instance."""

    clock_mhz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Admit nothing more to this instance; it goes when empty, or at `deadline_at` at the latest."""

    instance_id: str
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Power came back before the stop: a draining instance takes requests again."""

    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakStreams:
    """Close the instance's open answers without a proper end, so that routers resume them elsewhere."""

    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEngine:
    """Stop it now: nothing runs on it that may be waited for."""

    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEngine:
    """Start a stopped instance."""

    instance_id: str


WITHOUT_ENGINE: Final = (InstanceState.STOPPED, InstanceState.ASLEEP)

Command = SetClock | Drain | Admit | BreakStreams | StopEngine | StartEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """What the governor sees of an instance."""

    instance_id: str
    index: int
    state: InstanceState
    running_requests: int
    is_stopping: bool = False
    """Told to stop and not gone yet: it still draws, and takes no further command."""
    can_start: bool = True
    """False in a restart back-off."""
    tensor_parallel_degree: int = 0
    """0: that of the site's own profile (`SiteModel.profile`)."""
    gpu_indices: tuple[int, ...] = ()
    """Two instances that share a GPU never run together. Empty: shares none with anybody."""

    @property
    def is_awake(self) -> bool:
        """Has, or is getting, an engine that nobody has told to stop."""
        return not self.is_stopping and self.state not in WITHOUT_ENGINE


@dataclass(frozen=True, slots=True, kw_only=True)
class CapForecast:
    """Quantiles of the cap, `horizon_seconds` after the reading that carried them."""

    horizon_seconds: float
    p10_watts: float
    p50_watts: float
    p90_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """So many instances of one configuration, as a plan wants them at this site."""

    tensor_parallel_degree: int
    instances: int
    gpu_clock_mhz: int | None = None
    """None: the site's own choice."""


Heard = Literal["best", "lesser", "nothing"]
"""Who says what a site draws: the best source that ever did, another, or only the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """The situation of one decision."""

    cap_watts: float
    draw_watts: float
    """Measured, or modelled where nothing measures it; as the control's own correction has it."""
    instances: tuple[InstanceView, ...]
    forecast: tuple[CapForecast, ...] = ()
    """Ascending by horizon; empty: nothing is known of the future."""
    forecast_age_seconds: float = 0.0
    """Since the reading that carried it."""
    targets: tuple[Target, ...] | None = None
    """Of a valid plan. None: there is none; empty: the plan wants nothing awake here."""
    turned_away: int = 0
    """Requests refused for want of a free slot since the last decision."""
    work: MeanWork | None = None
    """The mean of the requests that ended of late; None: none did yet."""
    start_seconds: float | None = None
    """How long an engine's start takes, as seen; None: none was seen, the rule's counts."""
    excess_ratio: float = 1.0
    """What runs may draw so many times what the model says of the clock ordered: that order has failed."""
    heard: Heard = "best"
    added_watts: float = 0.0
    """Of the draw, what the control's own correction has added: nothing may be learnt from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, in this order, and what it was decided on."""

    commands: tuple[Command, ...]
    target: Configuration
    budget_watts: float
    """What the worst case may be: the outlook's cap, less the guard, over the correction."""
    is_over: bool
    """The ladder hurries: an episode runs, or the draw is above what is expected."""
    is_short_of_power: bool
    """Not one instance fits."""
    drain_deadline_at: float | None
    """When the last draining instance goes at the latest; None: nothing drains."""
    admit_watts: float = math.inf
    """What admission may let the draw come to, beside the cap: the budget where only some slots fit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorRule:
    """Time constants and limits; `site_agent.governor_options.GovernorOptions` explains each."""

    enabled: bool = True
    guard_ratio: float = 0.04
    turbulence_factor: float = 6.5
    reaction_seconds: float = 1.2
    drain_seconds: float = 1.5
    stop_seconds: float = 1.5
    further_fall_ratio: float = 1.0
    calm_drain_seconds: float = 30.0
    rest_seconds: float = 600.0
    rise_hold_seconds: float = 3.0
    rise_step_seconds: float = 1.0
    rise_gain_ratio: float = 0.05
    settle_seconds: float = 1.5
    max_starts_per_hour: int = 240
    max_switches_per_hour: int = 12
    load_hold_seconds: float = 120.0
    load_ratio: float = 0.6
    reshard_patience_seconds: float | None = None
    start_seconds: float = 60.0
    safe_floor_watts: float = 0.0
    max_ramp_watts_per_second: float | None = None

    def start_of(self, seen_seconds: float | None) -> float:
        """How long an engine's start takes: as seen, else as configured."""
        return self.start_seconds if seen_seconds is None else seen_seconds
