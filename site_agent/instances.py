"""The life of the site's engines: start, health, crash, restart, stop; and their GPUs' clocks.

Rule: the governor alone orders starts and stops. The pool carries them out, notices what ends by itself, and
says through `on_change` that something is different. Its tasks belong to the agent's task group: a fault in
the pool itself ends the agent, and the engines with it, rather than leave one ungoverned.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence

from fleet.instance import InstanceState
from gateway.upstream import Origin
from site_agent.drivers.interface import DriverError, Drivers, InstanceSpec
from site_agent.instance import Instance, RestartRule
from site_agent.start_times import StartTimes

logger = logging.getLogger(__name__)

START_POLL_SECONDS = 0.1
WATCH_SECONDS = 0.2
STOP_RETRY_SECONDS = 1.0
CLOCK_RETRY_SECONDS = 0.5
CLOCK_FAULT_SECONDS = 60.0
"""The same fault of a clock is said so often, however often it is tried."""
CLOCK_LATE_SECONDS = 0.5
"""An order that is not confirmed by then counts as not carried out."""


class InstancePool:
    """Carries out orders; `instances` never changes its members."""

    def __init__(
        self,
        *,
        specs: Sequence[InstanceSpec],
        drivers: Drivers,
        restart: RestartRule,
        probe_seconds: float,
        probe_failures: int,
        start_seconds: float,
        start_timeout_seconds: float,
        rng: random.Random,
        tasks: asyncio.TaskGroup,
        on_change: Callable[[], None],
        on_end: Callable[[str], None],
        stall_seconds: float = float("inf"),
        stalled_seconds: Callable[[str], float] = lambda _instance_id: 0.0,
    ) -> None:
        """`on_end(instance_id)`: an engine ended by itself or is given up; its requests are lost there.

        `start_seconds`: what a start is taken to last until one was seen.
        `stalled_seconds(instance_id)`: how long it has had work and made no token; beyond `stall_seconds` it
        hangs.
        """
        self.instances = tuple(Instance(spec=spec) for spec in specs)
        self.faults: Counter[str] = Counter()
        """Failed starts, stops, crashes and clock changes, by the driver's reason."""
        self.start_times = StartTimes(configured_seconds=start_seconds, most_seconds=start_timeout_seconds)
        self._by_id = {one.instance_id: one for one in self.instances}
        self._drivers = drivers
        self._restart = restart
        self._probe_seconds = probe_seconds
        self._probe_failures = probe_failures
        self._start_timeout_seconds = start_timeout_seconds
        self._rng = rng
        self._tasks = tasks
        self._on_change = on_change
        self._on_end = on_end
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._hurries: dict[str, asyncio.Task[None]] = {}
        self._stall_seconds = stall_seconds
        self._stalled_seconds = stalled_seconds
        self._clock_mhz: int | None = None
        self._unconfirmed_since: float | None = None
        self._has_clock_fault = False
        self._clock_wanted = asyncio.Event()
        self._clock_faults: dict[str, tuple[str, float]] = {}
        """(message, when) last said of an instance's clock, until one is set."""
        self._full_clock_mhz: int | None = None

    def __getitem__(self, instance_id: str) -> Instance:
        return self._by_id[instance_id]

    # Orders

    def start(self, instance_id: str) -> None:
        """Begin to start a stopped instance."""
        instance = self._by_id[instance_id]
        instance.move(InstanceState.STARTING, self._now())
        logger.info("starting an engine", extra={"instance": instance_id})
        self._starts[instance_id] = self._tasks.create_task(self._run_start(instance))
        self._on_change()

    def drain(self, instance_id: str) -> None:
        """Admit nothing more to it."""
        self._by_id[instance_id].move(InstanceState.DRAINING, self._now())
        self._on_change()

    def admit(self, instance_id: str) -> None:
        """Take a drain back."""
        self._by_id[instance_id].move(InstanceState.READY, self._now())
        self._on_change()

    def stop(self, instance_id: str, *, kill: bool = True) -> None:
        """Begin to stop it, also while it starts. A repeated order changes nothing, unless it is the first to
        say `kill`: that hurries a stop under way.
        """
        instance = self._by_id[instance_id]
        if instance.is_stopping:
            if kill and not instance.is_killed:
                instance.is_killed = True
                logger.info("hurrying an engine's stop", extra={"instance": instance_id})
                self._hurries[instance_id] = self._tasks.create_task(self._hurry(instance))
            return
        if instance.state is InstanceState.STOPPED:
            return
        instance.is_stopping, instance.is_killed = True, kill
        logger.info("stopping an engine", extra={"instance": instance_id, "kill": kill})
        self._stops[instance_id] = self._tasks.create_task(self._run_stop(instance))
        self._on_change()

    def set_clock(self, clock_mhz: int, *, full_clock_mhz: int) -> None:
        """Have every instance's GPUs locked at this clock; at full clock unlocked. Done in the background."""
        self._clock_mhz, self._full_clock_mhz = clock_mhz, full_clock_mhz
        if self._unconfirmed_since is None:
            self._unconfirmed_since = self._now()
        self._clock_wanted.set()

    def is_clock_doubtful(self, now: float) -> bool:
        """Whether GPUs may still run at another clock than the one ordered: an order failed, or is late."""
        since = self._unconfirmed_since
        return since is not None and (self._has_clock_fault or now - since >= CLOCK_LATE_SECONDS)

    async def stopped(self) -> None:
        """Return when no start or stop is under way."""
        while tasks := [task for task in (*self._starts.values(), *self._stops.values()) if not task.done()]:
            await asyncio.wait(tasks)

    # Carrying out

    async def _run_start(self, instance: Instance) -> None:
        began_at = self._now()
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                instance.origin = Origin.parse(await self._drivers.engines.start(instance.spec))
                while not await self._drivers.engines.is_ready(instance.instance_id):
                    if reason := self._drivers.engines.exit_reason(instance.instance_id):
                        raise DriverError("exited", reason)  # noqa: TRY301 - one place handles every failure
                    await asyncio.sleep(START_POLL_SECONDS)
        except TimeoutError:
            self._give_up(instance, "timeout", f"not ready within {self._start_timeout_seconds:g} s")
        except DriverError as error:
            self._give_up(instance, error.reason, str(error))
        else:
            instance.move(InstanceState.READY, self._now())
            seconds = self._now() - began_at
            self.start_times.observe(seconds)
            logger.info(
                "an engine is ready",
                extra={"instance": instance.instance_id, "seconds": round(seconds, 3)},
            )
            self._on_change()

    async def _run_stop(self, instance: Instance) -> None:
        start = self._starts.get(instance.instance_id)
        if start is not None and start is not asyncio.current_task():
            start.cancel()
            await asyncio.wait([start])
        while True:
            try:
                await self._drivers.engines.stop(instance.instance_id, kill=instance.is_killed)
            except DriverError as error:
                self._say_not_stopped(instance, error)
                await asyncio.sleep(STOP_RETRY_SECONDS)
                instance.is_killed = True
            else:
                break
        if (hurry := self._hurries.pop(instance.instance_id, None)) is not None:
            await asyncio.wait([hurry])  # what it still does must not meet the next engine
        if instance.state is InstanceState.READY:
            instance.move(InstanceState.DRAINING, self._now())
        instance.move(InstanceState.STOPPED, self._now())
        instance.is_stopping = instance.is_killed = False
        self._on_change()

    async def _hurry(self, instance: Instance) -> None:
        """Beside a stop that takes its grace, and then ends sooner; where this fails that one goes on."""
        try:
            await self._drivers.engines.stop(instance.instance_id, kill=True)
        except DriverError as error:
            self._say_not_stopped(instance, error)

    def _say_not_stopped(self, instance: Instance, error: DriverError) -> None:
        self.faults[error.reason] += 1
        logger.error("an engine could not be stopped: %s", error, extra={"instance": instance.instance_id})

    def _give_up(self, instance: Instance, reason: str, message: str) -> None:
        """An engine ended by itself, hangs, or did not start: what is left of it is killed."""
        self.faults[reason] += 1
        wait = instance.fail(message, self._restart, self._rng, self._now())
        logger.error(
            "an engine failed",
            extra={
                "instance": instance.instance_id,
                "reason": reason,
                "fault": message,
                "retry_seconds": round(wait, 1),
            },
        )
        self._on_end(instance.instance_id)
        self.stop(instance.instance_id, kill=True)

    # What happens by itself

    async def watch(self) -> None:
        """Notice crashes and hangs; runs as long as the agent does."""
        async with asyncio.TaskGroup() as probes:
            for instance in self.instances:
                probes.create_task(self._probe(instance))
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                for instance in self.instances:
                    if instance.is_serving:
                        self._look_at(instance)

    async def _probe(self, instance: Instance) -> None:
        """Each by itself: one that answers late, or never, holds up no look at the others."""
        while True:
            await asyncio.sleep(self._probe_seconds)
            if not instance.is_serving:
                continue
            asked = instance.ready_at
            is_healthy = await self._drivers.engines.is_ready(instance.instance_id)
            if instance.is_serving and instance.ready_at == asked:  # else stopped, or another by now
                was_failing = instance.failed_probes > 0
                instance.failed_probes = 0 if is_healthy else instance.failed_probes + 1
                if was_failing == is_healthy:
                    self._on_change()
                self._look_at(instance)

    def _look_at(self, instance: Instance) -> None:
        if reason := self._drivers.engines.exit_reason(instance.instance_id):
            self._give_up(instance, "exited", reason)
        elif (stalled := self._stalled_seconds(instance.instance_id)) > self._stall_seconds:
            fault = f"hangs: no token for {stalled:.0f} s with requests running"
            self._give_up(instance, "timeout", fault)
        elif instance.failed_probes >= self._probe_failures:
            self._give_up(instance, "timeout", f"{self._probe_failures} health probes in a row failed")

    async def follow_clocks(self) -> None:
        """Bring every instance's clock to the one last ordered; runs as long as the agent does."""
        while True:
            await self._clock_wanted.wait()
            self._clock_wanted.clear()
            clock, full = self._clock_mhz, self._full_clock_mhz
            if clock is None:
                continue
            results = await asyncio.gather(*(self._set_clock(one, clock, full) for one in self.instances))
            self._has_clock_fault = not all(results)
            if self._has_clock_fault:
                await asyncio.sleep(CLOCK_RETRY_SECONDS)
                self._clock_wanted.set()
            elif not self._clock_wanted.is_set():
                self._unconfirmed_since = None

    async def _set_clock(self, instance: Instance, clock_mhz: int, full_clock_mhz: int | None) -> bool:
        if instance.clock_mhz == clock_mhz:
            return True
        highest, instance.clock_mhz = instance.highest_clock_mhz, None
        if highest is not None:
            instance.highest_clock_mhz = max(highest, clock_mhz)
        try:
            await self._drivers.gpus.set_clock(
                instance.instance_id, None if clock_mhz == full_clock_mhz else clock_mhz
            )
        except DriverError as error:
            self.faults[error.reason] += 1
            self._say_clock_fault(instance.instance_id, str(error))
            return False
        self._clock_faults.pop(instance.instance_id, None)
        instance.clock_mhz = instance.highest_clock_mhz = clock_mhz
        return True

    def _say_clock_fault(self, instance_id: str, message: str) -> None:
        said, at = self._clock_faults.get(instance_id, ("", float("-inf")))
        if message == said and self._now() - at < CLOCK_FAULT_SECONDS:
            return
        self._clock_faults[instance_id] = message, self._now()
        logger.error("a clock could not be set: %s", message, extra={"instance": instance_id})

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
