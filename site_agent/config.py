"""`[[sites]]`: one site agent's configuration, its defaults, and what its numbers must promise together.

Environment: `HERON_SITE_<KEY>`, nested keys joined with `__` (`HERON_SITE_GOVERNOR__DRAIN_SECONDS`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator

from fleet.config import NO_FILE, ConfigError, ConfigModel, FleetConfig, Port, build, load_fleet, read_file
from fleet.keys import FLEET_NAME
from fleet.power import CapRule, RideThrough
from fleet.profile import PerformanceProfile, SitePowerModel
from site_agent import survival
from site_agent.controls import DEFAULT_CONTROL, ControlName
from site_agent.drivers.options import EmulatedOptions, EngineOptions, ExternalOptions
from site_agent.site_model import FULL_POWER_GUARD_RATIO, SiteModel, slo_of
from site_agent.site_profiles import SiteProfiles, with_profile_paths
from site_agent.situation import GovernorRule

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
Url = Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+$")]
"""Scheme, host and port, no path."""
Watts = Annotated[float, Field(gt=0, le=1e9)]


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
    max_starts_per_hour: Annotated[int, Field(ge=1, le=100_000)] = 240
    """Engine starts that the governor orders, all instances together: no flapping."""
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
        self, *, max_ramp_watts_per_second: float | None, safe_floor_watts: float, start_seconds: float
    ) -> GovernorRule:
        """As the pure governor takes it."""
        values = self.model_dump(exclude={"tick_seconds", "control"})
        return GovernorRule(
            **values,
            max_ramp_watts_per_second=max_ramp_watts_per_second,
            safe_floor_watts=safe_floor_watts,
            start_seconds=start_seconds,
        )


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


class SiteConfig(ConfigModel):
    """One `[[sites]]` entry."""

    site_id: Name
    farm_id: Name
    region: Annotated[str, Field(max_length=512)] = "local"
    host: str = "127.0.0.1"
    port: Port = 0
    """The ingress: the OpenAI API for routers."""
    ingress_url: Url | None = None
    """Where routers reach it; None: `http://<host>:<port>`."""
    operations_host: str = "127.0.0.1"
    operations_port: Port = 0
    """/metrics, /healthz, /readyz."""
    feed_url: Url = "http://127.0.0.1:8100"
    state_dir: Path
    """Pid files, logs; one for each site. Relative to the configuration file."""

    margin_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_site_watts: Watts | None = None
    """None: the worst case of the profile and a tenth more."""
    safe_floor_watts: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Firm power, there whatever the wind does."""
    firm_power_source: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """What gives it; needed with a floor above 0."""
    ride_through_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    ride_through_joules: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """None: `max_site_watts` × `ride_through_seconds`."""
    ride_through_recovery_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    max_ramp_watts_per_second: Watts | None = None
    watchdog_seconds: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    """An agent that is silent for so long has its engines killed."""
    overhead_ratio: Annotated[float, Field(ge=1, le=10)] = 1.1
    host_idle_watts: Annotated[float, Field(ge=0, le=1e7)] = 600.0

    resume_reserve_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the slots that only resumed streams may take."""
    slo_ttft_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """New requests are pushed back while the prompts that wait at an instance take longer than this, by the
    profile; None: they are not."""
    slo_e2e_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The same, where a request of the recent mean size would take longer in a batch one larger."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 16 << 20
    max_answer_bytes: Annotated[int, Field(ge=1024, le=1 << 32)] = 256 << 20
    """An answer that is not streamed is read whole first, so that it can be had elsewhere if it breaks."""
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    request_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Until the engine's first byte; one that is not streamed comes whole then."""
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """SIGTERM: requests in flight may finish for so long, under the cap as ever."""

    engine: EngineOptions = EmulatedOptions(kind="emulated")
    governor: GovernorOptions = GovernorOptions()
    restart: RestartOptions = RestartOptions()

    _profiles: SiteProfiles | None = PrivateAttr(default=None)

    @field_validator("ingress_url", "feed_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:
                raise ValueError("must be scheme://host:port")
        return url

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.safe_floor_watts > 0 and self.firm_power_source is None:
            raise ValueError("safe_floor_watts above 0 needs firm_power_source: name what gives that power")
        if self.watchdog_seconds >= self.ride_through_seconds:
            raise ValueError("watchdog_seconds must be less than ride_through_seconds")
        self.profiles.check()
        if self.ingress_url is None and self.host in ("0.0.0.0", "::", ""):  # noqa: S104 - refused here
            raise ValueError("ingress_url must be given where host is every address of the machine")
        refusal = survival.refusal(self.site_model(), self.governor_rule(), self.ride_through())
        if refusal is not None:
            raise ValueError(refusal)
        idle_watts = self.site_model().server_idle_watts
        if self.max_site_watts is not None and self.max_site_watts < idle_watts:
            raise ValueError(
                f"max_site_watts is below what the site draws with every engine stopped, {idle_watts:.0f} W"
            )
        return self

    @property
    def profiles(self) -> SiteProfiles:
        """Of the engine table, read once: a file that changes counts at the next start."""
        if self._profiles is None:
            self._profiles = SiteProfiles(engine=self.engine)
        return self._profiles

    def performance_profile(self) -> PerformanceProfile:
        """Of the engine table; assumed figures where the hardware is unknown.

        Engines that somebody else runs are never stopped: "stopped" is then awake and empty.
        """
        profile = self.profiles.own
        if isinstance(self.engine, ExternalOptions):
            return dataclasses.replace(profile, stopped_watts=profile.idle_watts)
        return profile

    def gpus_per_instance(self) -> int:
        """0 where engines use no GPU."""
        if isinstance(self.engine, EmulatedOptions):
            return self.performance_profile().tensor_parallel_degree
        return self.engine.gpus_per_instance

    def engine_api_key(self) -> str | None:
        """What engines want to be shown; only those that somebody else runs have one."""
        key = self.engine.engine_api_key if isinstance(self.engine, ExternalOptions) else None
        return None if key is None else key.get_secret_value()

    def power_model(self) -> SitePowerModel:
        return SitePowerModel(overhead_ratio=self.overhead_ratio, host_idle_watts=self.host_idle_watts)

    def site_model(self, *, can_set_clock: bool = True, spare_gpus: int = 0) -> SiteModel:
        """What the site can do; with full clocks only where they cannot be set."""
        profile = self.performance_profile()
        return SiteModel(
            profile=profile,
            power=self.power_model(),
            instances=self.engine.instances,
            max_concurrency=self.engine.max_concurrency,
            clocks_mhz=profile.clocks_mhz if can_set_clock else profile.clocks_mhz[-1:],
            other_profiles=self.profiles.others(),
            other_max_concurrency=self.engine.other_max_concurrency,
            counts_prefill=self.engine.kind != "emulated",
            slo=slo_of(ttft_seconds=self.slo_ttft_seconds, e2e_seconds=self.slo_e2e_seconds),
            spare_gpus=spare_gpus,
        )

    def site_watts_limit(self) -> float:
        """`max_site_watts`, or its default."""
        if self.max_site_watts is not None:
            return self.max_site_watts
        return self.site_model().full_watts * (1 + FULL_POWER_GUARD_RATIO)

    def cap_rule(self) -> CapRule:
        return CapRule(
            max_site_watts=self.site_watts_limit(),
            margin_ratio=self.margin_ratio,
            safe_floor_watts=self.safe_floor_watts,
        )

    def governor_rule(self) -> GovernorRule:
        return self.governor.rule(
            max_ramp_watts_per_second=self.max_ramp_watts_per_second,
            safe_floor_watts=self.safe_floor_watts,
            start_seconds=self.engine.start_seconds,
        )

    def ride_through(self) -> RideThrough:
        return RideThrough.for_site(
            max_site_watts=self.site_watts_limit(),
            seconds=self.ride_through_seconds,
            joules=self.ride_through_joules,
            recovery_seconds=self.ride_through_recovery_seconds,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a port that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(
    path: Path | None, site_id: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[FleetConfig, SiteConfig]:
    """The fleet's table and that of one site; without a file, defaults and the environment.

    `site_id` may be left out where the file has one site.

    Raises:
        ConfigError: what is wrong, where, and what is allowed.
    """
    variables = os.environ if environment is None else environment
    tables = read_file(path) if path is not None else {}
    source = NO_FILE if path is None else str(path)
    fleet = load_fleet(tables, source, variables)
    values, table = _entry(tables, source, site_id, variables)
    if path is not None and isinstance(values.get("state_dir"), str):
        values["state_dir"] = str(path.resolve().parent / Path(values["state_dir"]).expanduser())
    if path is not None and isinstance(values.get("engine"), dict):
        values["engine"] = with_profile_paths(values["engine"], path.resolve().parent)
    site = build(
        SiteConfig,
        values,
        table=table,
        source=source,
        environment=variables,
        environment_prefix="HERON_SITE_",
    )
    if fleet.site_token is None and not is_loopback(site.host):
        raise ConfigError(
            f"{source}: [fleet] site_token is missing: site {site.site_id} listens on {site.host}, beyond "
            'this machine; set one, or host = "127.0.0.1"'
        )
    return fleet, site


def _entry(
    tables: Mapping[str, Any], source: str, site_id: str | None, variables: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    """The raw table of the site, and what to call it in messages."""
    entries = tables.get("sites", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{source}: sites must be tables: [[sites]]")
    names = [entry.get("site_id") for entry in entries]
    doubled = sorted({str(name) for name in names if name is not None and names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{source}: [[sites]] site_id = {doubled[0]!r}: two sites have this name")
    wanted = site_id if site_id is not None else variables.get("HERON_SITE_SITE_ID")
    if not entries:
        return ({} if wanted is None else {"site_id": wanted}), "sites"
    if wanted is None:
        if len(entries) > 1:
            raise ConfigError(
                f"{source}: has {len(entries)} sites; say which: --site {' | '.join(map(str, names))}"
            )
        return dict(entries[0]), "sites"
    if wanted not in names:
        raise ConfigError(
            f"{source}: [[sites]] has no site_id = {wanted!r}; there are {', '.join(map(str, names))}"
        )
    return dict(entries[names.index(wanted)]), f"sites.{wanted}"
