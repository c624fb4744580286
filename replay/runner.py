"""The open loop: sends each request when it is due, whatever became of the ones before it.

Rule: nothing is delayed in silence. A request sent late is counted, and one that is due while the cap on
requests in flight is reached is not sent, which is counted as well.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from time import perf_counter

from gateway.upstream import UpstreamPool
from replay.client import ClientLimits, Endpoint, Exchange, LeaveReason, ReplayClient
from replay.outcome import RequestResult
from replay.progress import Progress, RollingWindow
from replay.prompts import PromptSource
from replay.results import Results, Slo
from replay.schedule import ScheduledRequest

LATE_SECONDS = 0.05
"""A send that is later than this is counted: it no longer has the trace's own gaps."""
DEFAULT_MAX_IN_FLIGHT = 4096
_FILES_FOR_THE_REST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What to send and how to judge it."""

    requests: Iterable[ScheduledRequest]
    """In order of due time; pulled one at a time while the run lasts, and only once."""
    prompts: PromptSource
    slo: Slo | None = None
    """None: no goodput is reported."""
    limits: ClientLimits = field(default_factory=ClientLimits)
    api_key: str | None = None
    stream: bool = True
    is_verifying: bool = False
    """The server is Heron's emulated engine: every word of every answer is checked."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    grace_seconds: float | None = None
    """After the last send; what has not ended by then is `lost`. None: as long as `limits` allow."""


async def run(
    plan: ReplayPlan,
    base_url: str,
    *,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    progress_seconds: float = 0.5,
) -> Results:
    """Replay `plan` against the OpenAI API at `base_url` and return the tally.

    `stop`, once set, ends the run: no more is sent, and what is in flight counts as `client_cancelled`.
    `on_progress` is called every `progress_seconds` and once at the end.

    Raises:
        ValueError: `base_url` cannot be used.
        TraceError: whatever reading the requests raises, TraceError above all; the rest is cancelled.
    """
    endpoint = Endpoint.parse(base_url)
    pool = UpstreamPool(
        connect_timeout_seconds=plan.limits.connect_timeout_seconds, max_idle_per_origin=plan.max_in_flight
    )
    try:
        return await _Run(plan, endpoint, pool).run(stop, on_progress, progress_seconds)
    finally:
        await pool.aclose()


def allow_open_files(max_in_flight: int) -> str | None:
    """Raise this process's limit on open files so that so many connections fit.

    Returns a sentence for a person when the system's hard limit is too low for that, else None.
    """
    needed = max_in_flight + _FILES_FOR_THE_REST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return None
    return (
        f"{max_in_flight} requests in flight need {needed} open files, the hard limit is {hard}: "
        f"raise it (ulimit -Hn) or lower the number in flight, else connections fail and count as failed"
    )


class _Run:
    """One run; `run` is called once."""

    def __init__(self, plan: ReplayPlan, endpoint: Endpoint, pool: UpstreamPool) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._results = Results(slo=plan.slo)
        self._window = RollingWindow(self._results, perf_counter())
        self._client = ReplayClient(
            pool,
            endpoint,
            plan.prompts,
            limits=plan.limits,
            api_key=plan.api_key,
            stream=plan.stream,
            is_verifying=plan.is_verifying,
            on_gap=self._window.add_gap,
        )
        self._in_flight: dict[asyncio.Task[RequestResult], Exchange] = {}
        self._is_stopping = False
        self._sleeper: asyncio.Future[None] | None = None
        self._fault: BaseException | None = None

    async def run(
        self,
        stop: asyncio.Event | None,
        on_progress: Callable[[Progress], None] | None,
        progress_seconds: float,
    ) -> Results:
        """See the module's `run`."""
        helpers = [asyncio.create_task(self._tick(on_progress, progress_seconds))]
        if stop is not None:
            helpers.append(asyncio.create_task(self._watch(stop)))
        for helper in helpers:
            helper.add_done_callback(self._on_helper_done)
        requests = iter(self._plan.requests)
        first = next(requests, None)  # a file's first block is read before the clock starts
        started_at = perf_counter()
        try:
            if first is not None:
                await self._send_all(chain((first,), requests), started_at)
            await self._drain()
        finally:
            for task in (*helpers, *self._in_flight):
                task.cancel()
            await asyncio.gather(*helpers, *self._in_flight, return_exceptions=True)
        if self._fault is not None:
            raise self._fault
        self._results.duration_seconds = perf_counter() - started_at
        self._window.close()
        if on_progress is not None:
            on_progress(self._window.progress(perf_counter(), in_flight=0))
        return self._results

    async def _send_all(self, requests: Iterable[ScheduledRequest], started_at: float) -> None:
        """Cases for each request in turn: not due yet, due, due while the cap is reached."""
        results = self._results
        for request in requests:
            due_at = started_at + request.due_seconds
            early = due_at - perf_counter()
            if early > 0:
                await self._sleep(early)
            else:
                await asyncio.sleep(0)  # behind: what has been started still gets its turn
            if self._is_stopping:
                return
            if len(self._in_flight) >= self._plan.max_in_flight:
                results.unsent += 1
                continue
            lateness = perf_counter() - due_at
            if lateness > results.max_lateness_seconds:
                results.max_lateness_seconds = lateness
            if lateness > LATE_SECONDS:
                results.late_sends += 1
            exchange = Exchange(self._client, request)
            task = asyncio.create_task(exchange.run())
            self._in_flight[task] = exchange
            task.add_done_callback(self._on_exchange_done)
            results.sent += 1
            self._window.add_sent()

    async def _drain(self) -> None:
        """Wait for what is in flight, at most for the grace."""
        if not self._in_flight:
            return
        _, late = await asyncio.wait(self._in_flight, timeout=self._plan.grace_seconds)
        if late:
            self._leave_all("grace")
            await asyncio.wait(late)

    async def _sleep(self, seconds: float) -> None:
        self._sleeper = sleeper = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleeper = None

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _stop(self) -> None:
        self._is_stopping = True
        self._wake()
        self._leave_all("client_cancelled")

    def _leave_all(self, reason: LeaveReason) -> None:
        for exchange in self._in_flight.values():
            exchange.leave(reason)

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stop()

    async def _tick(self, on_progress: Callable[[Progress], None] | None, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            now = perf_counter()
            self._window.roll(now)
            if on_progress is not None:
                on_progress(self._window.progress(now, in_flight=len(self._in_flight)))

    def _on_helper_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fault = self._fault or task.exception()
            self._stop()

    def _on_exchange_done(self, task: asyncio.Task[RequestResult]) -> None:
        del self._in_flight[task]
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            self._fault = self._fault or fault  # a fault of this program: the run cannot be trusted
            self._stop()
            return
        self._results.add(task.result())
        self._window.add_result(task.result())
