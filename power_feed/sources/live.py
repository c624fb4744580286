"""Keeps one connection to a farm up: connects, listens, waits and connects again. The shell of live sources.

A `Link` speaks one protocol and nothing else: it connects, says what it hears, and raises when the connection
is of no more use. Everything that all protocols need is here: back-off with jitter, silence, what a fault
counts as, who is told.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from power_feed.sources.interface import FaultKind, LiveStatus, Measurement, Measures, Watcher
from power_feed.sources.latest import Latest
from power_feed.sources.signals import CurtailmentRule, Scaling, SourceFaultError

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
STEADY_SECONDS = 10.0
"""A connection that lasted so long was a good one: the next back-off starts anew."""
SILENT_PERIODS = 3
MIN_SILENT_SECONDS = 10.0
"""A connection on which nothing came for three periods, but at least so long, is made anew."""
MAX_RETRY_AFTER_SECONDS = 3600.0
LOG_EVERY_SECONDS = 60.0
"""A fault that repeats is logged so often; the metric counts each."""


class Listener(Protocol):
    """Whom a link tells what it hears."""

    def connected(self) -> None:
        """The other side answers."""

    def heard(self, raw: object, *, observed_at: float | None = None) -> None:
        """A value of the power signal, as the protocol gave it. `observed_at` in Unix seconds; None: now."""

    def heard_curtailment(self, raw: object) -> None:
        """A value of the curtailment signal, as the protocol gave it."""

    def lose_curtailment(self, error: SourceFaultError) -> None:
        """The curtailment signal could not be read: whether the farm is free is not known."""

    def fault(self, error: SourceFaultError) -> None:
        """What came for the power is no measurement (the reading falls back); the connection goes on."""


class Link(Protocol):
    """One protocol."""

    @property
    def description(self) -> str: ...

    async def listen(self, listener: Listener) -> None:
        """Connect and listen until the connection ends, by returning or raising; release everything.

        Connecting has a time-out of its own; silence is counted from `listener.connected()`.

        Raises:
            SourceFaultError: why it ended.
        """


class Live:
    """A live source (`interface.LiveSource`) over one link."""

    speed = 1.0

    def __init__(
        self,
        link: Link,
        *,
        kind: str,
        scaling: Scaling,
        measures: Measures,
        curtailment: CurtailmentRule | None,
        period_seconds: float,
        max_retry_seconds: float,
        silent_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is connected before `run`. `clock` is the wall's."""
        self.kind = kind
        self.status = LiveStatus()
        self.measures: Measures = measures
        self.period_seconds = period_seconds
        self.description = link.description[:512]
        self._link = link
        self._scaling = scaling
        self._curtailment = curtailment
        self._latest = Latest(
            period_seconds=period_seconds, measures=measures, needs_curtailment=curtailment is not None
        )
        self._max_retry_seconds = max_retry_seconds
        self._silent_seconds = silent_seconds or max(MIN_SILENT_SECONDS, SILENT_PERIODS * period_seconds)
        self._clock = clock
        self._rng = rng or random.Random()
        self._watcher: Watcher | None = None
        self._limit: asyncio.Timeout | None = None
        self._logged: dict[FaultKind, float] = {}
        self._connected_at: float | None = None

    def measurement(self, at_unix_seconds: float) -> Measurement:  # noqa: ARG002 - the newest is of any instant
        """The newest one."""
        return self._latest.measurement()

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        """When something changed after that instant, so that a feed is due at once; else unknown."""
        return self._latest.changed_after(at_unix_seconds)

    def watch(self, watcher: Watcher) -> None:
        """Tell one watcher; before `run`."""
        self._watcher = watcher

    async def run(self) -> None:
        """Keep the connection up, for ever."""
        failures = 0
        while True:
            error = await self._listen_once()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # a library took it for the end of a connection
            connected_at, self._connected_at = self._connected_at, None
            self.status.is_connected = False
            if self._latest.signal(None, now=self._clock()):
                self._tell_changed()
            self._count(error)
            loop_time = asyncio.get_running_loop().time()
            was_steady = connected_at is not None and loop_time - connected_at >= STEADY_SECONDS
            failures = 1 if was_steady else failures + 1
            wait = retry_seconds(failures, self._max_retry_seconds, self._rng)
            if error.retry_after_seconds is not None:
                wait = max(wait, min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
            await asyncio.sleep(wait)

    async def _listen_once(self) -> SourceFaultError:
        """One connection, and why it ended."""
        try:
            async with asyncio.timeout(None) as self._limit:
                await self._link.listen(self)
        except SourceFaultError as error:
            return error
        except TimeoutError:
            if self._limit is not None and self._limit.expired():
                return SourceFaultError(
                    "silence",
                    f"nothing came for {self._silent_seconds:g} s: is the farm's side publishing? "
                    "Connecting anew",
                )
            return SourceFaultError("timeout", "no answer in time")
        except Exception as error:
            # A protocol library met bytes it does not understand. Other farms must not suffer for it.
            logger.exception("source %s: unexpected", self.description)
            return SourceFaultError("internal", f"unexpected: {type(error).__name__}: {error}")
        finally:
            self._limit = None
        return SourceFaultError("connect", "the other side ended the connection")

    def connected(self) -> None:
        """The other side answers."""
        self._connected_at = asyncio.get_running_loop().time()
        self._postpone_silence()
        self.status.is_connected = True
        self.status.connections += 1
        logger.info("source connected: %s", self.description, extra={"connections": self.status.connections})
        if self._watcher is not None:
            self._watcher.connected()

    def heard(self, raw: object, *, observed_at: float | None = None) -> None:
        """A value of the power signal."""
        self._postpone_silence()
        now = self._clock()
        try:
            is_change = self._latest.put(self._scaling.watts(raw), observed_at=observed_at, now=now)
        except SourceFaultError as error:
            self.fault(error)
            return
        self.status.value_at_unix_seconds = now
        if is_change:
            self._tell_changed()

    def heard_curtailment(self, raw: object) -> None:
        """A value of the curtailment signal."""
        if self._curtailment is None:
            return
        try:
            self._signal(self._curtailment.is_curtailed(raw))
        except SourceFaultError as error:
            self.lose_curtailment(error)

    def lose_curtailment(self, error: SourceFaultError) -> None:
        """The curtailment signal could not be read; unknown is not free."""
        self._count(error)
        self._signal(None)

    def _signal(self, is_curtailed: bool | None) -> None:
        if self._latest.signal(is_curtailed, now=self._clock()):
            word = {True: "curtailed", False: "not curtailed", None: "perhaps curtailed"}[is_curtailed]
            logger.info("farm is %s, says %s", word, self.description)
            self._tell_changed()

    def fault(self, error: SourceFaultError) -> None:
        """What came for the power is no measurement, and the connection goes on."""
        self._count(error)
        self._postpone_silence()
        self._latest.put_unusable(now=self._clock())
        self._tell_changed()

    def _postpone_silence(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._silent_seconds)

    def _tell_changed(self) -> None:
        if self._watcher is not None:
            self._watcher.changed()

    def _count(self, error: SourceFaultError) -> None:
        kind = error.kind
        self.status.faults[kind] = self.status.faults.get(kind, 0) + 1
        self.status.last_fault = (kind, str(error))
        if self._watcher is not None:
            self._watcher.failed(kind)
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(kind, -LOG_EVERY_SECONDS) >= LOG_EVERY_SECONDS:
            self._logged[kind] = now
            logger.warning("source %s: %s", self.description, error, extra={"kind": kind})


def keep_quiet(library: str) -> None:
    """Silence a protocol library's own log: a traceback for each attempt, where ours has a line a minute."""
    logging.getLogger(library).setLevel(logging.CRITICAL)


def retry_seconds(failures: int, longest_seconds: float, rng: random.Random) -> float:
    """How long to wait after so many failures in a row (1: the first): doubling, half of it by chance."""
    doublings = min(failures - 1, 20)
    wait = min(FIRST_RETRY_SECONDS * 2.0**doublings, longest_seconds)
    return wait * rng.uniform(0.5, 1.0)
