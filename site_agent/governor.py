"""Keeps the site's draw under its cap: (cap, draw, instances, now) → commands. Pure (DESIGN §7).

Rules, in order:

1. What runs must fit by its *worst case* (`SiteModel`), with a guard, under the cap that `CapOutlook` gives:
   a fall acts at once, a ramp is run ahead of, a rise counts only when it has lasted.
2. From the moment the draw is above the cap until that episode is over, clocks are at their lowest: it costs
   a third of the speed for seconds, and makes room for the next fall.
3. Too many instances: the emptiest stop admitting and drain. Within the cap they may take
   `calm_drain_seconds`; above it `drain_seconds`, less where the ride-through leaves less. Then their streams
   are broken off (routers resume them) and the engines stopped.
4. Up: one step at a time, never during an episode, engine starts bounded per hour.
5. A model that says "fits" while the meter says "over" is wrong: the measured ratio corrects it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.instance import InstanceState
from fleet.power import RideThrough, RideThroughAccount
from site_agent.cap_outlook import CapOutlook
from site_agent.site_model import Configuration, SiteModel
from site_agent.situation import (
    Admit,
    BreakStreams,
    Command,
    Decision,
    Drain,
    GovernorRule,
    InstanceView,
    SetClock,
    SiteView,
    StartEngine,
    StopEngine,
)

MAX_CORRECTION_RATIO = 3.0
"""Beyond this the meter or the model is broken; the site is then dark at any cap that matters."""
CORRECTION_TOLERANCE_RATIO = 0.02
"""Measured this much above the model's worst case is noise."""
CORRECTION_DECAY_SECONDS = 60.0
DRAW_FILTER_SECONDS = 0.5
LEAD_SECONDS = 1.0
"""A ramp is run ahead of by a whole drain and this."""


