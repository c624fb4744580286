"""One engine instance of a simulated site: its life, its engine and its GPUs' draw.

States and their legal moves are `site_agent.instance`'s, watts and lag `site_agent.emulation.gpu`'s, batching
`simulator.engine`'s; here they are only tied together on the virtual clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

from fleet.instance import InstanceState
from fleet.profile import PerformanceProfile
from gateway.upstream import Origin
from simulator.engine import NEVER, SimulatedEngine
from simulator.events import Events
from simulator.sequence import Sequence
from simulator.settings import METER_NOISE_RATIO, POWER_LAG_SECONDS, STOP_SECONDS
from site_agent.drivers.interface import InstanceSpec
from site_agent.emulation.gpu import FakeGpus, GpuOptions, PowerState
from site_agent.emulation.statistics import Histogram
from site_agent.engine_metrics import EngineMetrics, MetricsWindow
from site_agent.instance import Instance
from site_agent.situation import InstanceView

_ORIGIN = Origin.of("http", "simulated", 1)
GPU_OPTIONS = GpuOptions(lag_seconds=POWER_LAG_SECONDS, noise_ratio=METER_NOISE_RATIO)


class SimulatedInstance:
    """What a site's commands act on."""

    __slots__ = (
        "_due_at",
        "_events",
        "_life",
        "_on_change",
        "_pending",
        "_prefill_ratio",
        "_running",
        "_start_seconds",
        "_view",
        "engine",
        "gpus",
        "instance_id",
        "state",
        "window",
    )

    def __init__(
        self,
        spec: InstanceSpec,
        profile: PerformanceProfile,
        *,
        events: Events,
        max_concurrency: int,
        start_seconds: float,
        rng: random.Random,
        on_first_token: Callable[[Sequence, float], None],
        on_finish: Callable[[Sequence, float], None],
        on_change: Callable[[], None],
    ) -> None:
        self.state = Instance(spec=spec)
        self.instance_id = spec.instance_id
        self.engine = SimulatedEngine(
            profile,
            max_concurrency=max_concurrency,
            on_first_token=on_first_token,
            on_finish=on_finish,
        )
        self.gpus = FakeGpus(profile, spec.gpu_indices, GPU_OPTIONS, rng, events.now)
        self.window = MetricsWindow()
        self._events = events
        self._start_seconds = start_seconds
        self._on_change = on_change
        self._life = 0
        """Counts starts and stops: what was ordered before the last of them comes to nothing."""
        self._due_at = NEVER
        self._pending = 0
        self._running = -1
        self._prefill_ratio = 0.0
        self._view: tuple[tuple[object, ...], InstanceView] | None = None

    @property
    def degree(self) -> int:
        """Its tensor-parallel degree."""
        return self.engine.profile.tensor_parallel_degree

    def highest_clock_mhz(self, now: float) -> int:
        """What its GPUs may run at: a lower clock that was ordered counts once they follow it."""
        return max(self.state.clock_mhz or 0, self.gpus.clock_mhz(now))

    @property
    def stopped_watts(self) -> float:
        """Of its GPUs without an engine."""
        return self.engine.profile.stopped_watts

    def view(self, running_requests: int, now: float) -> InstanceView:
        """What the governor sees of it; the same object while that is the same."""
        state = self.state
        kind = state.state, running_requests, state.is_stopping, state.can_start(now)
        if self._view is None or self._view[0] != kind:
            made = InstanceView(
                instance_id=self.instance_id,
                index=state.index,
                state=state.state,
                running_requests=running_requests,
                is_stopping=state.is_stopping,
                can_start=kind[3],
                tensor_parallel_degree=self.degree,
                gpu_indices=state.spec.gpu_indices,
            )
            self._view = kind, made
        return self._view[1]

    # Orders

    def start(self) -> None:
        """Begin to start it."""
        now = self._events.now
        self.state.move(InstanceState.STARTING, now)
        self._life += 1
        self._show()
        self._events.after(self._start_seconds, self._become_ready, self._life)
        self._on_change()

    def stop(self) -> list[Sequence]:
        """End it; returns what it had, broken off."""
        if self.state.is_stopping or self.state.state is InstanceState.STOPPED:
            return []
        self.state.is_stopping = True
        self._life += 1
        over = self.engine.stop(self._events.now)
        self._show()
        self._events.after(STOP_SECONDS, self._be_gone, self._life)
        self._on_change()
        return over

    def break_off(self) -> list[Sequence]:
        """End what runs on it, not the engine."""
        over = self.engine.stop(self._events.now)
        self._show()
        return over

    def kill(self) -> list[Sequence]:
        """It is gone at once, as by SIGKILL."""
        self._life += 1
        over = self.engine.stop(self._events.now)
        self._put_away()
        return over

    def set_clock(self, clock_mhz: int) -> None:
        """Lock its GPUs' clock; the engine follows when the GPUs do."""
        self.state.clock_mhz = clock_mhz
        effective_at = self.gpus.set_clock(clock_mhz, self._events.now)
        self._events.at(effective_at, self._follow_clock, clock_mhz)

    # Work

    def submit(self, sequence: Sequence) -> bool:
        """A request for it; False if its queue is full."""
        taken = self.engine.submit(sequence, self._events.now)
        self._arm()
        self._show()
        return taken

    def metrics(self, now: float) -> None:
        """What the agent's scrape of `/metrics` brings."""
        engine = self.engine
        self.window.add(
            EngineMetrics(
                running_requests=len(engine.running),
                waiting_requests=len(engine.waiting),
                kv_cache_usage_ratio=engine.kv_usage_ratio,
                prompt_tokens=engine.prompt_tokens,
                output_tokens=engine.output_tokens,
                finished_requests=engine.finished,
                ttft=_cumulative(engine.ttft),
                itl=_cumulative(engine.itl),
            ),
            now,
        )

    def _arm(self) -> None:
        due_at = self.engine.next_at
        if due_at != self._due_at:
            self._due_at = due_at
            self._pending += 1
            if due_at < NEVER:
                self._events.at(due_at, self._advance, self._pending)

    def _advance(self, pending: int) -> None:
        if pending != self._pending:
            return
        self._due_at = NEVER
        self.engine.advance()
        self._arm()
        self._show()

    def _show(self) -> None:
        """Tell the GPUs what runs on them."""
        engine = self.engine
        running, prefill_ratio = len(engine.running), engine.prefill_ratio
        if self.state.state is InstanceState.STOPPED:
            running = -1
        if running != self._running or prefill_ratio != self._prefill_ratio:
            self._running, self._prefill_ratio = running, prefill_ratio
            name: PowerState = "stopped" if running < 0 else "running" if running else "idle"
            self.gpus.set_load(name, max(0, running), self._events.now, prefill_ratio=prefill_ratio)

    # Its life

    def _become_ready(self, life: int) -> None:
        if life != self._life:
            return
        self.state.origin = _ORIGIN
        self.state.move(InstanceState.READY, self._events.now)
        self._on_change()

    def _be_gone(self, life: int) -> None:
        if life == self._life:
            self._put_away()
            self._on_change()

    def _put_away(self) -> None:
        self.state.is_stopping = False
        if self.state.state is not InstanceState.STOPPED:
            self.state.move(InstanceState.STOPPED, self._events.now)
        self.window.clear()
        self._arm()
        self._show()

    def _follow_clock(self, clock_mhz: int) -> None:
        if clock_mhz == self.state.clock_mhz:
            self.engine.set_clock(clock_mhz, self._events.now)
            self._arm()


def _cumulative(histogram: Histogram) -> dict[float, float]:
    return dict(zip((*histogram.bounds, NEVER), accumulate(histogram.counts), strict=True))
