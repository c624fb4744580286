"""Instances on their way out: how long their requests may finish, and when that ends by force. Pure.

Within the cap a drain may take `calm_drain_seconds`. In an episode it may take `drain_seconds`, less where
the ride-through, by its seconds and its joules, leaves less time to stop the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._since

    def __bool__(self) -> bool:
        return bool(self._since)

    def begin(self, turn: Turn, instances: Sequence[InstanceView]) -> None:
        """Drain these; one that has not even started is stopped at once."""
        grace = self.rule.drain_seconds if turn.is_hurried else self.rule.calm_drain_seconds
        for one in instances:
            if one.state is InstanceState.STARTING:
                turn.stop(one.instance_id)
            else:
                self._since[one.instance_id] = turn.now
                turn.commands.append(Drain(instance_id=one.instance_id, deadline_at=turn.now + grace))

    def take_back(self, turn: Turn, instance_id: str) -> None:
        """Power came back before the stop."""
        del self._since[instance_id]
        turn.commands.append(Admit(instance_id=instance_id))

    def finish(self, turn: Turn) -> None:
        """Stop those that are empty, and, when their time is over, those that are not."""
        for one in turn.awake:
            since = self._since.get(one.instance_id)
            if since is None:
                continue
            if one.running_requests > 0:
                if turn.now < self._break_at(since, turn):
                    continue
                turn.commands.append(BreakStreams(instance_id=one.instance_id))
            del self._since[one.instance_id]
            turn.stop(one.instance_id)

    def deadline_at(self, turn: Turn) -> float | None:
        """When the last one goes at the latest; None: nothing drains."""
        return max((self._break_at(since, turn) for since in self._since.values()), default=None)

    def forget_gone(self, turn: Turn) -> None:
        """Those that ended by themselves."""
        if self._since:
            present = {one.instance_id for one in turn.awake}
            self._since = {one: since for one, since in self._since.items() if one in present}

    def _break_at(self, since: float, turn: Turn) -> float:
        """When a drain ends by force. In an episode the ride-through binds, as seen from the feed."""
        if not turn.is_hurried:
            return since + self.rule.calm_drain_seconds
        excess = max(0.0, turn.view.draw_watts - turn.view.cap_watts)
        left = self.account.seconds_left(turn.now, excess)
        latest = turn.now + left - self.rule.reaction_seconds - self.rule.stop_seconds
        return min(since + self.rule.drain_seconds, latest)