@dataclass(slots=True, kw_only=True)
class Governor:
    """One per site. `decide` is its only door."""

    model: SiteModel
    rule: GovernorRule
    ride_through: RideThrough
    account: RideThroughAccount = field(init=False)
    correction_ratio: float = 1.0
    clock_mhz: int = field(init=False)
    """The clock last commanded."""
    _outlook: CapOutlook = field(init=False)
    _draining_since: dict[str, float] = field(default_factory=dict)
    _starts: deque[float] = field(default_factory=deque)
    _filtered_watts: float | None = None
    _decided_at: float | None = None
    _changed_at: float = float("-inf")
    _stepped_up_at: float = float("-inf")
    _is_cold: bool = True
    """Nothing was ever taken down: what fits is started all at once, without a hold (but within a ramp)."""

    def __post_init__(self) -> None:
        self.account = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self._outlook = CapOutlook(
            hold_seconds=self.rule.rise_hold_seconds,
            horizon_seconds=self.rule.drain_seconds + LEAD_SECONDS,
        )
        self.clock_mhz = self.model.full_clock_mhz
        self._is_cold = self.rule.max_ramp_watts_per_second is None

    def decide(self, view: SiteView, now: float) -> Decision:
        """Take the situation at `now` (monotonic) and return what to do."""
        self.account.observe(draw_watts=view.draw_watts, cap_watts=view.cap_watts, now=now)
        awake = [one for one in view.instances if one.is_awake]
        stopping = sum(one.is_stopping for one in view.instances)
        self._forget_gone(awake, now)
        self._learn(view.draw_watts, len(awake) + stopping, now)
        expected, budget = self._outlook_watts(view.cap_watts, now)
        is_over = self._is_over(view, expected)

        commands: list[Command] = []
        staying = self._staying(awake)
        target = self._target(len(staying), budget)
        self._drop(staying, len(staying) - target.awake, is_over, commands, now)
        self._finish_drains(awake, view, is_over, commands, now)
        gone = {command.instance_id for command in commands if isinstance(command, StopEngine)}
        staying = [one for one in self._staying(awake) if one.instance_id not in gone]
        drawing = len(awake) + stopping
        if self._may_rise:
            drawing += self._rise(view.instances, len(staying), target.awake, drawing, budget, commands, now)
        self._set_clock(drawing, budget, commands, now)
        if target.awake and len(staying) >= target.awake and _all_ready(staying):
            self._is_cold = False
        if commands:
            self._changed_at = now
        return Decision(
            commands=tuple(commands),
            target=target,
            budget_watts=budget,
            is_over=is_over,
            drain_deadline_at=self._drain_deadline_at(view, is_over, now),
        )

    # What fits

    def _outlook_watts(self, cap_watts: float, now: float) -> tuple[float, float]:
        """(the cap to expect shortly, what the worst case may be)."""
        if not self.rule.enabled:
            return math.inf, math.inf
        if self._is_cold:
            self._outlook.forget()
        expected, held = self._outlook.observe(cap_watts, now)
        return expected, held * (1 - self.rule.guard_ratio) / self.correction_ratio

    def _is_over(self, view: SiteView, expected: float) -> bool:
        """Whether the ladder must hurry. In an episode, or ahead of a ramp, the guard counts as well."""
        if not self.rule.enabled:
            return False
        limit = min(view.cap_watts, expected)
        if self.account.is_in_episode:
            limit *= 1 - self.rule.guard_ratio
        return view.draw_watts > limit

    def _target(self, staying: int, budget: float) -> Configuration:
        """What to aim at: while what stays fits, more only for a real gain; else the best with fewer."""
        clock = self.model.clock_that_fits(staying, budget) if staying else self.model.lowest_clock_mhz
        if clock is None:
            return self.model.best(budget, most_awake=staying)
        best = self.model.best(budget)
        if best.awake > staying:
            rate = self.model.output_tokens_per_second(staying, clock)
            best_rate = self.model.output_tokens_per_second(best.awake, best.clock_mhz)
            if best_rate > rate * (1 + self.rule.rise_gain_ratio):
                return best
        return Configuration(awake=staying, clock_mhz=clock)

    def _learn(self, draw_watts: float, drawing: int, now: float) -> None:
        """Compare the meter with the model's worst case, once things have settled."""
        elapsed = 0.0 if self._decided_at is None else max(0.0, now - self._decided_at)
        self._decided_at = now
        decayed = 1 + (self.correction_ratio - 1) * math.exp(-elapsed / CORRECTION_DECAY_SECONDS)
        if self._filtered_watts is None or now - self._changed_at < self.rule.settle_seconds:
            self._filtered_watts = draw_watts
            return
        weight = 1 - math.exp(-elapsed / DRAW_FILTER_SECONDS)
        self._filtered_watts += weight * (draw_watts - self._filtered_watts)
        ratio = self._filtered_watts / self.model.worst_watts(drawing, self.clock_mhz)
        learnt = ratio if ratio > 1 + CORRECTION_TOLERANCE_RATIO else 1.0
        self.correction_ratio = min(MAX_CORRECTION_RATIO, max(decayed, learnt))

    # Down

    def _staying(self, awake: Sequence[InstanceView]) -> list[InstanceView]:
        return [one for one in awake if one.instance_id not in self._draining_since]

    def _drop(
        self, staying: list[InstanceView], count: int, is_over: bool, commands: list[Command], now: float
    ) -> None:
        if count <= 0:
            return
        self._is_cold = False
        grace = self.rule.drain_seconds if is_over else self.rule.calm_drain_seconds
        for one in sorted(staying, key=_emptiest_first)[:count]:
            if one.state is InstanceState.STARTING:
                commands.append(StopEngine(instance_id=one.instance_id))
            else:
                self._draining_since[one.instance_id] = now
                commands.append(Drain(instance_id=one.instance_id, deadline_at=now + grace))

    def _finish_drains(
        self,
        awake: list[InstanceView],
        view: SiteView,
        is_over: bool,
        commands: list[Command],
        now: float,
    ) -> None:
        for one in awake:
            since = self._draining_since.get(one.instance_id)
            if since is None:
                continue
            if one.running_requests > 0:
                if now < self._break_at(since, view, is_over, now):
                    continue
                commands.append(BreakStreams(instance_id=one.instance_id))
            del self._draining_since[one.instance_id]
            commands.append(StopEngine(instance_id=one.instance_id))

    def _break_at(self, since: float, view: SiteView, is_over: bool, now: float) -> float:
        """When a drain ends by force. Above the cap the ride-through binds, as seen from the feed."""
        if not is_over:
            return since + self.rule.calm_drain_seconds
        left = self.account.seconds_left(now, max(0.0, view.draw_watts - view.cap_watts))
        latest = now + left - self.rule.reaction_seconds - self.rule.stop_seconds
        return min(since + self.rule.drain_seconds, latest)

    def _drain_deadline_at(self, view: SiteView, is_over: bool, now: float) -> float | None:
        if not self._draining_since:
            return None
        return max(self._break_at(since, view, is_over, now) for since in self._draining_since.values())

    def _forget_gone(self, awake: list[InstanceView], now: float) -> None:
        present = {one.instance_id for one in awake}
        for instance_id in [one for one in self._draining_since if one not in present]:
            del self._draining_since[instance_id]
        while self._starts and self._starts[0] <= now - 3600:
            self._starts.popleft()

    # Up

    @property
    def _may_rise(self) -> bool:
        return not self.rule.enabled or not self.account.is_in_episode

    def _rise(
        self,
        instances: Sequence[InstanceView],
        staying: int,
        wanted: int,
        drawing: int,
        budget: float,
        commands: list[Command],
        now: float,
    ) -> int:
        """Take drains back, then start engines: one a step; all that fit when cold. Returns the starts."""
        before = drawing
        is_one_starting = any(one.state is InstanceState.STARTING for one in instances)
        gone = {command.instance_id for command in commands if isinstance(command, StopEngine)}
        for one in sorted(instances, key=lambda one: (one.state is InstanceState.STOPPED, one.index)):
            if staying >= wanted:
                break
            is_draining = one.instance_id in self._draining_since and one.instance_id not in gone
            is_startable = one.state is InstanceState.STOPPED and one.can_start and not one.is_stopping
            if not is_draining and not is_startable:
                continue
            after = drawing + is_startable
            if not self._may_step_up(drawing, after, self.model.clock_that_fits(after, budget), now):
                break
            if is_draining:
                del self._draining_since[one.instance_id]
                commands.append(Admit(instance_id=one.instance_id))
            elif len(self._starts) >= self.rule.max_starts_per_hour or (
                is_one_starting and not self._is_cold
            ):
                break
            else:
                self._starts.append(now)
                commands.append(StartEngine(instance_id=one.instance_id))
            staying, drawing = staying + 1, after
            if not self._is_cold:
                self._stepped_up_at = now
        return drawing - before

    def _may_step_up(self, drawing: int, after: int, clock_mhz: int | None, now: float) -> bool:
        """One step a time, and no faster than the ramp limit allows."""
        if clock_mhz is None:
            return False
        if self._is_cold:
            return True
        wait = self.rule.rise_step_seconds
        if self.rule.max_ramp_watts_per_second is not None:
            before_watts = self.model.worst_watts(min(drawing, self.model.instances), self.clock_mhz)
            rise = self.model.worst_watts(min(after, self.model.instances), clock_mhz) - before_watts
            wait = max(wait, rise / self.rule.max_ramp_watts_per_second)
        return now - self._stepped_up_at >= wait

    def _set_clock(self, drawing: int, budget: float, commands: list[Command], now: float) -> None:
        """The highest clock at which all that draws fits; the lowest in an episode. Comes first."""
        if drawing == 0:
            return
        wanted = self.model.clock_that_fits(drawing, budget)
        if wanted is None or (self.rule.enabled and self.account.is_in_episode):
            wanted = self.model.lowest_clock_mhz
        if wanted == self.clock_mhz:
            return
        if wanted > self.clock_mhz:
            if not self._may_step_up(drawing, drawing, wanted, now):
                return
            self._stepped_up_at = now
        else:
            self._is_cold = False
        self.clock_mhz = wanted
        commands.insert(0, SetClock(clock_mhz=wanted))


def _all_ready(instances: Sequence[InstanceView]) -> bool:
    return all(one.state is InstanceState.READY for one in instances)


def _emptiest_first(one: InstanceView) -> tuple[bool, int, int]:
    """Those that have not even started come first; at equal load the last of the site."""
    return (one.state is not InstanceState.STARTING, one.running_requests, -one.index)
