"""Looks a site over before it serves, or while it does: what is wrong, and what to do about it.

Rule: looking changes nothing. Beside a running agent (its lock says so) no port is tried and no GPU setting
touched.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.config import FleetConfig
from fleet.records import PowerReading, SiteReport
from fleet.signing_keys import trust_of
from fleet.wire import RecordError
from gateway.tls_config import caller_files
from gateway.tls_renewal import RenewedTls
from gateway.upstream import Origin, UpstreamError
from site_agent import leftovers, meter_check, parts, profile_check, signing_check, tls_check
from site_agent.config import SiteConfig, is_loopback
from site_agent.drivers import external, nvml, vllm
from site_agent.drivers.gpu_power import ASSUMED_SPARE_WATTS
from site_agent.drivers.interface import DriverError
from site_agent.drivers.options import READ_ONLY, EmulatedOptions, ExternalOptions, VllmOptions
from site_agent.drivers.probe import Prober
from site_agent.promises import Finding, Numbers, findings

MIN_TOKEN_CHARACTERS = 16
MIN_FREE_BYTES = 1 << 30
"""Logs of engines are bounded, 32 MiB each; a full disk stops an agent."""
WARN_SKEW_SECONDS = 2.0
SLOW_REDIS_SECONDS = 0.05
EXTERNAL_SECONDS = 10.0
LATE_SECONDS = 1.0
"""Of GPUs whose power is an average over a second."""


class NoProcesses:
    """A driver that is only asked starts nothing that must die with the agent."""

    def add(self, label: str, pid: int) -> None:
        """See ProcessRegistry."""

    def remove(self, pid: int) -> None:
        """See ProcessRegistry."""


async def examine(fleet: FleetConfig, config: SiteConfig, *, nvml_library: Any = None) -> list[Finding]:
    """Every finding, in the order of a start. `nvml_library` stands in for `pynvml` in tests."""
    running = running_agent(config.state_dir)
    calls = RenewedTls("fleet", caller_files(fleet))
    found = [_state(config.state_dir, running), _token(fleet, config), *tls_check.examine(fleet, config)]
    found += signing_check.examine(fleet, config)
    found += _ports(config, running)
    found.append(await _engines(config))
    gpus = await _gpus(config, nvml_library)
    found += gpus.findings
    found += await meter_check.examine(config.meter, gpus.watts)
    found += findings(numbers_of(config, gpus))
    found += await asyncio.to_thread(profile_check.examine, config, nvml_library=nvml_library)
    found += await _feed(fleet, config, calls)
    found += await _redis(fleet)
    if running is not None:
        found.append(await _agent(fleet, config, calls))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What was seen of them."""

    findings: tuple[Finding, ...]
    can_set_clock: bool = False
    is_power_late: bool = False
    watts: float | None = None
    spare_gpus: int = 0


def numbers_of(config: SiteConfig, gpus: Gpus) -> Numbers:
    """The configuration's promises, as plain numbers."""
    model = config.site_model(spare_gpus=gpus.spare_gpus)
    ride_through = config.ride_through(spare_gpus=gpus.spare_gpus)
    governor = config.governor
    engine = config.engine
    return Numbers(
        reaction_seconds=governor.reaction_seconds,
        drain_seconds=governor.drain_seconds,
        stop_seconds=governor.stop_seconds,
        stop_grace_seconds=engine.stop_grace_seconds if isinstance(engine, VllmOptions) else 0.0,
        ride_through_seconds=ride_through.seconds,
        ride_through_joules=ride_through.joules,
        watchdog_seconds=config.watchdog_seconds,
        safe_floor_watts=config.safe_floor_watts,
        server_idle_watts=model.server_idle_watts,
        has_server_switch=config.has_server_switch,
        full_watts=model.full_watts,
        max_site_watts=config.site_watts_limit(spare_gpus=gpus.spare_gpus),
        margin_ratio=config.margin_ratio,
        guard_ratio=governor.guard_ratio,
        is_governor_enabled=governor.enabled,
        is_profile_assumed=engine.profile is None,
        meter_lag_seconds=_lag_seconds(config, gpus),
        can_set_clock=gpus.can_set_clock,
    )


