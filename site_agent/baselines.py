"""Site controls that Heron is compared with, in good faith (docs/decisions/0009). Pure.

Rule: they differ from `governed` in what they aim at and in what they may use, not in care. Each follows a
fall at once and a rise when it has lasted, with the same headroom; those that stop engines use the same
ladder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.instance import InstanceState
from fleet.power import RideThrough, RideThroughAccount
from site_agent.cap_outlook import CapOutlook
from site_agent.correction import Correction
from site_agent.placement import place
from site_agent.site_model import Configuration, SiteModel
from site_agent.situation import Command, Decision, GovernorRule, SetClock, SiteView, StartEngine


@dataclass(slots=True, kw_only=True)
class PowerCapOnly:
    """`power_cap_only`: every instance stays awake; their clock is the highest at which they fit.

    Where even the lowest does not fit the cap is exceeded, and counted: this control has nothing else.
    """

    model: SiteModel
    rule: GovernorRule
    ride_through: RideThrough
    account: RideThroughAccount = field(init=False)
    clock_mhz: int = field(init=False)
    _outlook: CapOutlook = field(init=False)
    correction: Correction = field(init=False)
    _changed_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.account = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self.clock_mhz = self.model.full_clock_mhz
        self._outlook = CapOutlook(hold_seconds=self.rule.rise_hold_seconds, horizon_seconds=1.0)
        self.correction = Correction(settle_seconds=self.rule.settle_seconds)

    @property
    def correction_ratio(self) -> float:
        """See Governor."""
        return self.correction.ratio

    def decide(self, view: SiteView, now: float) -> Decision:
        """See Governor."""
        self.account.observe(draw_watts=view.draw_watts, cap_watts=view.cap_watts, now=now)
        awake = [one for one in view.instances if one.is_awake]
        layout = self.model.layout_of(one.tensor_parallel_degree for one in awake)
        self.correction.observe(view.draw_watts - view.added_watts, now)
        self.correction.learn(
            worst_watts=self.model.worst_watts(layout, self.clock_mhz) * view.excess_ratio,
            changed_at=self._changed_at,
            now=now,
            heard=view.heard,
        )
        expected, held = self._outlook.observe(view.cap_watts, now)
        headroom = self._outlook.headroom_watts(held, self.rule.guard_ratio, self.rule.turbulence_factor)
        budget = (held - headroom) / max(self.correction.ratio, view.excess_ratio)
        whole = self.model.uniform(self.model.instances)
        clock = self.model.clock_that_fits(whole, budget) or self.model.lowest_clock_mhz
        commands: list[Command] = []
        if clock != self.clock_mhz:
            self.clock_mhz = clock
            commands.append(SetClock(clock_mhz=clock))
        staying = frozenset(one.instance_id for one in awake)
        commands += [
            StartEngine(instance_id=one.instance_id)
            for one in place(whole, view.instances, staying, own_degree=self.model.degree)
            if one.state is InstanceState.STOPPED and one.can_start and not one.is_stopping
        ]
        if commands:
            self._changed_at = now
        return Decision(
            commands=tuple(commands),
            target=Configuration(layout=whole, clock_mhz=clock),
            budget_watts=budget,
            is_over=view.draw_watts > min(view.cap_watts, expected),
            is_short_of_power=False,
            drain_deadline_at=None,
        )
