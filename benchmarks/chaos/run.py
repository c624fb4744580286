"""One run: the fleet up, a warm-up at rest, faults under load, the fleet well again, the judgement."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos import checks
from benchmarks.chaos.asks import LONGEST_TOKENS
from benchmarks.chaos.clients import Clients, Record
from benchmarks.chaos.fleet import MODEL, READY_SECONDS, ChaosFleet
from benchmarks.chaos.incidents import Incident, excuse, excuse_of_answer, expected_ledger, ledger_faults
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.power import SiteVerdict, judge_sites
from benchmarks.chaos.schedule import ROUTERS, Schedule
from cli.judge import PowerLogError
from fleet.api_key import format_key

LEAD_SECONDS = 3.0
"""Of load before the first fault."""
LAG_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class Result:
    """One run, judged."""

    schedule: Schedule
    done: Counter[str] = field(default_factory=Counter)
    not_done: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    sites: list[SiteVerdict] = field(default_factory=list)
    ledgers: dict[str, dict[str, int]] = field(default_factory=dict)
    recovery: dict[str, float] = field(default_factory=dict)
    """What was unwell after the last fault, and for how many seconds."""
    calm_requests: int = 0
    lag_seconds: float = 0.0
    """The most that this process's own loop was late: what the machine did to all of them."""
    footprints: list[tuple[str, checks.Footprint, checks.Footprint]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    began_at: float = 0.0
    """Unix seconds of the schedule's 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much of everything."""

    clients: int = 24
    warm_up_requests: int = 60
    calm_requests: int = 80
    at_once: int = 12
    longest_tokens: int = LONGEST_TOKENS
    rest_seconds: float = 8.0
    """Before each look at open files and memory: longer than a pooled connection lives."""


async def run(schedule: Schedule, directory: Path, setting: Setting) -> Result:
    """Run it. Everything that may not be is in `violations`.

    Raises:
        FleetError: the fleet did not come up at all.
    """
    result = Result(schedule=schedule)
    fleet = ChaosFleet(directory, schedule)
    rng = random.Random(schedule.seed)
    key = format_key(secrets.token_bytes(32))
    injector = Injector(fleet, key=key, rng=random.Random(rng.getrandbits(64)))
    clients = Clients(
        model=MODEL,
        key=key,
        ports={name: place.port for name, place in fleet.routers.items()},
        lives=lambda name: fleet.lives[name],
        rng=random.Random(rng.getrandbits(64)),
        longest_tokens=setting.longest_tokens,
    )
    watching = asyncio.create_task(_watch_lag(result))
    try:
        await fleet.start()
        await injector.operators.write_key()
        _, faults = await checks.until_well(fleet, READY_SECONDS)
        if faults:
            result.violations += [f"before any fault: {fault}" for fault in faults]
            return result
        warm = await clients.ask_each(setting.warm_up_requests, setting.at_once)
        result.violations += _calm_faults(warm, "before any fault")
        await asyncio.sleep(setting.rest_seconds)
        before = checks.footprints(fleet)
        result.began_at = await _under_faults(fleet, clients, injector, schedule, setting)
        result.recovery, faults = await checks.until_well(fleet, checks.RECOVERY_SECONDS)
        result.violations += [
            f"{checks.RECOVERY_SECONDS:.0f} s after the last fault: {fault}" for fault in faults
        ]
        calm = await clients.ask_each(setting.calm_requests, setting.at_once)
        result.calm_requests = len(calm)
        result.violations += _calm_faults(calm, "after the faults")
        result.violations += await checks.until_idle(fleet, 10.0)
        await asyncio.sleep(setting.rest_seconds)
        after = checks.footprints(fleet)
        result.footprints = [(after[pid][0], before[pid][1], after[pid][1]) for pid in after if pid in before]
        result.violations += checks.growth_faults(before, after)
        result.violations += await checks.loop_failures(fleet)
        result.violations += await _ledgers(fleet, clients.records, injector.incidents, result)
        result.sites, power_faults = await asyncio.to_thread(
            _judge_power, fleet, injector.incidents, result.began_at
        )
        result.violations += power_faults
    finally:
        watching.cancel()
        await fleet.stop()
    result.violations += fleet.violations + checks.log_faults(fleet)
    result.violations += _wrong(clients.records, injector.incidents, result)
    result.done, result.not_done, result.log = injector.done, injector.not_done, injector.log
    result.incidents, result.records = injector.incidents, clients.records
    result.outcomes = clients.table()
    return result


async def _under_faults(
    fleet: ChaosFleet, clients: Clients, injector: Injector, schedule: Schedule, setting: Setting
) -> float:
    """Until the last fault is over and every client has its answer; when it began, in unix seconds."""
    over = asyncio.Event()
    began_at = time.time() + LEAD_SECONDS
    fleet.write_start(began_at)
    load = asyncio.create_task(clients.run(setting.clients, over))
    try:
        await injector.run(schedule, began_at)
    finally:
        over.set()
        await load
    return began_at


async def _watch_lag(result: Result) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)
        result.lag_seconds = max(result.lag_seconds, time.monotonic() - began - LAG_SECONDS)


def _calm_faults(records: Sequence[Record], when: str) -> list[str]:
    return [
        f"{when}, {one.ask.kind} at {one.router} ({one.request_id}): "
        f"{one.verdict.heading} {one.verdict.wrong} {one.got_tail}"
        for one in records
        if one.verdict.heading != "right"
    ]


async def _ledgers(
    fleet: ChaosFleet, records: Sequence[Record], incidents: Sequence[Incident], result: Result
) -> list[str]:
    """Each router's last life beside what its clients saw of it."""
    found = []
    for router in ROUTERS:
        ledger = await fleet.page(router, "/heron/v1/ledger")
        result.ledgers[router] = ledger
        life = fleet.lives[router]
        mine = [one for one in records if one.router == router and one.life == life]
        killed = [one for one in incidents if one.what == f"worker {router}"]
        metrics = await fleet.metrics(router)
        may_vary = int(metrics.get("heron_router_worker_lost_requests", 0)) + len(killed)
        restarts = metrics.get("heron_router_worker_restarts_total", 0)
        since = fleet.started_at[router]
        if restarts > sum(one.began_at > since for one in killed):
            found.append(f"{router}: {restarts:g} workers ended by themselves, {len(killed)} were killed")
        found += [
            f"{router}: {fault}" for fault in ledger_faults(expected_ledger(mine), ledger, may_vary=may_vary)
        ]
    return found


def _judge_power(
    fleet: ChaosFleet, incidents: Sequence[Incident], began_at: float
) -> tuple[list[SiteVerdict], list[str]]:
    try:
        verdicts = judge_sites(fleet, incidents, start_unix_seconds=began_at)
    except PowerLogError as error:
        return [], [str(error)]
    return verdicts, [verdict.fault for verdict in verdicts if verdict.fault]


def _wrong(records: Sequence[Record], incidents: Sequence[Incident], result: Result) -> list[str]:
    found = []
    for one in records:
        verdict = one.verdict
        if not verdict.wrong and not verdict.is_unanswered:
            continue
        why = excuse(one, incidents) if verdict.is_unanswered else excuse_of_answer(one, incidents)
        if why:
            result.excused[f"{verdict.heading}, {why}"] += 1
            continue
        began = one.began_at - result.began_at
        found.append(
            f"{one.ask.kind} at {one.router} ({one.request_id}, {began:.1f} s, took "
            f"{one.ended_at - one.began_at:.1f} s): {verdict.heading} {verdict.wrong} {one.got_tail}"
        )
    return found
