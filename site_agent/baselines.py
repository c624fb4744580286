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
from site_agent.outlook import Outlook
from site_agent.placement import place
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import Command, Decision, GovernorRule, SetClock, SiteView, StartEngine

SLO_FACTOR = 5.0
"""DynamoLLM's SLO: five times what one request alone takes (FACTS.md)."""


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
    _correction: Correction = field(init=False)
    _changed_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.account = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self.clock_mhz = self.model.full_clock_mhz
        self._outlook = CapOutlook(hold_seconds=self.rule.rise_hold_seconds, horizon_seconds=1.0)
        self._correction = Correction(settle_seconds=self.rule.settle_seconds)

    @property
    def correction_ratio(self) -> float:
        """See Governor."""
        return self._correction.ratio

    def decide(self, view: SiteView, now: float) -> Decision:
        """See Governor."""
        self.account.observe(draw_watts=view.draw_watts, cap_watts=view.cap_watts, now=now)
        awake = [one for one in view.instances if one.is_awake]
        layout = self.model.layout_of(one.tensor_parallel_degree for one in awake)
        self._correction.learn(
            draw_watts=view.draw_watts,
            worst_watts=self.model.worst_watts(layout, self.clock_mhz),
            changed_at=self._changed_at,
            now=now,
        )
        expected, held = self._outlook.observe(view.cap_watts, now)
        headroom = self._outlook.headroom_watts(held, self.rule.guard_ratio, self.rule.turbulence_factor)
        budget = (held - headroom) / self._correction.ratio
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


@dataclass(slots=True, kw_only=True)
class LeastEnergy:
    """`dynamo_like`: the least watts that carry the load within the SLO, planned anew from time to time.

    Three loops, as DynamoLLM has them: instances and tensor-parallel degree every `replan_seconds`, clocks
    every `clock_seconds`, and at once when requests are turned away. The load is the most that ran of late.
    """

    model: SiteModel
    rule: GovernorRule
    replan_seconds: float = 300.0
    clock_seconds: float = 5.0
    _planned_at: float = float("-inf")
    _clocked_at: float = float("-inf")
    _plan: Configuration | None = None

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """See `choosers.Chooser`."""
        requests = outlook.load.most
        is_due = now - self._planned_at >= self.replan_seconds or (
            outlook.load.turned_away_at > self._planned_at
        )
        plan = self._plan
        if plan is None or is_due or self.model.clock_that_fits(plan.layout, outlook.budget_watts) is None:
            is_known = outlook.load.is_known(now) and not outlook.load.is_overrun(now)
            plan = self._replan(outlook.budget_watts, requests if is_known else None)
            self._plan, self._planned_at, self._clocked_at = plan, now, now
        elif now - self._clocked_at >= self.clock_seconds:
            clock = self._clock(plan.layout, requests) or self.model.full_clock_mhz
            self._plan = plan = Configuration(layout=plan.layout, clock_mhz=clock)
            self._clocked_at = now
        return plan

    def _replan(self, budget: float, requests: int | None) -> Configuration:
        """Over every degree and count; for an unknown load, or one that nothing carries, the most."""
        layouts = [
            self.model.uniform(count, degree)
            for degree in self.model.profiles
            for count in range(self.model.most(degree) + 1)
        ]
        best: Configuration | None = None
        best_watts = float("inf")
        for layout in layouts if requests is not None else ():
            clock = self._clock(layout, requests or 0)
            if clock is None or self.model.worst_watts(layout, clock) > budget:
                continue
            watts = self._expected_watts(layout, clock, requests or 0)
            if watts < best_watts:
                best, best_watts = Configuration(layout=layout, clock_mhz=clock), watts
        if best is not None:
            return best
        most = self.model.best_of(layouts, budget)
        return Configuration(layout=most.layout, clock_mhz=self.model.full_clock_mhz)

    def _clock(self, layout: Layout, requests: int) -> int | None:
        """The lowest clock within the SLO; None where not even the full one is, or slots do not suffice."""
        if not layout or requests > self.model.slots(layout) * self.rule.load_ratio:
            return None
        [(degree, count)] = layout
        allowed = SLO_FACTOR * min(
            profile.itl_seconds(1, self.model.full_clock_mhz) for profile in self.model.profiles.values()
        )
        batch = max(1.0, requests / count)
        for clock in self.model.clocks_mhz:
            if self.model.profiles[degree].itl_seconds(batch, clock) <= allowed:
                return clock
        return None

    def _expected_watts(self, layout: Layout, clock_mhz: int, requests: int) -> float:
        [(degree, count)] = layout
        share = [requests // count + (index < requests % count) for index in range(count)]
        return self.model.modelled_watts(share, clock_mhz, [degree] * count)
