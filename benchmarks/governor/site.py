"""A small simulated site under a site control: saturating load, GPU lag, meter noise, a feed once a second.

It is judged from outside: by the wind itself, not by what the control heard of it, and by the true draw where
`is_judged_by_meter` is False. The property tests and the benchmark drive this same site.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fleet.instance import InstanceState
from fleet.power import RideThrough, RideThroughAccount
from site_agent.controls import SiteControl, make_control
from site_agent.layouts import instance_specs
from site_agent.site_draw import Draw, SiteDraw
from site_agent.site_model import SiteModel
from site_agent.situation import (
    Admit,
    BreakStreams,
    CapForecast,
    Command,
    Drain,
    GovernorRule,
    InstanceView,
    SetClock,
    SiteView,
    StartEngine,
    StopEngine,
    Target,
)

TICK_SECONDS = 0.1
START_SECONDS = 2.0
STOP_SECONDS = 0.2
LAG_SECONDS = 0.3
FEED_SECONDS = 1.0
STARTING: Final = InstanceState.STARTING
READY: Final = InstanceState.READY
DRAINING: Final = InstanceState.DRAINING
STOPPED: Final = InstanceState.STOPPED
"""Compiled code looks a member of an enumeration up each time, and these not."""


@dataclass(slots=True)
class SimulatedInstance:
    """One engine: always as busy as it may be."""

    instance_id: str
    index: int
    degree: int
    gpu_indices: tuple[int, ...]
    state: InstanceState = STOPPED
    running: int = 0
    is_stopping: bool = False
    changes_at: float | None = None

    def view(self, can_start: bool) -> InstanceView:
        """As a control sees it."""
        return InstanceView(
            instance_id=self.instance_id,
            index=self.index,
            state=self.state,
            running_requests=self.running,
            is_stopping=self.is_stopping,
            can_start=can_start,
            tensor_parallel_degree=self.degree,
            gpu_indices=self.gpu_indices,
        )

    def is_seen_as(self, view: InstanceView, can_start: bool) -> bool:
        """Whether `view` would be the same now."""
        return (
            view.running_requests == self.running
            and view.state is self.state
            and view.is_stopping is self.is_stopping
            and view.can_start is can_start
        )


@dataclass(slots=True)
class SimulatedSite:
    """Runs a control against a cap that is a function of time."""

    model: SiteModel
    rule: GovernorRule
    ride_through: RideThrough
    cap_watts: Callable[[float], float]
    rng: random.Random
    control_name: str = "governed"
    noise_ratio: float = 0.01
    meter_ratio: float = 1.0
    """What the GPUs really draw ÷ what the model says: a wrong profile."""
    load_ratio: float = 1.0
    finish_per_second: float = 0.05
    """Share of a draining instance's requests that end by themselves each second."""
    start_seconds: float = START_SECONDS
    stop_seconds: float = STOP_SECONDS
    meter_delay_seconds: float = 0.0
    """What the meter says is so old; to the length of a step."""
    meter_ends_at: float = math.inf
    """From then on nothing measures: the draw is modelled, as the agent does it."""
    clock_lag_seconds: float = 0.0
    """A clock that was ordered holds so much later; the same."""
    is_judged_by_meter: bool = True
    targets: Callable[[float], tuple[Target, ...] | None] = lambda _now: None
    forecast: Callable[[float], tuple[CapForecast, ...]] = lambda _now: ()
    now: float = 0.0
    is_server_off: bool = False
    """Set from outside: nothing is drawn."""
    joules: float = 0.0
    gpu_watts: float = field(init=False)
    clock_mhz: int = field(init=False)
    """That the GPUs run at."""
    control: SiteControl = field(init=False)
    judge: RideThroughAccount = field(init=False)
    instances: list[SimulatedInstance] = field(init=False)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    decisions: int = 0
    broken: int = 0
    admit_watts: float = math.inf
    """What the last decision lets the draw come to."""
    _metered: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, GPU watts), the oldest first."""
    _clocks: deque[tuple[float, int]] = field(default_factory=deque)
    """(from when, MHz) of those that were ordered and do not hold yet."""
    _by_id: dict[str, SimulatedInstance] = field(init=False)
    _heard_at: float = -1.0
    _heard_cap_watts: float = 0.0
    _seen: tuple[InstanceView, ...] = ()
    _watts: dict[tuple[int, int, int], float] = field(default_factory=dict)
    """(degree, running, MHz) → of an instance, by its profile."""
    _lag: tuple[float, float] = (0.0, 0.0)
    """(seconds of a step, how much of its way the draw then goes)."""

    def __post_init__(self) -> None:
        self.control = make_control(self.control_name, self.model, self.rule, self.ride_through)
        self.judge = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self.instances = [
            SimulatedInstance(
                instance_id=spec.instance_id,
                index=spec.index,
                degree=spec.tensor_parallel_degree,
                gpu_indices=spec.gpu_indices,
            )
            for spec in instance_specs("i", self.model, model_name="m")
        ]
        self._by_id = {one.instance_id: one for one in self.instances}
        self.gpu_watts = self.model.instances * self.model.profile.stopped_watts
        self.clock_mhz = self.control.clock_mhz

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.step()

    def step(self, seconds: float = TICK_SECONDS) -> None:
        """One tick: physics, meter, decision, orders."""
        self.now = round(self.now + seconds, 6)
        self._move(seconds)
        true_watts, metered_watts = self._draw_watts(seconds)
        self.joules += true_watts * seconds
        draw_watts = metered_watts if self.is_judged_by_meter else true_watts
        self.judge.observe(draw_watts=draw_watts, cap_watts=self.cap_watts(self.now), now=self.now)
        heard_at = math.floor(self.now / FEED_SECONDS) * FEED_SECONDS
        if heard_at != self._heard_at:
            self._heard_at, self._heard_cap_watts = heard_at, self.cap_watts(heard_at)
        draw = Draw(metered_watts, "gpu", 0.0, "best") if self.now < self.meter_ends_at else self._unheard()
        view = SiteView(
            cap_watts=self._heard_cap_watts,
            draw_watts=draw.watts,
            heard=draw.heard,
            added_watts=draw.added_watts,
            instances=self._views(),
            targets=self.targets(self.now),
            forecast=self.forecast(self.now),
        )
        self.decisions += 1
        decision = self.control.decide(view, self.now)
        self.admit_watts = decision.admit_watts
        for command in decision.commands:
            self.commands.append((self.now, command))
            self._obey(command)

    def serving(self) -> int:
        """Instances that take requests."""
        return sum(one.state is READY for one in self.instances)

    @property
    def is_dark(self) -> bool:
        """No engine is left."""
        return all(one.state is STOPPED for one in self.instances)

    @property
    def is_moving(self) -> bool:
        """Something starts, drains or stops."""
        return any(one.changes_at is not None or one.state in (DRAINING, STARTING) for one in self.instances)

    def _views(self) -> tuple[InstanceView, ...]:
        """What the control sees of the instances; the same objects for as long as nothing has changed."""
        can_start = not self.is_server_off
        seen = self._seen
        if seen and all(one.is_seen_as(seen[one.index], can_start) for one in self.instances):
            return seen
        self._seen = tuple([one.view(can_start) for one in self.instances])
        return self._seen

    def _move(self, seconds: float) -> None:
        for one in self.instances:
            if one.changes_at is not None and self.now >= one.changes_at:
                one.changes_at = None
                one.state = STOPPED if one.is_stopping else READY
                one.is_stopping = False
            if one.state is READY:
                self._admit(one, round(self.model.concurrency[one.degree] * self.load_ratio))
            elif one.state is DRAINING and one.running:
                one.running -= self.rng.random() < one.running * self.finish_per_second * seconds

    def _admit(self, one: SimulatedInstance, wanted: int) -> None:
        """As many as there are, or as admission still lets in."""
        if math.isinf(self.admit_watts) or wanted <= one.running:
            one.running = wanted
        while one.running < wanted:
            one.running += 1
            if self._modelled_watts() > self.admit_watts:
                one.running -= 1
                return

    def _modelled_watts(self) -> float:
        drawing = [one for one in self.instances if one.state is not STOPPED]
        return self.model.modelled_watts(
            [one.running for one in drawing], self.control.clock_mhz, [one.degree for one in drawing]
        )

    def _unheard(self) -> Draw:
        return SiteDraw(power=self.model.power).take(
            metered_watts=None,
            gpu_watts=None,
            modelled_watts=self._modelled_watts(),
            correction=self.control.correction,
        )

    def _draw_watts(self, seconds: float) -> tuple[float, float]:
        """(the true draw, the meter's)."""
        while self._clocks and self._clocks[0][0] <= self.now:
            self.clock_mhz = self._clocks.popleft()[1]
        clock, model = self.clock_mhz, self.model
        wanted, used = 0.0, 0
        for one in self.instances:
            if one.state is not STOPPED:
                wanted += self._instance_watts(one.degree, one.running, clock) * self.meter_ratio
                used += one.degree
        wanted += (model.gpu_count - used) * model.profile.stopped_watts / model.degree
        if self._lag[0] != seconds:
            self._lag = (seconds, 1 - math.exp(-seconds / LAG_SECONDS))
        self.gpu_watts += (wanted - self.gpu_watts) * self._lag[1]
        metered = self._metered
        metered.append((self.now, self.gpu_watts))
        while len(metered) > 1 and metered[1][0] <= self.now - self.meter_delay_seconds:
            metered.popleft()
        if self.is_server_off:
            return 0.0, 0.0
        noisy = metered[0][1] * (1 + self.rng.gauss(0, self.noise_ratio))
        return model.power.site_watts(self.gpu_watts), model.power.site_watts(noisy)

    def _instance_watts(self, degree: int, running: int, clock_mhz: int) -> float:
        found = self._watts.get((degree, running, clock_mhz))
        if found is None:
            profile = self.model.profiles[degree]
            found = profile.watts(running, clock_mhz)
            if running:  # the harshest load: prompts without pause, where they draw more than answers
                found = max(found, profile.prefill_watts(clock_mhz))
            self._watts[degree, running, clock_mhz] = found
        return found

    def _obey(self, command: Command) -> None:
        if isinstance(command, SetClock):
            self._clocks.append((self.now + self.clock_lag_seconds, command.clock_mhz))
            return
        one = self._by_id[command.instance_id]
        match command:
            case Drain():
                assert one.state is READY
                one.state = DRAINING
            case Admit():
                assert one.state is DRAINING
                one.state = READY
            case BreakStreams():
                self.broken += one.running
                one.running = 0
            case StopEngine():
                assert one.state in (STARTING, DRAINING)
                assert one.running == 0
                one.is_stopping = True
                one.changes_at = self.now + self.stop_seconds
            case StartEngine():
                assert one.state is STOPPED
                for other in self.instances:
                    clashes = set(one.gpu_indices).intersection(other.gpu_indices)
                    assert other is one or not clashes or other.state is STOPPED
                one.state = STARTING
                one.changes_at = self.now + self.start_seconds
