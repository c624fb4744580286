"""Takes instances down that nothing forces down: for a plan, for another layout, to pack and empty. Pure.

Rules: one group of GPUs at a time; never below what serves the load that runs now; a bounded number an hour.
A step that would leave nothing serving (the layout in the way fills every GPU) waits until nothing runs, or
for `reshard_patience_seconds` where that is configured; unless what is wanted is worth the pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.instance import InstanceState
from site_agent.placement import blockers
from site_agent.site_model import SiteModel
from site_agent.situation import GovernorRule, InstanceView

HOUR_SECONDS = 3600.0


@dataclass(slots=True, kw_only=True)
class Reshaping:
    """Remembers how often, and how long it has waited."""

    model: SiteModel
    rule: GovernorRule
    _at: deque[float] = field(default_factory=deque)
    _waiting_since: float | None = None

    def drops(
        self,
        wanted: Sequence[InstanceView],
        staying: Sequence[InstanceView],
        *,
        is_calm: bool,
        now: float,
        is_worth_a_pause: bool = False,
        fits_beside: bool = True,
    ) -> list[InstanceView]:
        """The instances to drain now so that `wanted` can come about; empty while one step is under way.

        `is_calm`: nothing starts, drains or stops. `is_worth_a_pause`: nothing need serve meanwhile.
        `fits_beside`: there is power for what is missing beside what stays.
        """
        kept = {one.instance_id for one in wanted}
        spare = [one for one in staying if one.instance_id not in kept]
        if not spare:
            self._waiting_since = None
            return []
        while self._at and self._at[0] <= now - HOUR_SECONDS:
            self._at.popleft()
        if not is_calm or len(self._at) >= self.rule.max_switches_per_hour:
            return []
        step = self._step(wanted, staying, spare, fits_beside=fits_beside or not is_worth_a_pause)
        rest = [one for one in staying if one not in step]
        if not step or not (is_worth_a_pause or self._carries(rest, staying, now)):
            return []
        self._at.append(now)
        self._waiting_since = None
        return step

    def _step(
        self,
        wanted: Sequence[InstanceView],
        staying: Sequence[InstanceView],
        spare: list[InstanceView],
        *,
        fits_beside: bool,
    ) -> list[InstanceView]:
        """What is in the way of the first wanted instance that cannot start; else the emptiest spare one."""
        present = {one.instance_id for one in staying}
        missing = sorted((one for one in wanted if one.instance_id not in present), key=lambda one: one.index)
        for one in missing:
            if not one.can_start:
                continue
            in_the_way = blockers(one, spare)
            if in_the_way:
                return in_the_way
        is_startable = any(one.can_start for one in missing)
        if is_startable and fits_beside:
            return []  # it starts first
        if not is_startable and not fits_beside:
            return []  # nothing would come in its place
        return [min(spare, key=lambda one: (one.running_requests, -one.index))]

    def _carries(self, rest: Sequence[InstanceView], staying: Sequence[InstanceView], now: float) -> bool:
        """Whether the rest serves what runs now."""
        running = sum(one.running_requests for one in staying)
        ready = [one for one in rest if one.state is InstanceState.READY]
        slots = self.model.slots(self.model.layout_of(one.tensor_parallel_degree for one in ready))
        if running <= slots:
            return True
        if self._waiting_since is None:
            self._waiting_since = now
        patience = self.rule.reshard_patience_seconds
        return patience is not None and now - self._waiting_since >= patience
