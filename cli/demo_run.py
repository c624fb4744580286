"""One demo from first process to last: bring the fleet up, send traffic, let the scenario happen, judge.

Rule: whatever happens in here, the fleet is stopped in order and no process stays behind.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cli.demo_config import (
    STRICKEN_SITE,
    DemoOptions,
    cap_rule,
    crash_at_seconds,
    fall_at_seconds,
    ride_through,
    start_file,
)
from cli.demo_fleet import FleetWatch
from cli.demo_result import disagreements, others_requests, power_values, problems, total
from cli.demo_samples import GoodSample, pushback_values, recovery_values
from cli.power_logs import judge_sites
from cli.signals import StopRequest
from cli.supervisor import StartError, Supervisor
from cli.topology import Topology, site_agent_name
from cli.up import stop_in_order
from replay.progress import Progress
from replay.report import summary
from replay.results import Results
from replay.runner import ReplayPlan
from replay.runner import run as replay
from replay.schedule import ScheduleCounts

PROGRESS_SECONDS = 0.25
SETTLE_SECONDS = 5.0
"""The router's ledger has this long to close its last entries once every client has its answer."""
LEDGER_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTraffic:
    """What is sent, and what it is called."""

    plan: ReplayPlan
    counts: ScheduleCounts
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCallbacks:
    """Who shows the run while it lasts."""

    on_ready: Callable[[], None]
    """Traffic starts."""
    on_tick: Callable[[Progress], None]
    """A few times a second from then on."""
    on_note: Callable[[str], None]
    """The demo did or saw something itself; may be several lines."""
    seconds_since_launch: Callable[[], float]


