"""The fleet under test: real processes on loopback, each thing that talks to another by a link of its own.

Two routers that clients choose between, a feed, three sites with emulated engines, a Redis. What ends that
nobody ended is a violation, and is started again; on every way out all processes are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos.proxy import Link
from benchmarks.chaos.schedule import ENGINES, ROUTERS, SERVICES, SITES, WORKERS, Levels, Schedule
from benchmarks.router.process import tree
from cli.demo_config import (
    FIRM_POWER_SOURCE,
    MARGIN_RATIO,
    MAX_CONCURRENCY,
    POWER_MODEL,
    PROFILE,
    RIDE_THROUGH_SECONDS,
    SIZES,
    STRONG_WIND_RATIO,
)
from cli.ports import free_ports
from cli.process import ChildProcess
from cli.supervisor import Service
from cli.toml_text import to_toml
from cli.topology import REDIS, Topology, build_topology, redis_service
from fleet.keys import Keys
from fleet.power import CapRule, RideThrough
from fleet.redis_store import RedisStore
from fleet.store import Store

FLEET = "chaos"
MODEL = PROFILE.model
SITE = SIZES["emulated"]
LEVELS = Levels(full=STRONG_WIND_RATIO, idle=SITE.floor_ratio)
WITHOUT_FIRM_POWER = "ridge"
"""A site that cannot keep a cap below its idle draw, and says so (DESIGN §7)."""
READY_SECONDS = 60.0
POLL_SECONDS = 0.1
ROUTER_SETTINGS: Mapping[str, Any] = {
    "auth": "keys",
    "request_timeout_seconds": 60.0,
    "first_byte_timeout_seconds": 20.0,
    "stall_timeout_seconds": 8.0,
    "hold_seconds": 10.0,
    "flex_hold_seconds": 20.0,
    "resume_wait_seconds": 20.0,
    "shutdown_grace_seconds": 10.0,
}
"""Shorter than the defaults, so that a request that hangs shows within a run."""
RESTART_SETTINGS = {"stall_seconds": 6.0, "probe_failures": 3, "max_per_hour": 200}
"""For a run that kills an engine every few seconds."""


class FleetError(Exception):
    """The fleet did not come up, or the harness could not do what it meant to."""


class NotDoneError(Exception):
    """There was nothing to do a fault to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPlace:
    """Where a router listens."""

    port: int
    operations_port: int

    @property
    def operations_url(self) -> str:
        return f"http://127.0.0.1:{self.operations_port}"


def cap_rule(site_id: str) -> CapRule:
    """What a site is held to."""
    floor = 0.0 if site_id == WITHOUT_FIRM_POWER else SITE.floor_cap_watts
    return CapRule(max_site_watts=SITE.max_site_watts, margin_ratio=MARGIN_RATIO, safe_floor_watts=floor)


def ride_through() -> RideThrough:
    """What a site may draw above its cap, and for how long."""
    return RideThrough.for_site(max_site_watts=SITE.max_site_watts, seconds=RIDE_THROUGH_SECONDS)


