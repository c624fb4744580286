"""What a simulated fleet is made of: one frozen description per part, with live's own defaults.

Rule: a number that a service has in its configuration is taken from there, so that the simulator cannot
drift from what runs live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fleet.profile import PerformanceProfile, SitePowerModel
from fleet.profile_file import find_profile
from fleet.request import ClassSlo, RequestClass
from router.config import PlannerConfig, RouterConfig
from site_agent.controls import DEFAULT_CONTROL
from site_agent.governor_options import GovernorOptions
from site_agent.situation import GovernorRule

DEFAULT_PROFILE = "llama-3.1-70b/h100/tp4"
OTHER_PROFILES = ("llama-3.1-70b/h100/tp2", "llama-3.1-70b/h100/tp8")
DEFAULT_MAX_CONCURRENCY = 64
"""Slots of an instance; of 64, 96 and 128 the best attainment on the training week (docs/simulator.md)."""
DEFAULT_START_SECONDS = 60.0
"""From the order to a ready 70B engine: weights from local disk, graphs captured. Assumed."""
STOP_SECONDS = 0.3
"""From the order to an engine's end."""
METER_NOISE_RATIO = 0.01
POWER_LAG_SECONDS = 0.3
"""As `site_agent.emulation.gpu` has them."""


_find = lru_cache(maxsize=64)(find_profile)
"""A file is read once; a run is of one state of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """One site: a server of GPUs at a farm, its own or one that it shares."""

    site_id: str
    wind: str
    """Column of the wind record."""
    wind_shift_days: int = 0
    """The column is read so many days later than the others."""
    farm: str | None = None
    """The farm's first site, whose name the farm has; None: alone at its farm."""
    round_trip_seconds: float = 0.02
    """Router to site and back."""
    instances: int = 2
    """Of the site's own tensor-parallel degree, that of `profile_id`; its GPUs are as many as they need."""
    profile_id: str = DEFAULT_PROFILE
    """A shipped one's name, or a file of `heron profile run`."""
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    start_seconds: float = DEFAULT_START_SECONDS
    overhead_ratio: float = 1.1
    host_idle_watts: float = 600.0
    margin_ratio: float = 0.05
    ride_through_seconds: float = 5.0
    resume_reserve_ratio: float = 0.05
    slo_ttft_seconds: float | None = None
    """As in a site's configuration: what would miss it is pushed back; None: nothing is."""
    slo_e2e_seconds: float | None = None
    other_profile_ids: tuple[str, ...] = OTHER_PROFILES
    """Further tensor-parallel degrees that its GPUs can be split into."""
    control: str = DEFAULT_CONTROL
    """See `site_agent.controls`."""
    has_server_switch: bool = True
    """The feed can switch its server off and on."""
    boot_seconds: float = 180.0
    """From power to an agent that answers. Assumed; engines start after it."""
    control_parameters: tuple[tuple[str, Any], ...] = ()
    """Keys of `[sites.governor]` and their values, where they are not the defaults."""

    @property
    def farm_name(self) -> str:
        """The same for all sites that share their farm's power."""
        return self.site_id if self.farm is None else self.farm

    @property
    def farm_id(self) -> str:
        """As in records."""
        return f"farm-{self.farm_name}"

    @property
    def profile(self) -> PerformanceProfile:
        """Of its instances."""
        return _find(self.profile_id)

    @property
    def other_profiles(self) -> tuple[PerformanceProfile, ...]:
        """Of `other_profile_ids`."""
        return tuple(_find(profile_id) for profile_id in self.other_profile_ids)

    @property
    def rule(self) -> GovernorRule:
        """What the site control goes by."""
        return GovernorOptions(**dict(self.control_parameters)).rule(
            max_ramp_watts_per_second=None,
            safe_floor_watts=0.0,
            start_seconds=self.start_seconds,
            instances=self.instances,
        )

    @property
    def power(self) -> SitePowerModel:
        """From GPU watts to the site's."""
        return SitePowerModel(overhead_ratio=self.overhead_ratio, host_idle_watts=self.host_idle_watts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """How plans are made; defaults are `router.config.PlannerConfig`'s."""

    interval_seconds: float = PlannerConfig.model_fields["interval_seconds"].default
    learn_seconds: float = PlannerConfig.model_fields["learn_seconds"].default
    valid_for_seconds: float = PlannerConfig.model_fields["valid_for_seconds"].default
    margin_ratio: float = PlannerConfig.model_fields["margin_ratio"].default
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of `router.policy.planner.problem.PlannerParameters`, where they are not the defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """How the router behaves; defaults are `router.config.RouterConfig`'s."""

    policy: str = RouterConfig.model_fields["policy"].default
    parameters: dict[str, Any] = field(default_factory=dict)
    resume: bool = True
    planner: PlannerSettings | None = None
    """How plans are made; whether a policy or a site heeds them is its own affair. None: none are made."""
    class_slos: Mapping[RequestClass, ClassSlo] = field(default_factory=dict)
    """`[router.slo]`."""
    length_error_ratio: float = 0.0
    """Standard deviation of a factor that every estimate of an output's length is off by."""
    hold_seconds: float = RouterConfig.model_fields["hold_seconds"].default
    hold_requests: int = RouterConfig.model_fields["hold_requests"].default
    max_pushbacks: int = RouterConfig.model_fields["max_pushbacks"].default
    retry_budget_ratio: float = RouterConfig.model_fields["retry_budget_ratio"].default
    retry_budget_minimum: float = RouterConfig.model_fields["retry_budget_minimum"].default
    resume_wait_seconds: float = RouterConfig.model_fields["resume_wait_seconds"].default
    resume_reserve_ratio: float = RouterConfig.model_fields["resume_reserve_ratio"].default


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """How reports travel."""

    report_delay_seconds: float = 0.02
    report_loss_ratio: float = 0.0
    report_seconds: float = 1.0
    forecast_error_ratio: float = 0.0
    """Standard deviation of the factor that a forecast of an hour is off by (`simulator.forecast_error`)."""


FAULT_KINDS = ("crash", "trip", "silence")
"""Agent and engines of a site die; its farm gives nothing; its link to Redis, or Redis itself, is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that breaks on request."""

    kind: str
    """One of `FAULT_KINDS`."""
    site_id: str | None
    """None: every site."""
    at_seconds: float
    seconds: float


GOVERNOR_TICK_SECONDS: float = GovernorOptions.model_fields["tick_seconds"].default