def _lag_seconds(config: SiteConfig, gpus: Gpus) -> float:
    if config.meter is not None:
        return config.meter.lag_seconds
    return LATE_SECONDS if gpus.is_power_late else 0.0


def running_agent(state_dir: Path) -> str | None:
    """The pid of the agent that holds the site's lock; None: none does."""
    if not (state_dir / leftovers.LOCK_FILE).exists():
        return None
    try:
        leftovers.take_lock(state_dir).close()
    except leftovers.LeftoverError:
        return (state_dir / leftovers.LOCK_FILE).read_text().strip() or "unknown"
    except OSError:
        return None
    return None


def _state(state_dir: Path, running: str | None) -> Finding:
    name = "state directory"
    parent = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return _fail(name, f"{parent} cannot be written", "run as its owner, or choose another state_dir")
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        return _warn(name, f"{parent}: {free >> 20} MiB are free", "make room: logs and pid files go there")
    if running is not None:
        return _pass(name, f"{state_dir}: an agent runs (pid {running})")
    left = sorted((state_dir / "pids").glob("*.json"))
    if left:
        names = ", ".join(path.stem for path in left)
        return _warn(name, f"an earlier agent left {names}", "nothing: the next start stops them first")
    return _pass(name, f"{state_dir} can be written, {free >> 30} GiB free")


def _token(fleet: FleetConfig, config: SiteConfig) -> Finding:
    name, token = "site token", fleet.site_token
    if token is None:
        if is_loopback(config.host):
            return _pass(name, f"none; the ingress listens on {config.host} only")
        return _fail(name, f"none, and the ingress listens on {config.host}", "[fleet] site_token")
    if len(token.get_secret_value()) < MIN_TOKEN_CHARACTERS:
        action = f"at least {MIN_TOKEN_CHARACTERS} characters: openssl rand -hex 32"
        return _warn(name, f"{len(token.get_secret_value())} characters can be guessed", action)
    return _pass(name, "set")


def _ports(config: SiteConfig, running: str | None) -> list[Finding]:
    if running is not None:
        return [_pass("ports", "not tried: an agent runs")]
    engine = config.engine
    wanted = [
        ("port", config.host, config.port),
        ("operations_port", config.operations_host, config.operations_port),
    ]
    if engine.first_port and isinstance(engine, VllmOptions):
        wanted += [
            (f"engine.first_port + {index}", "127.0.0.1", engine.first_port + index)
            for index in range(engine.instances)
        ]
    found = [_port(name, host, port) for name, host, port in wanted if port]
    return [one for one in found if one.status != "pass"] or [_pass("ports", "free")]