class ChaosFleet:
    """Owns processes and links."""

    def __init__(self, directory: Path, schedule: Schedule) -> None:
        self.directory = directory
        self.start_file = directory / "wind-start"
        self.links: dict[str, Link] = {}
        self.routers: dict[str, RouterPlace] = {}
        self.violations: list[str] = []
        self.started_at: dict[str, float] = {}
        """Unix seconds at which a service's present life was ready; absent while it is not."""
        self.lives: dict[str, int] = dict.fromkeys((*SERVICES, REDIS), 0)
        self.operations: dict[str, str] = {}
        """Where each service shows its metrics."""
        self._services: dict[str, Service] = {}
        self._children: dict[str, ChildProcess] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._expected: set[str] = set()
        self._ports = iter(free_ports(40))
        self._redis_port = next(self._ports)
        self.client = httpx.AsyncClient(trust_env=False, timeout=5.0)
        self.topology = self._configure(schedule)

    # configuration
    def _configure(self, schedule: Schedule) -> Topology:
        (self.directory / "logs").mkdir(parents=True)
        feed_port = next(self._ports)
        self.operations["power-feed"] = f"http://127.0.0.1:{feed_port}"
        site_ports = {site_id: (next(self._ports), next(self._ports)) for site_id in SITES}
        for name in ROUTERS:
            self.routers[name] = RouterPlace(port=next(self._ports), operations_port=next(self._ports))
            self.operations[name] = self.routers[name].operations_url
        for site_id, (port, operations_port) in site_ports.items():
            self._link(f"router>{site_id}", port)
            self._link(f"{site_id}>feed", feed_port)
            self.operations[f"site-agent {site_id}"] = f"http://127.0.0.1:{operations_port}"
        for service in SERVICES:
            self._link(f"{service}>redis", self._redis_port)
        feed = {
            "port": feed_port,
            "start_file": self.start_file,
            "farms": [
                {
                    "farm_id": f"{site_id}-farm",
                    "site_id": site_id,
                    "nameplate_watts": SITE.nameplate_watts,
                    "source": {
                        "kind": "schedule",
                        "points": [list(point) for point in schedule.wind[site_id]],
                    },
                }
                for site_id in SITES
            ],
        }
        sites = [self._site(site_id, *site_ports[site_id], seed=schedule.seed) for site_id in SITES]
        topologies = {}
        for service in SERVICES:
            router = self.routers.get(service, self.routers[ROUTERS[0]])
            path = self.directory / f"{service.replace(' ', '-')}.toml"
            path.write_text(
                to_toml(
                    {
                        "fleet": {"name": FLEET, "redis_url": self._redis_url(f"{service}>redis")},
                        "router": {
                            **ROUTER_SETTINGS,
                            "port": router.port,
                            "operations_port": router.operations_port,
                            "workers": WORKERS.get(service, 1),
                        },
                        "power_feed": feed,
                        "sites": sites,
                    }
                )
            )
            topologies[service] = build_topology(path, {}, redis=None)
            self._services[service] = _service_of(topologies[service], service)
        self._services[REDIS] = redis_service(self._redis_url(), self.directory)
        return topologies["power-feed"]

    def _link(self, name: str, upstream_port: int) -> None:
        self.links[name] = Link(name, next(self._ports), upstream_port)

    def _redis_url(self, link: str | None = None) -> str:
        port = self._redis_port if link is None else self.links[link].port
        return f"redis://127.0.0.1:{port}/0"

    def _site(self, site_id: str, port: int, operations_port: int, *, seed: int) -> dict[str, Any]:
        rule = cap_rule(site_id)
        return {
            "site_id": site_id,
            "farm_id": f"{site_id}-farm",
            "port": port,
            "ingress_url": f"http://127.0.0.1:{self.links[f'router>{site_id}'].port}",
            "operations_port": operations_port,
            "feed_url": f"http://127.0.0.1:{self.links[f'{site_id}>feed'].port}",
            "state_dir": self.site_directory(site_id),
            "margin_ratio": rule.margin_ratio,
            "max_site_watts": rule.max_site_watts,
            "safe_floor_watts": rule.safe_floor_watts,
            "firm_power_source": FIRM_POWER_SOURCE if rule.safe_floor_watts else None,
            "ride_through_seconds": RIDE_THROUGH_SECONDS,
            "overhead_ratio": POWER_MODEL.overhead_ratio,
            "host_idle_watts": POWER_MODEL.host_idle_watts,
            "restart": RESTART_SETTINGS,
            "engine": {
                "kind": "emulated",
                "instances": ENGINES,
                "max_concurrency": MAX_CONCURRENCY,
                "model": MODEL,
                "profile": PROFILE.profile_id,
                "start_seconds": 2.0,
                "power_log": self.power_log(site_id),
                "seed": seed * len(SITES) + SITES.index(site_id),
            },
        }

    def site_directory(self, site_id: str) -> Path:
        """Where an agent keeps its files."""
        return self.directory / "sites" / site_id

    def power_log(self, site_id: str) -> Path:
        """The fake GPUs' own log."""
        return self.site_directory(site_id) / "fake-power.csv"

    # processes
    async def start(self) -> None:
        """Everything up, and every site serving.

        Raises:
            FleetError: something did not come up.
        """
        for link in self.links.values():
            await link.start()
        await self.launch(REDIS)
        await asyncio.gather(*(self.launch(name) for name in SERVICES))

    def write_start(self, unix_seconds: float) -> None:
        """The wind's script begins."""
        draft = self.start_file.with_suffix(".draft")
        draft.write_text(repr(unix_seconds))
        draft.replace(self.start_file)

    async def launch(self, name: str) -> None:
        """Start a service and wait until it is ready.

        Raises:
            FleetError: it is not, within READY_SECONDS.
        """
        service = self._services[name]
        child = ChildProcess(name, service.argv(), environment=os.environ, log_path=self.log_path(name))
        await child.start()
        self._children[name] = child
        self._expected.discard(name)
        self.lives[name] += 1
        self._watchers[name] = asyncio.create_task(self._watch(name, child))
        until = time.monotonic() + READY_SECONDS
        while not await self._answers(name):
            if time.monotonic() > until or not child.is_running:
                how = "in time" if child.is_running else f"(exit code {child.exit_code})"
                raise FleetError(f"{name} did not come up {how}; the end of its log:\n{child.log_tail()}")
            await asyncio.sleep(POLL_SECONDS)
        self.started_at[name] = time.time()

    async def _answers(self, name: str) -> bool:
        if name == REDIS:
            store = self.store()
            try:
                async with asyncio.timeout(2.0):
                    await store.ping()
            except Exception:  # noqa: BLE001 -- whatever it is, it does not answer
                return False
            finally:
                await store.aclose()
            return True
        try:
            return (await self.client.get(f"{self.operations[name]}/healthz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def _watch(self, name: str, child: ChildProcess) -> None:
        code = await child.wait()
        self.started_at.pop(name, None)
        if name in self._expected:
            return
        self.violations.append(
            f"{name} ended by itself with exit code {code}; the end of its log:\n{child.log_tail()}"
        )

    def child(self, name: str) -> ChildProcess:
        """The process of a service."""
        return self._children[name]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send it a signal, whatever becomes of it."""
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._expected.add(name)
        try:
            os.kill(self._children[name].pid, number)
        except ProcessLookupError:
            raise FleetError(f"{name} runs no more; its log: {self._children[name].log_tail()}") from None

    async def terminate(self, name: str) -> int:
        """SIGTERM; its exit code. Beyond its grace it is killed, and that is a violation."""
        self.signal(name, signal.SIGTERM)
        grace = self._services[name].stop_grace_seconds
        try:
            async with asyncio.timeout(grace):
                code = await self._children[name].wait()
        except TimeoutError:
            self.violations.append(f"{name} did not end within {grace:.0f} s of SIGTERM")
            self.signal(name, signal.SIGKILL)
            return await self._children[name].wait()
        if code != 0:
            self.violations.append(f"{name} ended with exit code {code} after SIGTERM, not 0")
        return code

    def log_path(self, name: str) -> Path:
        """Where a service logs, all its lives."""
        return self.directory / "logs" / f"{name.replace(' ', '-')}.log"

    def hardware(self, site_id: str) -> dict[str, Any]:
        """`{"control_url", "pid"}` of a site's fake hardware, as its agent wrote it."""
        document: dict[str, Any] = json.loads(
            (self.site_directory(site_id) / "fake-hardware.json").read_text()
        )
        return document

    def pids(self, name: str) -> list[int]:
        """A service and its children."""
        return tree(self._children[name].pid)

    def store(self) -> Store:
        """Straight to Redis, by no link; the caller closes it."""
        return RedisStore(self._redis_url(), Keys(fleet=FLEET))

    @property
    def redis_url(self) -> str:
        """Straight to Redis."""
        return self._redis_url()

    async def page(self, name: str, path: str) -> Any:
        """A JSON page of a service's operations port.

        Raises:
            httpx.HTTPError: it does not answer.
        """
        answer = await self.client.get(f"{self.operations[name]}{path}")
        answer.raise_for_status()
        return answer.json()

    async def metrics(self, name: str) -> dict[str, float]:
        """Series as they stand on a service's page → value."""
        page = (await self.client.get(f"{self.operations[name]}/metrics")).text
        lines = [line for line in page.splitlines() if line and not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    async def stop(self) -> None:
        """No process and no link is left."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            for child in self._children.values():
                if child.is_running:
                    os.kill(child.pid, signal.SIGCONT)
        for names in (ROUTERS, SERVICES, (REDIS,)):
            await asyncio.gather(*(self._stop(name) for name in names if name in self._children))
        await asyncio.gather(*(link.stop() for link in self.links.values()))
        await self.client.aclose()

    async def _stop(self, name: str) -> None:
        await self._children[name].stop(self._services[name].stop_grace_seconds)


def _service_of(topology: Topology, name: str) -> Service:
    services = {service.name: service for stage in topology.stages for service in stage}
    return services[name] if name in services else replace(services["router"], name=name)


def open_files(pids: Sequence[int]) -> int:
    """Of these processes together."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return total
