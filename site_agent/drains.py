"""Instances on their way out: how long their requests may finish, and when that ends by force. Pure.

Within the cap a drain may take `calm_drain_seconds`. In an episode it may take `drain_seconds`, less where
the ride-through, by its seconds and its joules, leaves less time to stop the engine.

One that a dip of the power has emptied may *rest*: awake without a request, at its idle draw, ready to take
requests again at once (the governor says when).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fleet.instance import InstanceState
from fleet.power import RideThroughAccount
from site_agent.situation import Admit, BreakStreams, Drain, GovernorRule, InstanceView
from site_agent.turn import Turn


@dataclass(slots=True, kw_only=True)
class Drains:
    """Knows since when each one drains."""

    rule: GovernorRule
    account: RideThroughAccount
    _since: dict[str, float] = field(default_factory=dict)
    _wished: set[str] = field(default_factory=set)
    """Of those, the ones that nothing forces: nobody wants them back soon."""
    _resting: dict[str, float] = field(default_factory=dict)
    """Since when."""

    def __contains__(self, instance_id: str) -> bool:
        """Whether it drains or rests."""
        return instance_id in self._since or instance_id in self._resting

    def __bool__(self) -> bool:
        """Whether anything drains."""
        return bool(self._since)

    def rests(self, one: InstanceView) -> bool:
        """Whether it is awake, empty, and takes nothing."""
        is_there = one.is_awake and not one.is_stopping
        return is_there and one.instance_id in self._resting and one.running_requests == 0

    def awaits(self, one: InstanceView) -> bool:
        """Whether it drains or rests for want of power, and is back when that returns."""
        return one.instance_id in self and one.instance_id not in self._wished and not one.is_stopping

    def rested_seconds(self, instance_id: str, now: float) -> float:
        """How long it has rested."""
        return now - self._resting[instance_id]

    def begin(self, turn: Turn, instances: Sequence[InstanceView], *, is_forced: bool = True) -> None:
        """Drain these; one that has not even started is stopped at once."""
        grace = self.rule.drain_seconds if turn.is_hurried else self.rule.calm_drain_seconds
        for one in instances:
            if one.state is InstanceState.STARTING:
                turn.stop(one.instance_id)
            else:
                self._since[one.instance_id] = turn.now
                if not is_forced:
                    self._wished.add(one.instance_id)
                turn.commands.append(Drain(instance_id=one.instance_id, deadline_at=turn.now + grace))

    def take_back(self, turn: Turn, instance_id: str) -> None:
        """Power came back before the stop."""
        self._forget(instance_id)
        turn.commands.append(Admit(instance_id=instance_id))

    def end_rest(self, turn: Turn, instance_id: str) -> None:
        """Stop one that rests."""
        self._forget(instance_id)
        turn.stop(instance_id)

    def finish(self, turn: Turn, may_rest: Callable[[InstanceView], bool]) -> None:
        """Stop those that are empty, or let them rest; when their time is over also those that are not."""
        for one in turn.awake:
            since = self._since.get(one.instance_id)
            if since is None:
                if turn.is_hurried and one.running_requests > 0 and one.instance_id in self._resting:
                    self.end_rest(turn, one.instance_id)  # its streams were broken off, and are not gone yet
                continue
            is_to_rest = one.instance_id not in self._wished and may_rest(one)
            if one.running_requests > 0:
                if turn.now < self._break_at(since, turn):
                    continue
                turn.commands.append(BreakStreams(instance_id=one.instance_id))
            self._forget(one.instance_id)
            if is_to_rest:
                self._resting[one.instance_id] = turn.now
            else:
                turn.stop(one.instance_id)

    def deadline_at(self, turn: Turn) -> float | None:
        """When the last one goes at the latest; None: nothing drains."""
        if not self._since:
            return None
        return max(self._break_at(since, turn) for since in self._since.values())

    def forget_gone(self, turn: Turn) -> None:
        """Those that ended by themselves."""
        if self._since or self._resting:
            present = {one.instance_id for one in turn.awake}
            for instance_id in [*self._since, *self._resting]:
                if instance_id not in present:
                    self._forget(instance_id)

    def _forget(self, instance_id: str) -> None:
        self._since.pop(instance_id, None)
        self._resting.pop(instance_id, None)
        self._wished.discard(instance_id)

    def _break_at(self, since: float, turn: Turn) -> float:
        """When a drain ends by force. In an episode the ride-through binds, as seen from the feed."""
        if not turn.is_hurried:
            return since + self.rule.calm_drain_seconds
        excess = max(0.0, turn.view.draw_watts - turn.view.cap_watts)
        left = self.account.seconds_left(turn.now, excess)
        latest = turn.now + left - self.rule.reaction_seconds - self.rule.stop_seconds
        return min(since + self.rule.drain_seconds, latest)
