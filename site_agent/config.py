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

from pydantic import Field, PrivateAttr, field_validator, model_validator

from fleet.config import (
    NO_FILE,
    ConfigError,
    FleetConfig,
    Port,
    build,
    load_fleet,
    read_file,
    with_files,
    with_host,
)
from fleet.keys import FLEET_NAME
from fleet.power import CapRule, RideThrough
from fleet.profile import PerformanceProfile, SitePowerModel
from fleet.signing_keys import check_signing
from gateway.tls import PortFiles
from gateway.tls_config import TlsPortConfig, check_files
from site_agent import survival
from site_agent.drivers.options import EmulatedOptions, EngineOptions, ExternalOptions
from site_agent.governor_options import GovernorOptions, RestartOptions
from site_agent.meter_options import MeterOptions, with_password_path
from site_agent.site_model import FULL_POWER_GUARD_RATIO, SiteModel, slo_of
from site_agent.site_profiles import SiteProfiles, with_profile_paths
from site_agent.situation import GovernorRule

Name = Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")]
Url = Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+$")]
"""Scheme, host and port, no path."""
Watts = Annotated[float, Field(gt=0, le=1e9)]
MIN_WATCHDOG_TICKS = 4
"""Of the governor, in `watchdog_seconds`."""


class SiteConfig(TlsPortConfig):
    """One `[[sites]]` entry. The ingress's TLS: gateway/tls_config.py, and `tls_client_ca_file`."""

    site_id: Name
    farm_id: Name
    region: Annotated[str, Field(max_length=512)] = "local"
    host: str = "127.0.0.1"
    port: Port = 0
    """The ingress: the OpenAI API for routers."""
    ingress_url: Url | None = None
    """Where routers reach it; None: `http://<host>:<port>`, `https` where it speaks TLS."""
    tls_client_ca_file: Path | None = None
    """PEM: only callers with a certificate of these CAs come in (`[fleet] tls_client_certificate_file` at
    routers and the feed). None: the site token alone says who may."""
    operations_host: str = "127.0.0.1"
    operations_port: Port = 0
    """/metrics, /healthz, /readyz."""
    feed_url: Url = "http://127.0.0.1:8100"
    signing_key_file: Path | None = None
    """PEM: the Ed25519 private key that signs what this writes (docs/records.md#signed-records). None: it is
    not signed. Relative to the configuration file."""
    state_dir: Path
    """Pid files, logs; one for each site. Relative to the configuration file."""

    margin_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_site_watts: Watts | None = None
    """None: the worst case of the profile and a tenth more."""
    safe_floor_watts: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Firm power, there whatever the wind does."""
    firm_power_source: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """What gives it; needed with a floor above 0."""
    has_server_switch: bool = False
    """The power feed switches this server off and on (`server` of its site there). Left out: whether the same
    file says so."""
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
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    request_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Until the engine's first byte; one that is not streamed comes whole then."""
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """SIGTERM: requests in flight may finish for so long, under the cap as ever."""

    engine: EngineOptions = EmulatedOptions(kind="emulated")
    governor: GovernorOptions = GovernorOptions()
    restart: RestartOptions = RestartOptions()
    meter: MeterOptions | None = None
    """None: the draw is the GPUs' sum and `host_idle_watts`, times `overhead_ratio`."""

    _profiles: SiteProfiles | None = PrivateAttr(default=None)

    @field_validator("ingress_url", "feed_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None else with_host(url)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.safe_floor_watts > 0 and self.firm_power_source is None:
            raise ValueError("safe_floor_watts above 0 needs firm_power_source: name what gives that power")
        if self.watchdog_seconds >= self.ride_through_seconds:
            raise ValueError("watchdog_seconds must be less than ride_through_seconds")
        if self.watchdog_seconds < MIN_WATCHDOG_TICKS * self.governor.tick_seconds:
            raise ValueError(
                f"watchdog_seconds must be at least {MIN_WATCHDOG_TICKS} × governor.tick_seconds: it hears "
                "of the agent once a tick, and kills the engines of one that is silent"
            )
        self.profiles.check()
        if self.ingress_url is None and self.host in ("0.0.0.0", "::", ""):  # noqa: S104 - refused here
            raise ValueError("ingress_url must be given where host is every address of the machine")
        self._check_tls()
        refusal = survival.refusal(self.site_model(), self.governor_rule(), self.ride_through())
        if refusal is not None:
            raise ValueError(refusal)
        idle_watts = self.site_model().server_idle_watts
        if self.max_site_watts is not None and self.max_site_watts < idle_watts:
            raise ValueError(
                f"max_site_watts is below what the site draws with every engine stopped, {idle_watts:.0f} W"
            )
        return self

    def _check_tls(self) -> None:
        if self.tls_client_ca_file is not None and not self.speaks_tls:
            raise ValueError("tls_client_ca_file needs tls_certificate_file and tls_key_file")
        if self.speaks_tls and self.ingress_url is not None and self.ingress_url.startswith("http:"):
            raise ValueError("ingress_url must begin with https:// where the port speaks TLS")

    @property
    def port_files(self) -> PortFiles | None:
        """Of the ingress; None: plain HTTP."""
        files = super().port_files
        return None if files is None else dataclasses.replace(files, client_ca=self.tls_client_ca_file)

    def ingress_at(self, port: int) -> str:
        """`ingress_url`, or what it is where the ingress listens on this port."""
        if self.ingress_url is not None:
            return self.ingress_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.speaks_tls else 'http'}://{host}:{port}"

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
            slo=slo_of(ttft_seconds=self.slo_ttft_seconds, e2e_seconds=self.slo_e2e_seconds),
            spare_gpus=spare_gpus,
        )

    def site_watts_limit(self, *, spare_gpus: int = 0) -> float:
        """`max_site_watts`, or its default: the worst case with GPUs that no instance uses, and some room."""
        if self.max_site_watts is not None:
            return self.max_site_watts
        return self.site_model(spare_gpus=spare_gpus).full_watts * (1 + FULL_POWER_GUARD_RATIO)

    def cap_rule(self, *, spare_gpus: int = 0) -> CapRule:
        return CapRule(
            max_site_watts=self.site_watts_limit(spare_gpus=spare_gpus),
            margin_ratio=self.margin_ratio,
            safe_floor_watts=self.safe_floor_watts,
        )

    def governor_rule(self) -> GovernorRule:
        rule = self.governor.rule(
            max_ramp_watts_per_second=self.max_ramp_watts_per_second,
            safe_floor_watts=self.safe_floor_watts,
            start_seconds=self.engine.start_seconds,
            instances=self.engine.instances,
        )
        late = 0.0 if self.meter is None else self.meter.lag_seconds
        return dataclasses.replace(rule, settle_seconds=rule.settle_seconds + late)

    def ride_through(self, *, spare_gpus: int = 0) -> RideThrough:
        return RideThrough.for_site(
            max_site_watts=self.site_watts_limit(spare_gpus=spare_gpus),
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
    fleet = load_fleet(tables, source, variables, path=path)
    values, table = _entry(tables, source, site_id, variables)
    values = with_files(values, path)
    if "has_server_switch" not in values and _feed_switches(tables, values.get("site_id")):
        values["has_server_switch"] = True
    if path is not None and isinstance(values.get("state_dir"), str):
        values["state_dir"] = str(path.resolve().parent / Path(values["state_dir"]).expanduser())
    if path is not None and isinstance(values.get("engine"), dict):
        try:
            values["engine"] = with_profile_paths(values["engine"], path.resolve().parent)
        except ValueError as error:
            raise ConfigError(f"{source}: [{table}]: {error}") from None
    if path is not None and isinstance(values.get("meter"), dict):
        values["meter"] = with_password_path(values["meter"], path.resolve().parent)
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
    check_files(source, table, fleet, site.port_files)
    check_signing(source, table, fleet, "site", site.signing_key_file, site_id=site.site_id)
    return fleet, site


def _feed_switches(tables: Mapping[str, Any], site_id: object) -> bool:
    """Whether the file's power feed names a `server` for this site; the feed checks its own tables."""
    farms = tables.get("power_feed", {}).get("farms", [])
    entries = (
        entry
        for farm in (farms if isinstance(farms, list) else [])
        if isinstance(farm, dict) and isinstance(farm.get("sites", []), list)
        for entry in farm.get("sites", [])
        if isinstance(entry, dict)
    )
    return any(entry.get("site_id") == site_id and entry.get("server") for entry in entries)


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
