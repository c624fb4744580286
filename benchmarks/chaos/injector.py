"""Carries the schedule out: begins each fault, ends it, and writes down when the fleet was unwell.

Rule: a fault that could not be done (an engine that does not run, a Redis that another holds) is counted as
not done. A fault ends whatever happens, so that the fleet can be judged well again.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
from redis.exceptions import RedisError

from benchmarks.chaos.fleet import FLEET, ChaosFleet, FleetError, NotDoneError
from benchmarks.chaos.incidents import Incident
from benchmarks.chaos.operators import Operators
from benchmarks.chaos.schedule import KINDS, Fault, Schedule
from benchmarks.chaos.strangers import Stranger
from cli.topology import REDIS
from fleet.keys import Keys
from fleet.records import Cordon

ENGINES_GONE_SECONDS = 3.0 + 3.0
"""`watchdog_seconds`, and time for a busy machine to see it."""
POLICIES = ("least_loaded", "round_robin", "power_weighted", "selective_push", "reactive")
WRITE_SECONDS = 0.3


class Injector:
    """One run's faults."""

    def __init__(self, fleet: ChaosFleet, *, key: str, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self.incidents: list[Incident] = []
        self.operators = Operators(fleet, key=key, rng=rng, incidents=self.incidents)
        self.done: Counter[str] = Counter()
        self.not_done: Counter[str] = Counter()
        self.log: list[str] = []
        self._held: set[str] = set()

    async def run(self, schedule: Schedule, began_at: float) -> None:
        """All faults; returns when each is over. `began_at`: unix seconds of the schedule's 0."""
        async with asyncio.TaskGroup() as group:
            for fault in schedule.faults:
                group.create_task(self._carry_out(fault, began_at))
        await self.operators.restore()

    async def _carry_out(self, fault: Fault, began_at: float) -> None:
        await asyncio.sleep(max(0.0, began_at + fault.at_seconds - time.time()))
        kind, _, what = fault.kind.partition(": ")
        acts: dict[str, Callable[[Fault, str], Awaitable[None]]] = {
            "wind": self._wind,
            "agent": self._agent,
            "worker": self._worker,
            "router": self._router,
            "feed": self._feed,
            "engines": self._engines,
            "engine": self._engine,
            "redis": self._redis,
            "link": self._link,
            "operator": self._operator,
            "records": self._records,
        }
        self.log.append(fault.describe())
        try:
            with self._hold(fault):
                await acts[kind](fault, what)
        except NotDoneError as error:
            self.not_done[fault.kind] += 1
            self.log.append(f"{fault.describe()}: not done: {error}")
        except FleetError as error:
            self._fleet.violations.append(f"after {fault.kind} of {fault.target}: {error}")
        else:
            self.done[fault.kind] += 1

    @contextmanager
    def _hold(self, fault: Fault) -> Iterator[None]:
        """An earlier fault may last longer than was planned: what begins again takes its time."""
        holds = set(KINDS[fault.kind].holds(fault.target))
        if holds & self._held and not fault.kind.startswith("wind"):
            raise NotDoneError("an earlier fault is not over yet")
        self._held |= holds
        try:
            yield
        finally:
            self._held -= holds

    @contextmanager
    def _unwell(self, what: str) -> Iterator[None]:
        place = len(self.incidents)
        self.incidents.append(Incident(what=what, began_at=time.time(), ended_at=math.inf))
        try:
            yield
        finally:
            self.incidents[place] = replace(self.incidents[place], ended_at=time.time())

    # power: the feed's own script has it
    async def _wind(self, fault: Fault, _what: str) -> None:
        await asyncio.sleep(fault.seconds)

    # processes
    async def _agent(self, fault: Fault, what: str) -> None:
        site_id = fault.target.removeprefix("site-agent ")
        with self._unwell(f"down {fault.target}"):
            if what == "SIGTERM":
                await self._fleet.terminate(fault.target)
                await asyncio.sleep(fault.seconds)
                await self._fleet.launch(fault.target)
                return
            engines = self._hardware_pid(site_id)
            if what == "kill -9":
                await self._kill(fault.target)
                await self._expect_gone(engines, f"{fault.target} was killed, and its engines", fault.seconds)
                await self._fleet.launch(fault.target)
                return
            self._fleet.signal(fault.target, signal.SIGSTOP)
            try:
                if fault.seconds > ENGINES_GONE_SECONDS:
                    await self._expect_gone(
                        engines, f"{fault.target} stood still, and its engines", fault.seconds
                    )
                else:
                    await asyncio.sleep(fault.seconds)
            finally:
                self._fleet.signal(fault.target, signal.SIGCONT)

    async def _expect_gone(self, pid: int | None, what: str, seconds: float) -> None:
        """The pid ends within its time; this takes `seconds`, or until then."""
        began = time.monotonic()
        while pid is not None and _is_alive(pid):
            if time.monotonic() - began > ENGINES_GONE_SECONDS:
                self._fleet.violations.append(f"{what} still ran after {ENGINES_GONE_SECONDS:.0f} s")
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

    async def _kill(self, name: str) -> None:
        self._fleet.signal(name, signal.SIGKILL)
        await self._fleet.child(name).wait()

    def _hardware_pid(self, site_id: str) -> int | None:
        try:
            pid = int(self._fleet.hardware(site_id)["pid"])
        except (OSError, ValueError, KeyError):
            return None
        return pid if _is_alive(pid) else None

    async def _worker(self, fault: Fault, what: str) -> None:
        try:
            page = await self._fleet.page(fault.target, "/heron/v1/fleet")
        except httpx.HTTPError as error:
            raise NotDoneError(repr(error)) from None
        pids = [one["pid"] for one in page["workers"] if one["is_ready"]]
        if not pids:
            raise NotDoneError("no worker is ready")
        pid = self._rng.choice(pids)
        if what == "kill -9":
            with self._unwell(f"worker {fault.target}"):
                os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(fault.seconds)
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _router(self, fault: Fault, _what: str) -> None:
        with self._unwell(f"stopping {fault.target}"):
            await self._fleet.terminate(fault.target)
            await asyncio.sleep(fault.seconds)
            await self._fleet.launch(fault.target)

    async def _feed(self, fault: Fault, what: str) -> None:
        with self._unwell(f"down {fault.target}"):
            if what == "kill -9":
                await self._kill(fault.target)
                await asyncio.sleep(fault.seconds)
                await self._fleet.launch(fault.target)
                return
            self._fleet.signal(fault.target, signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            self._fleet.signal(fault.target, signal.SIGCONT)

    # engines
    async def _engines(self, fault: Fault, _what: str) -> None:
        pid = self._hardware_pid(fault.target)
        if pid is None:
            raise NotDoneError("no engine runs")
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(fault.seconds)

    async def _engine(self, fault: Fault, what: str) -> None:
        kind = {"errors": "error"}.get(what, what)
        try:
            control = self._fleet.hardware(fault.target)["control_url"]
            host = (await self._fleet.client.get(f"{control}/host")).json()
            ready = [one["instance_id"] for one in host["engines"] if one["state"] == "ready"]
            if not ready:
                raise NotDoneError("no engine is ready")
            url = f"{control}/engines/{self._rng.choice(ready)}/fault"
            with self._unwell(f"engine {kind}"):
                answer = await self._fleet.client.post(url, json={"kind": kind})
                answer.raise_for_status()
                await asyncio.sleep(fault.seconds)
            if kind == "stall":
                await self._fleet.client.post(url, json={"kind": "unstall"})
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise NotDoneError(repr(error)) from None

    # Redis
    async def _redis(self, fault: Fault, what: str) -> None:
        with self._unwell("down redis"):
            if what == "SIGSTOP":
                self._fleet.signal(REDIS, signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                self._fleet.signal(REDIS, signal.SIGCONT)
                return
            with self._unwell("no keys"):
                if what == "FLUSHALL":
                    async with self._stranger() as stranger:
                        await stranger.flush()
                    await asyncio.sleep(fault.seconds)
                else:
                    await self._kill(REDIS)
                    await asyncio.sleep(fault.seconds)
                    await self._fleet.launch(REDIS)
                await self.operators.write_key()

    # network
    async def _link(self, fault: Fault, what: str) -> None:
        link = self._fleet.links[fault.target]
        with self._unwell(f"link {link.name}"):
            if what == "slow":
                link.set_slow(fault.value)
            elif what == "blackhole":
                link.set_blackhole()
            elif what == "reset":
                link.set_reset()
            elif what == "half-open":
                link.half_open()
            else:
                link.set_cut(int(fault.value))
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                link.set_pass()

    # operators
    async def _operator(self, fault: Fault, what: str) -> None:
        if what == "policy":
            await self.operators.switch(fault.target, self._rng.choice(POLICIES))
            await asyncio.sleep(fault.seconds)
            await self.operators.insist(lambda: self.operators.switch(fault.target, "heron"))
        elif what == "cordon":
            now = float(int(time.time()))
            await self.operators.write_cordon(fault.target, Cordon(reason="chaos", since_unix_seconds=now))
            await asyncio.sleep(fault.seconds)
            await self.operators.insist(lambda: self.operators.lift(fault.target))
        else:
            await self.operators.exercise_keys(fault)

    # records
    async def _records(self, fault: Fault, what: str) -> None:
        until = time.monotonic() + fault.seconds
        with self._unwell(f"records {fault.target}"):
            async with self._stranger() as stranger:
                if what == "of another type":
                    await stranger.change_types(fault.target)
                    await asyncio.sleep(fault.seconds)
                    await self.operators.insist(lambda: self._remove(fault.target))
                    return
                await stranger.remember(fault.target)
                write = {
                    "garbage": stranger.write_garbage,
                    "old": stranger.write_old,
                    "a second writer": stranger.write_second,
                }[what]
                while time.monotonic() < until:
                    await asyncio.sleep(WRITE_SECONDS)
                    await write(fault.target)

    async def _remove(self, target: str) -> None:
        async with self._stranger() as stranger:
            await stranger.remove(target)

    @asynccontextmanager
    async def _stranger(self) -> AsyncIterator[Stranger]:
        stranger = Stranger(self._fleet.redis_url, Keys(fleet=FLEET), self._rng)
        try:
            yield stranger
        except RedisError as error:
            raise NotDoneError(repr(error)) from None
        finally:
            await stranger.aclose()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