def _port(name: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            said = f"{name} {host}:{port}: {error.strerror}"
            return _fail("ports", said, _port_action(name, error))
    return _pass("ports", f"{name} {port}")


def _port_action(name: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"stop what has it, or change {name}"
    if error.errno == errno.EACCES:
        return f"change {name}: this user may not listen on it"
    return f"change {name.replace('port', 'host')}: it must be an address of this machine"


async def _engines(config: SiteConfig) -> Finding:
    name, options = "engines", config.engine
    context = parts.driver_context(config, NoProcesses())
    if isinstance(options, EmulatedOptions):
        return _warn(name, "emulated: no model runs, and the GPUs are fake", "for a real site: kind = vllm")
    if isinstance(options, VllmOptions):
        engines = vllm.VllmEngines(context, options)
        try:
            await engines.open()
        except DriverError as error:
            return _fail(name, str(error), "see docs/vllm.md")
        finally:
            await engines.aclose()
        return _pass(name, f"vLLM: {' '.join(options.command)} knows its arguments; model {options.model}")
    return await _external(config, options)


async def _external(config: SiteConfig, options: ExternalOptions) -> Finding:
    driver = external.ExternalEngines(parts.driver_context(config, NoProcesses()), options)
    missing: list[str] = []
    try:
        for spec, url in zip(parts.instance_specs(config), options.urls, strict=True):
            await driver.start(spec)
            try:
                async with asyncio.timeout(EXTERNAL_SECONDS):
                    ready = await driver.is_ready(spec.instance_id)
            except TimeoutError:
                ready = False
            if not ready:
                missing.append(driver.exit_reason(spec.instance_id) or f"{url} does not answer")
    finally:
        await driver.aclose()
    if missing:
        return _fail("engines", "; ".join(missing), "start it, or correct engine.urls and engine.model")
    return _pass("engines", f"{len(options.urls)} external, healthy, with {options.model}")


async def _gpus(config: SiteConfig, library: Any) -> Gpus:
    """Opened to read only: nothing changes on them, so that a running agent is no matter."""
    options, name = config.engine, "GPUs"
    specs = parts.instance_specs(config)
    if isinstance(options, EmulatedOptions):
        return Gpus(findings=(_warn(name, "fake: their watts are made up", ""),), can_set_clock=True)
    uses = any(spec.gpu_indices for spec in specs)
    if options.gpu_driver == "none" or not uses:
        action = "with GPUs: gpus_per_instance, gpu_driver; without, measure the assumed watts at the wall"
        return Gpus(findings=(_warn(name, "nobody reads their power: the draw is modelled", action),))
    failing, action = _warn, "the draw is modelled without it"
    if options.gpu_driver != "auto":
        failing, action = _fail, 'the agent will not start: mend it; gpu_driver = "auto" models the draw'
    try:
        driver = await asyncio.to_thread(_open_gpus, config, library)
    except DriverError as error:
        if error.reason == "missing_gpu":
            return Gpus(findings=(_fail(name, str(error), "instances, gpus_per_instance"),))
        return Gpus(findings=(failing(name, str(error), action),))
    try:
        watts = await driver.power_watts()
        kinds = await asyncio.to_thread(driver.kinds)
    finally:
        await driver.aclose()
    if watts is None:
        return Gpus(findings=(failing(name, f"{kinds}: their power cannot be read", "try nvidia-smi"),))
    found = [_pass(name, f"{kinds}, {watts:.0f} W now")]
    if driver.is_power_late:
        found.append(_warn("GPU power", nvml.LATE_POWER, "governor.stop_seconds"))
    if driver.assumed_spares:
        which = ", ".join(map(str, driver.assumed_spares))
        said = f"{which}: power unknown, {ASSUMED_SPARE_WATTS:.0f} W are assumed for each"
        found.append(_warn("spare GPUs", said, "look at it with nvidia-smi; no instance uses it"))
    elif driver.spare_gpus:
        found.append(_pass("spare GPUs", f"{driver.spare_gpus} that no instance uses: their draw counts"))
    is_read_only = options.gpu_driver == READ_ONLY
    can_set_clock = not is_read_only and nvml.may_administer()
    if is_read_only:
        found.append(_pass("GPU clocks", "left alone (gpu_driver): power is saved by stopping engines"))
    elif can_set_clock:
        found.append(_pass("GPU clocks", "this user may lock them; tried at the agent's start"))
    else:
        found.append(_warn("GPU clocks", "this user may not lock them", nvml.HOW_TO_GRANT))
    return Gpus(
        findings=tuple(found),
        can_set_clock=can_set_clock,
        is_power_late=driver.is_power_late,
        watts=watts,
        spare_gpus=driver.spare_gpus,
    )


def _open_gpus(config: SiteConfig, library: Any) -> nvml.NvmlGpus:
    return nvml.NvmlGpus(
        nvml.load() if library is None else library,
        parts.instance_specs(config),
        state_dir=config.state_dir,
        visible_devices=nvml.visible_devices(os.environ),
        is_read_only=True,
    )


async def _feed(fleet: FleetConfig, config: SiteConfig, calls: RenewedTls) -> list[Finding]:
    name, prober = "power feed", Prober(tls=lambda: calls.context)
    try:
        path = f"/v1/power/{config.site_id}"
        status, body = await prober.get(Origin.parse(config.feed_url), path)
        trust = trust_of(fleet)
        reading = trust.read(PowerReading, body, unix_now=time.time()) if status == 200 else None
    except UpstreamError as error:
        action = "start heron power-feed, or correct feed_url; on another machine it needs [power_feed] host"
        return [_fail(name, str(error), action)]
    except RecordError as error:
        is_reading = error.reason not in ("too_large", "malformed", "schema_version")
        action = signing_check.NOT_BELIEVED if is_reading else "check feed_url"
        return [_fail(name, f"{config.feed_url}: what it says cannot be used: {error}", action)]
    finally:
        await prober.aclose()
    if reading is None:
        action = "the feed's configuration must name this site"
        return [_fail(name, f"{config.feed_url}{path}: status {status}: {body[:200]!r}", action)]
    said = f"{reading.quality}, grants {reading.granted_power_watts:.0f} W"
    is_good = reading.quality == "good"
    found = [_pass(name, said) if is_good else _warn(name, said, "see the feed's log: its source")]
    skew = time.time() - reading.observed_at_unix_seconds
    return [*found, _skew("clock against the feed", skew - reading.period_seconds, skew, fleet)]


def _skew(name: str, ahead: float, behind: float, fleet: FleetConfig) -> Finding:
    """`ahead`: this clock less the other's, as little as it may be; `behind`: as much as it may be."""
    off = max(ahead, -behind, 0.0)
    said = f"off by {off:.1f} s" if off else "agrees"
    if off <= WARN_SKEW_SECONDS:
        return _pass(name, said)
    finding = _fail if off > fleet.max_clock_skew_seconds else _warn
    return finding(name, said, "run NTP (chrony) on both machines")


async def _redis(fleet: FleetConfig) -> list[Finding]:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    name = "Redis"
    client = Redis.from_url(fleet.redis_url, socket_timeout=2.0, socket_connect_timeout=2.0)
    try:
        began = time.monotonic()
        seconds, microseconds = await client.time()
        took = time.monotonic() - began
    except (RedisError, OSError) as error:
        action = "start Redis, or correct [fleet] redis_url; a site runs without, on the feed's direct stream"
        return [_warn(name, f"no answer: {error}", action)]
    finally:
        await client.aclose()
    found = _pass(name, f"answers in {1000 * took:.1f} ms")
    if took > SLOW_REDIS_SECONDS:
        found = _warn(name, f"answers in {1000 * took:.0f} ms", "a Redis nearer to the sites")
    skew = time.time() - (seconds + microseconds / 1e6)
    return [found, _skew("clock against Redis", skew - took, skew + took, fleet)]


async def _agent(fleet: FleetConfig, config: SiteConfig, calls: RenewedTls) -> Finding:
    """The running agent, asked as a router would ask it."""
    name = "agent"
    url = config.ingress_at(config.port)
    if config.ingress_url is None and not config.port:
        return _pass(name, "not asked: it chose its port by itself")
    token = fleet.site_token
    prober = Prober(
        () if token is None else ((b"authorization", b"Bearer " + token.get_secret_value().encode()),),
        tls=lambda: calls.context,
    )
    try:
        status, body = await prober.get(Origin.parse(url), "/heron/v1/report")
    except UpstreamError as error:
        return _fail(name, str(error), "ingress_url must lead here; look at the agent's log")
    finally:
        await prober.aclose()
    if status == 401:
        return _fail(name, f"{url} refuses the site token", "the agent runs with another: start it anew")
    try:
        report = SiteReport.from_json(body) if status == 200 else None
    except RecordError:
        report = None
    if report is None or report.site_id != config.site_id:
        told = f"status {status}" if report is None else f"site {report.site_id}"
        return _fail(name, f"{url}: {told}", "something else answers there: check ingress_url")
    said = f"{url}: {report.state}"
    return _pass(name, said) if report.state != "faulted" else _fail(name, said, "see its log")


def _pass(check: str, message: str) -> Finding:
    return Finding(check=check, status="pass", message=message)


def _warn(check: str, message: str, action: str) -> Finding:
    return Finding(check=check, status="warn", message=message, action=action)


def _fail(check: str, message: str, action: str) -> Finding:
    return Finding(check=check, status="fail", message=message, action=action)
