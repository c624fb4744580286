"""Measures a real engine, point by point, through its OpenAI API: a closed loop of so many streams.

Each stream is followed by the next at once, so that the batch stays as large as the point says. A window
opens when every stream has had a token and closes after the seconds asked for; gaps between tokens, first
tokens and joules are of that window alone. Joules come from the GPUs' own counters, where they can be read on
this machine; elsewhere watts are unknown.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Protocol

from fleet.profiles.document import Row
from gateway.upstream import UpstreamPool
from replay.client import ClientLimits, Endpoint, Exchange, ReplayClient
from replay.measures import Quantiles
from replay.outcome import RequestResult
from replay.profile_sweep import Document, Point, SweepError, row_of
from replay.prompts import PromptSource
from replay.schedule import ScheduledRequest

FIRST_TOKENS_SECONDS = 300.0
"""For every stream of a point to have its first token."""
SETTLE_SECONDS = 1.0
"""After a new clock, and after the last stream began."""
BACK_OFF_SECONDS = 0.2
"""After a request that failed, so that a dead server is not flooded."""
MAX_FAILURES = 50
CLOCK_SECONDS = 0.5
"""Between readings of the GPUs' clock in a window."""
IDLE_SECONDS = 5.0
"""At most, of the empty engine's watts."""


class Meter(Protocol):
    """The GPUs of the engine."""

    async def joules(self) -> float | None:
        """Their counters together; None: unknown."""

    async def clock_mhz(self) -> float | None:
        """What the slowest of them runs at now; None: unknown."""

    async def set_clock(self, clock_mhz: int | None) -> None:
        """Lock them.

        Raises:
            SweepError: not permitted, or not possible.
        """

    async def aclose(self) -> None:
        """Let go of them, clocks as they were."""


class NoMeter:
    """Engines on a CPU, or on another machine."""

    async def joules(self) -> float | None:
        """See Meter."""
        return None

    async def clock_mhz(self) -> float | None:
        """See Meter."""
        return None

    async def set_clock(self, clock_mhz: int | None) -> None:
        """See Meter."""
        if clock_mhz is not None:
            raise SweepError("clocks are set on this machine's GPUs only: say which with --gpus")

    async def aclose(self) -> None:
        """See Meter."""


async def sweep(
    document: Document,
    wanted: Sequence[Point],
    *,
    endpoint: Endpoint,
    prompts: PromptSource,
    api_key: str | None,
    output_tokens: int,
    seconds: float,
    meter: Meter,
    keep: Callable[[], Awaitable[None]],
    on_row: Callable[[Row, int, int], None],
) -> None:
    """Measure what is missing, keeping the document after every point; the meter is closed at the end.

    Raises:
        SweepError: the engine fails, or a clock cannot be set.
    """
    missing = document.missing(wanted)
    pool = UpstreamPool(connect_timeout_seconds=5.0)
    indices = itertools.count()
    clock: int | None = None
    try:
        if missing and document.engine.idle_watts is None:
            watts = await _idle_watts(meter, min(seconds, IDLE_SECONDS))
            document.engine = document.engine.model_copy(update={"idle_watts": watts})
        for number, point in enumerate(missing, 1):
            if point.clock_mhz != clock:
                await meter.set_clock(point.clock_mhz)
                clock = point.clock_mhz
                await asyncio.sleep(SETTLE_SECONDS)
            window = _Window(point)
            client = ReplayClient(
                pool, endpoint, prompts, limits=ClientLimits(), api_key=api_key, on_gap=window.take_gap
            )
            row = await _measure(window, client, output_tokens, seconds, meter, indices)
            document.rows.append(row)
            await keep()
            on_row(row, number, len(missing))
    finally:
        await meter.aclose()
        await pool.aclose()


async def _idle_watts(meter: Meter, seconds: float) -> float | None:
    """Of the engine while nobody asks it anything; None: unknown."""
    if await meter.joules() is None:
        return None
    await asyncio.sleep(SETTLE_SECONDS)
    before = await _read(meter)
    await asyncio.sleep(seconds)
    watts = _watts(before, await _read(meter))
    return None if watts is None else round(watts, 2)


async def _read(meter: Meter) -> tuple[float | None, float]:
    """Its joules, and the middle of the time that asking took."""
    asked_at = perf_counter()
    joules = await meter.joules()
    return joules, (asked_at + perf_counter()) / 2


