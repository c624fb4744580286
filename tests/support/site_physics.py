"""A small simulated site under a governor: saturating load, GPU lag, meter noise, a feed once a second.

Judged from outside by the wind itself, not by what the governor heard of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.instance import InstanceState
from fleet.power import RideThrough, RideThroughAccount
from site_agent.governor import Governor
from site_agent.site_model import SiteModel
from site_agent.situation import (
    Admit,
    BreakStreams,
    Command,
    Drain,
    GovernorRule,
    InstanceView,
    SetClock,
    SiteView,
    StartEngine,
    StopEngine,
)

TICK_SECONDS = 0.1
START_SECONDS = 2.0
STOP_SECONDS = 0.2
LAG_SECONDS = 0.3
FEED_SECONDS = 1.0


@dataclass(slots=True)
class SimulatedInstance:
    """One engine: always as busy as it may be."""

    index: int
    state: InstanceState = InstanceState.STOPPED
    running: int = 0
    is_stopping: bool = False
    changes_at: float | None = None


@dataclass(slots=True)
class SimulatedSite:
    """Runs a governor against a cap that is a function of time."""

    model: SiteModel
    rule: GovernorRule
    ride_through: RideThrough
    cap_watts: Callable[[float], float]
    rng: random.Random
    noise_ratio: float = 0.01
    meter_ratio: float = 1.0
    """What the GPUs really draw ÷ what the model says: a wrong profile."""
    load_ratio: float = 1.0
    finish_per_second: float = 0.05
    """Share of a draining instance's requests that end by themselves each second."""
    now: float = 0.0
    gpu_watts: float = field(init=False)
    governor: Governor = field(init=False)
    judge: RideThroughAccount = field(init=False)
    instances: list[SimulatedInstance] = field(init=False)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    broken: int = 0

    def __post_init__(self) -> None:
        self.governor = Governor(model=self.model, rule=self.rule, ride_through=self.ride_through)
        self.judge = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self.instances = [SimulatedInstance(index=index) for index in range(self.model.instances)]
        self.gpu_watts = self.model.instances * self.model.profile.stopped_watts

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.step()

    def step(self) -> None:
        """One tick: physics, meter, decision, orders."""
        self.now = round(self.now + TICK_SECONDS, 6)
        self._move()
        draw = self._draw_watts()
        self.judge.observe(draw_watts=draw, cap_watts=self.cap_watts(self.now), now=self.now)
        heard_at = math.floor(self.now / FEED_SECONDS) * FEED_SECONDS
        view = SiteView(
            cap_watts=self.cap_watts(heard_at),
            draw_watts=draw,
            instances=tuple(
                InstanceView(
                    instance_id=f"i{one.index}",
                    index=one.index,
                    state=one.state,
                    running_requests=one.running,
                    is_stopping=one.is_stopping,
                )
                for one in self.instances
            ),
        )
        for command in self.governor.decide(view, self.now).commands:
            self.commands.append((self.now, command))
            self._obey(command)

    def serving(self) -> int:
        """Instances that take requests."""
        return sum(one.state is InstanceState.READY for one in self.instances)

    def _move(self) -> None:
        for one in self.instances:
            if one.changes_at is not None and self.now >= one.changes_at:
                one.changes_at = None
                one.state = InstanceState.STOPPED if one.is_stopping else InstanceState.READY
                one.is_stopping = False
            if one.state is InstanceState.READY:
                one.running = round(self.model.max_concurrency * self.load_ratio)
            elif one.state is InstanceState.DRAINING and one.running:
                one.running -= self.rng.random() < one.running * self.finish_per_second * TICK_SECONDS

    def _draw_watts(self) -> float:
        profile, clock = self.model.profile, self.governor.clock_mhz
        wanted = sum(
            profile.stopped_watts
            if one.state is InstanceState.STOPPED
            else profile.watts(one.running, clock) * self.meter_ratio
            for one in self.instances
        )
        self.gpu_watts += (wanted - self.gpu_watts) * (1 - math.exp(-TICK_SECONDS / LAG_SECONDS))
        noisy = self.gpu_watts * (1 + self.rng.gauss(0, self.noise_ratio))
        return self.model.power.site_watts(noisy)

    def _obey(self, command: Command) -> None:
        if isinstance(command, SetClock):
            return
        one = self.instances[int(command.instance_id[1:])]
        match command:
            case Drain():
                assert one.state is InstanceState.READY
                one.state = InstanceState.DRAINING
            case Admit():
                assert one.state is InstanceState.DRAINING
                one.state = InstanceState.READY
            case BreakStreams():
                self.broken += one.running
                one.running = 0
            case StopEngine():
                assert one.state in (InstanceState.STARTING, InstanceState.DRAINING)
                assert one.running == 0
                one.is_stopping = True
                one.changes_at = self.now + STOP_SECONDS
            case StartEngine():
                assert one.state is InstanceState.STOPPED
                one.state = InstanceState.STARTING
                one.changes_at = self.now + START_SECONDS