class DemoRun:
    """One run; `run` is called once."""

    def __init__(
        self,
        options: DemoOptions,
        topology: Topology,
        traffic: DemoTraffic,
        *,
        stop: StopRequest,
        callbacks: DemoCallbacks,
    ) -> None:
        self.watch = FleetWatch(topology.operations_url, options)
        self._options = options
        self._topology = topology
        self._traffic = traffic
        self._stop = stop
        self._callbacks = callbacks
        self._faults: list[str] = []
        self._first_answer_seconds: float | None = None
        self._start_unix_seconds: float | None = None
        self._good: list[GoodSample] = []
        self._supervisor = Supervisor(
            topology.stages,
            log_directory=log_directory(options.run_directory),
            environment=os.environ,
            report=self._note,
            restart=False,
        )

    async def run(self) -> dict[str, Any] | None:
        """The summary, with its `problems`; None when the run was stopped before it had one.

        The first signal ends the traffic (before it: the run), the second everything at once.

        Raises:
            StartError: a service did not come up.
            TraceError: the trace is refused in mid-run.
        """
        work = asyncio.create_task(self._work())
        guard = asyncio.create_task(self._cancel_when_told(work))
        try:
            await asyncio.wait((work,))
        finally:
            guard.cancel()
            work.cancel()
            await asyncio.gather(guard, work, return_exceptions=True)
            await stop_in_order(self._supervisor, self._stop.is_urgent)
        if work.cancelled():
            return None
        results, ledger = work.result()
        return await asyncio.to_thread(self._summary, results, ledger)

    async def _cancel_when_told(self, work: asyncio.Task[Any]) -> None:
        await self._stop.requested.wait()
        if self._start_unix_seconds is None:
            work.cancel()
        await self._stop.is_urgent.wait()
        work.cancel()

    async def _work(self) -> tuple[Results, dict[str, int]]:
        await self._supervisor.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            watching = asyncio.create_task(self.watch.run(client))
            try:
                await self._wait_until_serving()
                self._start_unix_seconds = time.time()
                await asyncio.to_thread(
                    _write_start, start_file(self._options.run_directory), self._start_unix_seconds
                )
                self.watch.traffic_started(self._start_unix_seconds)
                self._callbacks.on_ready()
                results = await self._send()
                ledger = await self._settled_ledger(client)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        for name, count in sorted(self._supervisor.unexpected_deaths.items()):
            self._faults.append(f"{name} ended by itself ({count} ×); see its log")
        return results, ledger

    async def _wait_until_serving(self) -> None:
        """Raise StartError when a service ends instead."""
        serving = asyncio.create_task(self.watch.wait_until_serving())
        loss = asyncio.create_task(self._supervisor.has_lost_one.wait())
        try:
            await asyncio.wait((serving, loss), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                names = ", ".join(sorted(self._supervisor.unexpected_deaths))
                raise StartError(f"{names} ended before traffic started")
            serving.result()
        finally:
            for task in (serving, loss):
                task.cancel()
            await asyncio.gather(serving, loss, return_exceptions=True)

    async def _send(self) -> Results:
        crash = asyncio.create_task(self._crash())
        try:
            return await replay(
                self._traffic.plan,
                self._topology.base_url,
                stop=self._stop.requested,
                on_progress=self._progressed,
                progress_seconds=PROGRESS_SECONDS,
            )
        finally:
            crash.cancel()
            await asyncio.gather(crash, return_exceptions=True)

    def _progressed(self, progress: Progress) -> None:
        if self._first_answer_seconds is None and progress.outcomes["completed"]:
            self._first_answer_seconds = self._callbacks.seconds_since_launch()
        self._good.append(GoodSample(at_seconds=progress.elapsed_seconds, good=progress.good))
        self._callbacks.on_tick(progress)

    async def _crash(self) -> None:
        """Scenario site-crash: the stricken agent is killed, and started again later."""
        instants = crash_at_seconds(self._options)
        if instants is None:
            return
        name = site_agent_name(STRICKEN_SITE)
        await asyncio.sleep(instants[0])
        self._supervisor.expect_death(name)
        self._supervisor.child(name).kill()
        self._note(f"kill -9 of {name}")
        await asyncio.sleep(instants[1] - instants[0])
        self._note(f"{name} is started again")
        try:
            await self._supervisor.restart_service(name)
        except StartError as error:
            self._faults.append(str(error))

    def _note(self, text: str) -> None:
        self.watch.note(text)
        self._callbacks.on_note(text)

    async def _settled_ledger(self, client: httpx.AsyncClient) -> dict[str, int]:
        """The router's own counts, once nothing is in flight there or it has had time enough."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + SETTLE_SECONDS
        while True:
            answer = await client.get(f"{self._topology.operations_url}/heron/v1/ledger")
            answer.raise_for_status()
            ledger: dict[str, int] = answer.json()
            if ledger["in_flight"] == 0 or loop.time() > give_up_at:
                return ledger
            await asyncio.sleep(LEDGER_POLL_SECONDS)

    def _summary(self, results: Results, ledger: Mapping[str, int]) -> dict[str, Any]:
        options = self._options
        verdicts, power_faults = judge_sites(
            options,
            self._topology,
            start_unix_seconds=self._start_unix_seconds,
            rule=cap_rule(options),
            limits=ride_through(options),
        )
        power = power_values(verdicts)
        values = summary(
            results,
            inputs=self._traffic.inputs,
            retried=ledger["retried"],
            resumed=ledger["resumed"],
            cap_exceeded_seconds=total(power, "cap_exceeded_seconds"),
            energy_joules=total(power, "energy_joules"),
            schedule=self._traffic.counts,
        )
        unanswered = {"requests": 0, "completed": 0, "output_tokens": 0}
        values["sites"] = {
            site_id: {**values["sites"].get(site_id, unanswered), **power[site_id]}
            for site_id in options.sites
        }
        values["first_answer_seconds"] = self._first_answer_seconds
        fall_at = fall_at_seconds(options)
        values["pushbacks"] = pushback_values(self.watch.samples, fall_at)
        if options.scenario == "all-dark":
            values["recovery"] = recovery_values(self.watch.samples, self._good, fall_at)
        values["ledger"] = dict(ledger)
        values["other_clients_requests"] = others_requests(values, ledger)
        faults = [*self._faults, *power_faults, *disagreements(values, ledger)]
        values["problems"] = problems(values, faults=faults)
        return values


def log_directory(run_directory: Path) -> Path:
    """Where the services of a run log."""
    return run_directory / "logs"


def _write_start(path: Path, unix_seconds: float) -> None:
    """Whole or not at all: the feed may look at any moment."""
    draft = path.with_suffix(".draft")
    draft.write_text(repr(unix_seconds))
    draft.replace(path)