def _watts(before: tuple[float | None, float], after: tuple[float | None, float]) -> float | None:
    """Between two readings; None: unknown."""
    if before[0] is None or after[0] is None or after[0] < before[0] or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


class _Window:
    """What is seen while it is open."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.gaps = Quantiles()
        self.tokens = 0
        self.is_open = False
        self.results: list[RequestResult] = []
        self.failures: list[str] = []
        self.tokens_before = 0
        self.clocks_mhz: list[float] = []

    def take_gap(self, seconds: float) -> None:
        """A token came, this long after the one before it."""
        self.tokens_before += 1
        if self.is_open:
            self.tokens += 1
            self.gaps.add(seconds)

    @property
    def counted_tokens(self) -> int:
        """Tokens of the window: gaps and first tokens, as the server counts where an event brings several."""
        whole = [one for one in self.results if one.output_tokens and one.token_events]
        events = sum(one.token_events for one in whole)
        ratio = sum(one.output_tokens or 0 for one in whole) / events if events else 1.0
        return round((self.tokens + len(self.results)) * ratio)

    def take_result(self, result: RequestResult) -> None:
        if result.outcome != "completed":
            self.failures.append(result.reason)
        elif self.is_open:
            self.results.append(result)


async def _measure(
    window: _Window,
    client: ReplayClient,
    output_tokens: int,
    seconds: float,
    meter: Meter,
    indices: itertools.count[int],
) -> Row:
    point = window.point
    streams = [
        asyncio.create_task(_keep_streaming(window, client, output_tokens, indices))
        for _ in range(point.running_requests)
    ]
    watching = asyncio.create_task(_watch_clock(window, meter))
    try:
        await _all_streaming(window, streams)
        before, began_at = await _read(meter), perf_counter()
        window.is_open = True
        await asyncio.wait(streams, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        window.is_open = False
        elapsed, watts = perf_counter() - began_at, _watts(before, await _read(meter))
        for stream in streams:
            if stream.done():
                stream.result()
    finally:
        for task in (*streams, watching):
            task.cancel()
        await asyncio.gather(*streams, watching, return_exceptions=True)
    return row_of(
        point,
        seconds=elapsed,
        ttft_seconds=[one.ttft_seconds for one in window.results if one.ttft_seconds is not None],
        gaps_seconds=(window.gaps.quantile(0.5), window.gaps.quantile(0.99)),
        tokens=window.counted_tokens,
        requests=len(window.results),
        failed_requests=len(window.failures),
        joules=None if watts is None else watts * elapsed,
        counted_prompt_tokens=[one.prompt_tokens for one in window.results if one.prompt_tokens is not None],
        clocks_mhz=window.clocks_mhz,
    )


async def _watch_clock(window: _Window, meter: Meter) -> None:
    """Reads it as long as the window is open: whoever locks a GPU's clock does not tell the sweep."""
    while True:
        if window.is_open and (clock := await meter.clock_mhz()) is not None:
            window.clocks_mhz.append(clock)
        await asyncio.sleep(CLOCK_SECONDS)


async def _all_streaming(window: _Window, streams: Sequence[asyncio.Task[None]]) -> None:
    """Until about every stream has had tokens, and a moment more."""
    wanted = 2 * len(streams)
    deadline = perf_counter() + FIRST_TOKENS_SECONDS
    while window.tokens_before < wanted:
        for stream in streams:
            if stream.done():
                stream.result()
        if perf_counter() > deadline:
            why = window.failures[-1] if window.failures else "no token"
            raise SweepError(f"{window.point.running_requests} streams do not come up: {why}")
        await asyncio.sleep(0.02)
    await asyncio.sleep(SETTLE_SECONDS)


async def _keep_streaming(
    window: _Window, client: ReplayClient, output_tokens: int, indices: itertools.count[int]
) -> None:
    while True:
        request = ScheduledRequest(
            index=next(indices),
            due_seconds=0.0,
            prompt_tokens=window.point.prompt_tokens,
            output_tokens=output_tokens,
        )
        result = await Exchange(client, request).run()
        window.take_result(result)
        if result.outcome != "completed":
            if len(window.failures) >= MAX_FAILURES:
                raise SweepError(f"the engine fails: {result.reason}")
            await asyncio.sleep(BACK_OFF_SECONDS)
