"""Keeps the site's draw under its cap: (cap, draw, instances, now) → commands. Pure (DESIGN §7).

Rules, in order:

1. What runs must fit by its *worst case* (`SiteModel`), with headroom for noise and turbulence, under the
   cap that `CapOutlook` gives: a fall acts at once, a ramp is run ahead of, a rise counts when it has lasted.
   Where all slots do not fit at the lowest clock, what runs may, with admission *held* to the budget.
2. A fall to the floor must be survivable at every moment (`site_agent.survival`): the energy for it is kept
   in store; and as an episode is not restarted by a further fall, in an episode clocks go to their lowest at
   once, and what a further fall would find above the cap is gone before the ride-through is over.
3. Too many instances: the emptiest stop admitting and drain. Within the cap they may take
   `calm_drain_seconds`; in an episode `drain_seconds`, less where the ride-through leaves less. Then their
   streams are broken off (routers resume them) and the engines stopped. What a dip within the cap has emptied
   rests awake instead, where its idle draw fits and slows nobody.
4. Up: one step at a time, never during an episode, starts of what was stopped before bounded per hour.
5. What nothing forces is the chooser's wish (a plan's targets, the best for the load), carried out calmly
   (`site_agent.reshaping`), as far as it fits.
6. A model that says "fits" while the meter says "over", or clocks do not go down, is wrong: a ratio mends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fleet.instance import InstanceState
from fleet.power import RideThrough, RideThroughAccount
from site_agent.cap_outlook import CapOutlook, later_watts, soon_watts, sure_watts
from site_agent.choosers import Chooser, FollowPlan
from site_agent.correction import Correction
from site_agent.drains import Drains
from site_agent.fitting import (
    are_alike,
    clock_for,
    draws,
    emptiest_first,
    fits_held,
    fits_nothing,
    has_room_to_rest,
    is_moving,
    layout_of,
    start_spare_watts,
    widest_watts,
)
from site_agent.load_watch import LoadWatch
from site_agent.outlook import Outlook
from site_agent.pace import Pace
from site_agent.placement import blockers, place
from site_agent.recent import RecentMean
from site_agent.reshaping import Reshaping
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import (
    Decision,
    GovernorRule,
    InstanceView,
    SetClock,
    SiteView,
    StartEngine,
)
from site_agent.survival import Presumed, Survival
from site_agent.turn import Turn

LEAD_SECONDS = 1.0
"""A ramp is run ahead of by a whole drain and this."""
SPIKE_SECONDS = 0.5
"""A reading above a cap that the mean of so long is within is a spike, and no episode: an H100 at work with a
mean of 630 W reads 240 to 880 W from one tenth of a second to the next, its limit of 700 W holds the mean
(docs/decisions/0021)."""
RECHECK_SECONDS = 1.0
"""While nothing changes, what drifts slowly (load, forecast, turbulence) is looked at this often."""


@dataclass(slots=True, kw_only=True)
class Governor:
    """One per site. `decide` is its only door."""

    model: SiteModel
    rule: GovernorRule
    ride_through: RideThrough
    chooser: Chooser | None = None
    """None: `FollowPlan`."""
    account: RideThroughAccount = field(init=False)
    """By what was measured; for the record."""
    clock_mhz: int = field(init=False)
    """The clock last commanded."""
    _chooser: Chooser = field(init=False)
    _survival: Survival = field(init=False)
    _presumed: Presumed = field(init=False)
    """By what the wind may have seen; for the decisions."""
    _mean_draw: RecentMean = field(init=False)
    _outlook: CapOutlook = field(init=False)
    correction: Correction = field(init=False)
    _load: LoadWatch = field(init=False)
    _reshaping: Reshaping = field(init=False)
    _drains: Drains = field(init=False)
    _pace: Pace = field(init=False)
    _changed_at: float = float("-inf")
    _last: tuple[float, SiteView, tuple[float, float], Decision] | None = None
    """When, from what, with which outlook, and what was decided, while that changes nothing."""

    def __post_init__(self) -> None:
        rule = self.rule
        self.account = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self._chooser = self.chooser or FollowPlan(model=self.model, rule=rule)
        self._survival = Survival.of(self.model, rule)
        self._presumed = Presumed.of(self.ride_through, rule)
        self._mean_draw = RecentMean(hold_seconds=SPIKE_SECONDS)
        self._outlook = CapOutlook(
            hold_seconds=rule.rise_hold_seconds,
            horizon_seconds=rule.drain_seconds + LEAD_SECONDS,
            floor_watts=rule.safe_floor_watts,
        )
        self.correction = Correction(settle_seconds=rule.settle_seconds)
        self._load = LoadWatch(hold_seconds=rule.load_hold_seconds)
        self._reshaping = Reshaping(model=self.model, rule=rule)
        self._drains = Drains(rule=rule, account=self._presumed.account)
        self.clock_mhz = self.model.full_clock_mhz
        self._pace = Pace(rule=rule)

    @property
    def correction_ratio(self) -> float:
        """The meter ÷ the model's worst case, 1 at the least."""
        return self.correction.ratio

    def decide(self, view: SiteView, now: float) -> Decision:
        """Take the situation at `now` (monotonic) and return what to do."""
        if self._mean_draw.observe(view.draw_watts, now) <= view.cap_watts < view.draw_watts:
            view = replace(view, draw_watts=view.cap_watts)
        self.account.observe(draw_watts=view.draw_watts, cap_watts=view.cap_watts, now=now)
        self._presumed.observe(draw_watts=view.draw_watts, cap_watts=view.cap_watts, now=now)
        self.correction.observe(view.draw_watts - view.added_watts, now)
        running = sum([one.running_requests for one in view.instances])
        self._load.observe(running, view.turned_away, now)
        if self._pace.is_cold:
            self._outlook.forget()
        outlook = self._outlook.observe(view.cap_watts, now)
        if (last := self._unchanged(view, outlook, now)) is not None:
            return last
        turn = self._turn(view, outlook, now)
        target = self._go_down(turn)
        if not self.rule.enabled or not self._is_in_episode:
            target = self._follow_wish(turn)
        self._drains.finish(turn, partial(self._may_rest, turn))
        staying = self._staying(turn)
        if not self.rule.enabled or not self._is_in_episode:
            self._rise(turn, staying, target)
        is_settled = self._set_clock(turn, target.clock_mhz)
        is_there = len(staying) >= target.awake and all(one.state is InstanceState.READY for one in staying)
        if target.awake and is_there:
            self._pace.is_cold = False
        self._pace.stopped(turn.gone)
        if turn.commands:
            self._changed_at = now
        decision = Decision(
            commands=tuple(turn.commands),
            target=target,
            budget_watts=turn.budget_watts,
            is_over=turn.is_hurried,
            is_short_of_power=not target.awake
            and fits_nothing(self.model, turn.budget_watts + turn.rest_watts),
            drain_deadline_at=self._drains.deadline_at(turn),
            admit_watts=turn.budget_watts + turn.rest_watts if turn.is_held else math.inf,
        )
        is_quiet = is_there and is_settled and not turn.commands and not self._drains
        self._last = (now, view, outlook, decision) if is_quiet else None
        return decision

    @property
    def _is_in_episode(self) -> bool:
        return self._presumed.account.is_in_episode

    def _unchanged(self, view: SiteView, outlook: tuple[float, float], now: float) -> Decision | None:
        """The last decision, where nothing has happened since that could change it."""
        if self._last is None or self._is_in_episode or max(self.correction.ratio, view.excess_ratio) > 1:
            return None
        at, before, outlook_before, decision = self._last
        if (
            now - at >= RECHECK_SECONDS
            or outlook != outlook_before
            or view.draw_watts > min(outlook[0], decision.budget_watts)
            or view.turned_away
            or view.targets != before.targets
            or not are_alike(view.instances, before.instances)
        ):
            return None
        return decision

    # What fits

    def _turn(self, view: SiteView, outlook: tuple[float, float], now: float) -> Turn:
        resting = [one for one in view.instances if self._drains.rests(one)]
        drawing = [one for one in view.instances if draws(one) and one not in resting]
        layout = self._layout(drawing)
        rest_watts = sum([self.model.rest_watts(one.tensor_parallel_degree) for one in resting])
        self.correction.learn(
            worst_watts=self.model.worst_watts(layout, self.clock_mhz) * view.excess_ratio + rest_watts,
            is_bare=not drawing and not resting,
            changed_at=self._changed_at,
            now=now,
            heard=view.heard,
        )
        budget, soon = self._budgets(view, outlook)
        turn = Turn(
            view=view,
            now=now,
            awake=[one for one in view.instances if one.is_awake],
            drawing=layout,
            budget_watts=budget,
            soon_watts=soon,
            is_hurried=self.rule.enabled
            and (self._is_in_episode or view.draw_watts > min(view.cap_watts, outlook[0])),
            start_spare_watts=start_spare_watts(self.model, drawing),
        )
        self._drains.forget_gone(turn)
        for one in resting:
            self._rest(turn, one)
        return turn

    def _budgets(self, view: SiteView, outlook: tuple[float, float]) -> tuple[float, float]:
        """What the worst case may be: (now, for what takes long to change)."""
        if not self.rule.enabled:
            return math.inf, math.inf
        held = outlook[1]
        if self._is_in_episode:
            held = min(held, self._survival.episode_limit_watts(held))
        budget = held - self._outlook.headroom_watts(held, self.rule.guard_ratio, self.rule.turbulence_factor)
        budget = min(budget, self._survival.stored_limit_watts(self._presumed.account.joules_left))
        soon = soon_watts(
            held,
            view.forecast,
            age_seconds=view.forecast_age_seconds,
            within_seconds=max(self.rule.calm_drain_seconds, self.rule.start_of(view.start_seconds))
            + LEAD_SECONDS,
        )
        ratio, bare = max(self.correction.ratio, view.excess_ratio), self.correction.bare_watts
        return budget / ratio - bare, min(budget, soon * (1 - self.rule.guard_ratio)) / ratio - bare

    # Down

    def _staying(self, turn: Turn) -> list[InstanceView]:
        return [
            one
            for one in turn.awake
            if one.instance_id not in self._drains and one.instance_id not in turn.gone
        ]

    def _layout(self, instances: Sequence[InstanceView]) -> Layout:
        return layout_of(self.model, instances)

    def _go_down(self, turn: Turn) -> Configuration:
        """While what stays fits, all of it; else the best with fewer: the emptiest go."""
        order = sorted(self._staying(turn), key=emptiest_first)
        layout, spare = self._layout(order), start_spare_watts(self.model, order)
        does_fit = clock_for(self.model, layout, turn.soon_watts, spare) is not None
        turn.is_held = not does_fit and fits_held(self.model, order, turn.soon_watts)
        if does_fit or turn.is_held:
            return self.model.at_full(layout)
        fewer = [self._layout(order[count:]) for count in range(len(order), 0, -1)]
        best = self.model.best_of(fewer, turn.soon_watts)
        self._pace.is_cold = self._pace.is_cold and not order
        self._drains.begin(turn, order[: len(order) - best.awake])
        return self.model.at_full(best.layout)

    def _may_rest(self, turn: Turn, one: InstanceView) -> bool:
        """Whether one that a dip has emptied may stay awake."""
        others = self._layout(self._staying(turn))
        is_on = self.rule.rest_seconds > 0 and not self._is_in_episode
        return is_on and has_room_to_rest(self.model, one, others, turn.soon_watts)

    def _rest(self, turn: Turn, one: InstanceView) -> None:
        """It goes on resting, its watts off the budgets, or is stopped."""
        is_over = self._drains.rested_seconds(one.instance_id, turn.now) >= self.rule.rest_seconds
        if is_over or not self._may_rest(turn, one):
            self._drains.end_rest(turn, one.instance_id)
        rest = self.model.rest_watts(one.tensor_parallel_degree)
        turn.take_rest(rest)

    # By wish, and up

    def _follow_wish(self, turn: Turn) -> Configuration:
        """What the chooser wants; what is spare or in its way begins to drain."""
        staying = self._staying(turn)
        layout = self._layout(staying)
        clock = self.model.clock_that_fits(layout, turn.budget_watts)
        budget, points = turn.soon_watts + turn.rest_watts, turn.view.forecast
        kept_ratio = (1 - self.rule.guard_ratio) / self.correction.ratio  # of a cap, without turbulence
        age, start = turn.view.forecast_age_seconds, self.rule.start_of(turn.view.start_seconds)
        wish = self._chooser.wish(
            Outlook(
                staying=layout,
                clock_mhz=self.model.lowest_clock_mhz if clock is None else clock,
                budget_watts=budget,
                sure_watts=sure_watts(budget, points, age_seconds=age, within_seconds=start),
                later_watts=(budget, *later_watts(points, age_seconds=age, share=kept_ratio)),
                awaited=self._layout([one for one in turn.view.instances if self._drains.awaits(one)]),
                targets=turn.view.targets,
                load=self._load,
                work=turn.view.work,
                start_seconds=turn.view.start_seconds,
            ),
            turn.now,
        )
        if layout != wish.layout:
            is_calm = (
                not self._drains
                and not is_moving(turn.view.instances, may_start=wish.is_worth_a_pause)
                and self._pace.may_step_down(widest_watts(self.model, staying, self.clock_mhz), turn.now)
            )
            wanted = self._place(turn, staying, wish.layout)
            both = self._layout([*staying, *(one for one in wanted if one not in staying)])
            going = self._reshaping.drops(
                wanted,
                staying,
                is_calm=is_calm,
                now=turn.now,
                is_worth_a_pause=wish.is_worth_a_pause,
                fits_beside=self.model.clock_that_fits(both, turn.soon_watts) is not None,
            )
            self._drains.begin(turn, going, is_forced=False)
            if going:
                self._pace.stepped_down(turn.now)
        return wish

    def _place(self, turn: Turn, staying: Sequence[InstanceView], layout: Layout) -> list[InstanceView]:
        ids = frozenset(one.instance_id for one in staying)
        return place(layout, turn.view.instances, ids, own_degree=self.model.degree)

    def _rise(self, turn: Turn, staying: Sequence[InstanceView], target: Configuration) -> None:
        """Take drains back, then start engines: one a step; all that fit when cold."""
        if self._layout(staying) == target.layout:
            return
        present = {one.instance_id for one in staying}
        missing = [one for one in self._place(turn, staying, target.layout) if one.instance_id not in present]
        awake = [one for one in turn.view.instances if draws(one)]
        drawing = [one for one in awake if not self._drains.rests(one)]
        for one in sorted(missing, key=lambda one: (one.state is InstanceState.STOPPED, one.index)):
            is_back = one.instance_id in self._drains
            is_stopped = one.state is InstanceState.STOPPED and not one.is_stopping
            is_startable = is_stopped and one.can_start and self._pace.may_start(one.instance_id, turn.now)
            if not is_back and (not is_startable or self._are_in_the_way(turn, one, awake)):
                continue
            after = drawing if one in drawing else [*drawing, one]
            layout = self._layout(after)
            rest = self.model.rest_watts(one.tensor_parallel_degree) if self._drains.rests(one) else 0.0
            clock = self.model.clock_that_fits(layout, turn.soon_watts + rest)
            if clock is None and is_back and fits_held(self.model, after, turn.soon_watts + rest):
                turn.is_held, clock = True, self.model.lowest_clock_mhz
            if clock is None or not self._pace.may_step_up(self._rise_watts(turn, layout, clock), turn.now):
                return
            if is_back:
                self._drains.take_back(turn, one.instance_id)
                turn.take_rest(-rest)
            else:
                self._pace.started(one.instance_id, turn.now)
                turn.commands.append(StartEngine(instance_id=one.instance_id))
                awake.append(one)
            drawing, turn.drawing = after, layout
            self._pace.stepped_up(turn.now)

    def _are_in_the_way(self, turn: Turn, one: InstanceView, awake: Sequence[InstanceView]) -> bool:
        """Whether its GPUs are taken; what rests on them makes room."""
        others = blockers(one, awake)
        for other in others:
            if self._drains.rests(other):
                self._drains.end_rest(turn, other.instance_id)
        return bool(others)

    def _rise_watts(self, turn: Turn, after: Layout, clock_mhz: int) -> float:
        """How much more the worst case would be."""
        return self.model.worst_watts(after, clock_mhz) - self.model.worst_watts(turn.drawing, self.clock_mhz)

    def _set_clock(self, turn: Turn, ceiling_mhz: int) -> bool:
        """The highest clock up to the ceiling at which all that draws fits; the lowest in an episode.

        Comes first among the commands. Returns whether the clock is where it should be.
        """
        if not turn.drawing:
            return True
        wanted = clock_for(self.model, turn.drawing, turn.budget_watts, turn.start_spare_watts)
        if wanted is None or (self.rule.enabled and self._is_in_episode):
            wanted = self.model.lowest_clock_mhz
        if ceiling_mhz < min(wanted, self.clock_mhz):  # down by wish
            fall = -self._rise_watts(turn, turn.drawing, ceiling_mhz)
            if not self._pace.may_step_down(fall, turn.now):
                return False
            self._pace.stepped_down(turn.now)
        wanted = min(wanted, ceiling_mhz)
        if wanted == self.clock_mhz:
            return True
        if wanted > self.clock_mhz:
            if not self._pace.may_step_up(self._rise_watts(turn, turn.drawing, wanted), turn.now):
                return False
            self._pace.stepped_up(turn.now)
        else:
            self._pace.is_cold = False
        self.clock_mhz = wanted
        turn.commands.insert(0, SetClock(clock_mhz=wanted))
        return True
