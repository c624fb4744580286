"""What is looked at when the faults are over: is the fleet well, has anything grown, what do the logs say?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.chaos.fleet import ChaosFleet, open_files
from benchmarks.chaos.schedule import ENGINES, ROUTERS, SERVICES, SITES, WORKERS
from benchmarks.router.process import status_bytes

RECOVERY_SECONDS = 90.0
"""After the last fault: a site's info is written each minute (docs/records.md), and it may be the last thing
that a router which began anew lacks; breakers stay open for 30 s at most; half as much again."""
POLL_SECONDS = 0.25
MAX_MORE_FILES = 80
"""Connections to sites that rest in a pool, of twice as many requests at once as there are clients."""
MAX_MORE_MIB = 64.0
SHOWN_CHARACTERS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One process at rest."""

    open_files: int
    resident_mib: float


async def unwell(fleet: ChaosFleet) -> list[str]:
    """What is not as it should be, of everything that an operator can see."""
    found: list[str] = []
    for router in ROUTERS:
        try:
            if (await fleet.client.get(f"{fleet.operations[router]}/readyz")).status_code != 200:
                found.append(f"{router} is not ready")
            found += _router_faults(
                router, await fleet.page(router, "/heron/v1/fleet"), await fleet.metrics(router)
            )
        except (httpx.HTTPError, ValueError) as error:
            found.append(f"{router} does not answer: {error!r}")
    return found


def _router_faults(router: str, page: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[str]:
    sites = {site["site_id"]: site for site in page["sites"]}
    for site_id in SITES:
        site = sites.get(site_id, {})
        ready = sum(model["ready_instances"] or 0 for model in site.get("models", ()))
        if site.get("state") != "serving" or ready != ENGINES:
            yield f"{router} sees {site_id} as {site.get('state')} with {ready} engines"
        state = metrics.get(f'heron_router_site_breaker_state{{site="{site_id}"}}')
        if state != 0:
            yield f"{router}: the breaker of {site_id} is {state}"
        if metrics.get(f'heron_router_site_cordoned{{site="{site_id}"}}') != 0:
            yield f"{router}: {site_id} is cordoned"
    if metrics.get("heron_router_store_up") != 1:
        yield f"{router}: Redis does not answer it"
    workers = WORKERS[router]
    if workers > 1 and metrics.get("heron_router_workers") != workers:
        yield f"{router} has {metrics.get('heron_router_workers')} workers"


async def until_well(fleet: ChaosFleet, within_seconds: float) -> tuple[dict[str, float], list[str]]:
    """What was unwell and how long it took to be well, and what is still unwell where it took too long."""
    began = time.monotonic()
    lasted: dict[str, float] = {}
    while faults := await unwell(fleet):
        lasted.update(dict.fromkeys(faults, time.monotonic() - began))
        if time.monotonic() - began > within_seconds:
            return lasted, faults
        await asyncio.sleep(POLL_SECONDS)
    return lasted, []


async def until_idle(fleet: ChaosFleet, within_seconds: float) -> list[str]:
    """Every count of what is in flight is 0 again, at routers and sites."""
    until = time.monotonic() + within_seconds
    while True:
        found = []
        for router in ROUTERS:
            ledger = await fleet.page(router, "/heron/v1/ledger")
            if ledger["in_flight"] or ledger["lost"]:
                found.append(f"{router}: in flight {ledger['in_flight']}, lost {ledger['lost']}")
            metrics = await fleet.metrics(router)
            for name, value in metrics.items():
                if (
                    name.startswith(("heron_router_site_in_flight_requests", "heron_router_held_requests"))
                    and value
                ):
                    found.append(f"{router}: {name} is {value:g}")
        for site_id in SITES:
            for name, value in (await fleet.metrics(f"site-agent {site_id}")).items():
                if name.startswith("heron_site_in_flight_requests") and value:
                    found.append(f"{name} is {value:g}")
        if not found or time.monotonic() > until:
            return found
        await asyncio.sleep(POLL_SECONDS)


async def loop_failures(fleet: ChaosFleet) -> list[str]:
    """Parts of services that failed unforeseen, in their present lives."""
    found = []
    for name in SERVICES:
        for series, value in (await fleet.metrics(name)).items():
            if "loop_failures" in series and "_created" not in series and value:
                found.append(f"{name}: {series} is {value:g}")
    return found


def footprints(fleet: ChaosFleet) -> dict[int, tuple[str, Footprint]]:
    """Of every process of the fleet, by pid."""
    found: dict[int, tuple[str, Footprint]] = {}
    for name in SERVICES:
        for pid in fleet.pids(name):
            files, resident = open_files((pid,)), status_bytes(pid, "VmRSS") / (1 << 20)
            found[pid] = name, Footprint(open_files=files, resident_mib=resident)
    return found


def growth_faults(
    before: Mapping[int, tuple[str, Footprint]], after: Mapping[int, tuple[str, Footprint]]
) -> list[str]:
    """Processes that lived through all of it and have grown by more than what rests in pools."""
    found = []
    for pid, (name, now) in after.items():
        if pid not in before:
            continue
        was = before[pid][1]
        if now.open_files - was.open_files > MAX_MORE_FILES:
            found.append(f"{name} (pid {pid}): {was.open_files} open files before, {now.open_files} after")
        if now.resident_mib - was.resident_mib > MAX_MORE_MIB:
            found.append(
                f"{name} (pid {pid}): {was.resident_mib:.0f} MiB before, {now.resident_mib:.0f} after"
            )
    return found


def log_faults(fleet: ChaosFleet, names: Sequence[str] = SERVICES) -> list[str]:
    """Every trace in a log."""
    found = []
    paths = {name: fleet.log_path(name) for name in names}
    paths |= {
        f"engines of {site_id}": fleet.site_directory(site_id) / "fake-hardware.log" for site_id in SITES
    }
    for name, path in paths.items():
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            if "Traceback" not in line and '"exception"' not in line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line}
            text = f"{entry.get('time', '')} {entry.get('message', '')}\n{entry.get('exception', '')}"
            found.append(f"{name} logged a trace: {text[:SHOWN_CHARACTERS]}")
    return found
