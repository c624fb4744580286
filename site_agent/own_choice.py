"""What a site runs without a plan: the configuration that ends the most requests in time. Pure.

Rules, in order:

1. Nothing awake: the degree that is worth the most over what the forecast expects, of those that fit now. The
   own one unless another is worth `rise_gain_ratio` more; a poor one never. What a dip empties keeps its
   degree for as long as it rests: it is back before another could start.
2. More instances of the degree that runs if that gains `rise_gain_ratio`; fewer, and those faster, if that
   gains `FEWER_GAIN_RATIO`; and in both cases if by the low quantile for as long as a start takes it loses
   nothing.
3. Another degree if it is worth `RESHARD_GAIN_RATIO` more over what the forecast expects, the pause that it
   costs taken off, and `RESHARD_SECONDS` after the last change; sooner if it is worth twice as much. A site
   that has a plan keeps its own. A mixed layout, as a plan or such a change leaves it, becomes one of its
   main degree for `RESHARD_GAIN_RATIO` more.

Otherwise what is awake stays, at the highest clock that fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from site_agent.outlook import Outlook
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule, Target
from site_agent.worth import Worth

FEWER_GAIN_RATIO = 0.10
"""An instance that goes must be started again when power returns."""
RESHARD_GAIN_RATIO = 0.25
AT_ONCE_GAIN_RATIO = 1.0
"""For a gain of so much no time is waited for: wind that rises through the watts of a small degree."""
RESHARD_SECONDS = 600.0
LAST_SECONDS = 1800.0
"""So long another degree is expected to last, to make up for its pause."""
LOOK_SECONDS = 10.0
"""Another degree is thought of this often: forecasts are no faster."""


@dataclass(slots=True, kw_only=True)
class OwnChoice:
    """Remembers when it last changed the degree."""

    model: SiteModel
    rule: GovernorRule
    worth: Worth = field(init=False)
    _changed_at: float = float("-inf")
    _looked_at: float = float("-inf")
    _other: int | None = None
    """A degree to move to."""

    def __post_init__(self) -> None:
        self.worth = Worth(model=self.model)

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """See `choosers.Chooser`."""
        self.worth.learn(outlook.work)
        if not outlook.staying:
            return self._first(outlook, now)
        degree = _main_degree(outlook.staying)
        if len(outlook.staying) > 1 or outlook.targets is not None:
            self._other = None
        elif now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._other = self._better(outlook, degree, now)
        if self._other is not None and self._other != degree:
            best = self._best(self._other, outlook.budget_watts)
            if best.awake:
                full = self.model.full_clock_mhz
                return Configuration(layout=best.layout, clock_mhz=full, is_worth_a_pause=True)
        return self._of_degree(outlook, degree)

    def _first(self, outlook: Outlook, now: float) -> Configuration:
        """With nothing awake."""
        self._changed_at, self._other = now, None
        degrees = self.worth.good_degrees()
        if outlook.awaited:
            degrees = [_main_degree(outlook.awaited)]
        elif outlook.targets:
            degrees = [_widest_share(outlook.targets, self.model) or self.model.degree]
        found, most = self._best(degrees[0], outlook.budget_watts), 0.0
        if outlook.awaited and not found.awake and self.model.may_come_back(degrees[0], outlook.budget_watts):
            return self.model.at_full(self.model.uniform(1, degrees[0]))
        if len(degrees) > 1:
            for degree in degrees:  # the own one first
                best = self._best(degree, outlook.budget_watts)
                worth = self._expected(degree, outlook) if best.awake else 0.0
                if worth > most * (1 + self.rule.rise_gain_ratio):
                    found, most = best, worth
        return self.model.at_full(found.layout)

    def _of_degree(self, outlook: Outlook, degree: int) -> Configuration:
        """More of it, or fewer, or what there is."""
        worth, staying = self.worth, outlook.staying
        best = self._best(degree, outlook.budget_watts)
        gain = self._least_gain(best, outlook)
        is_better = worth.of(best.layout, best.clock_mhz) > worth.of(staying, outlook.clock_mhz) * (1 + gain)
        sure = worth.under(best.layout, outlook.sure_watts)
        if is_better and sure >= worth.under(staying, outlook.sure_watts):
            return self.model.at_full(best.layout)
        return self.model.at_full(staying)

    def _least_gain(self, best: Configuration, outlook: Outlook) -> float:
        """What a change from what is awake must bring."""
        awake = sum(count for _, count in outlook.staying)
        if len(outlook.staying) > 1:
            return RESHARD_GAIN_RATIO if outlook.targets is None else math.inf
        return self.rule.rise_gain_ratio if best.awake > awake else FEWER_GAIN_RATIO

    def _better(self, outlook: Outlook, degree: int, now: float) -> int | None:
        """Another degree that pays for the pause."""
        is_recent = now - self._changed_at < RESHARD_SECONDS
        gain = AT_ONCE_GAIN_RATIO if is_recent else RESHARD_GAIN_RATIO
        pause = self.rule.start_of(outlook.start_seconds) + self.rule.calm_drain_seconds
        left = max(0.0, 1 - pause / LAST_SECONDS)
        least = self._expected(degree, outlook) * (1 + gain)
        found = None
        for other in self.worth.good_degrees():
            if other != degree and self._best(other, outlook.sure_watts).awake:
                worth = self._expected(other, outlook) * left
                if worth > least:
                    found, least = other, worth
        return found

    def _expected(self, degree: int, outlook: Outlook) -> float:
        """What the degree is worth over what the forecast expects."""
        budgets = outlook.later_watts or (outlook.budget_watts,)
        found = [self._best(degree, budget) for budget in budgets]
        return sum([self.worth.of(one.layout, one.clock_mhz) for one in found]) / len(budgets)

    def _best(self, degree: int, budget_watts: float) -> Configuration:
        model = self.model
        counts = range(model.most(degree), 0, -1)  # of equals the one that keeps more requests where they are
        return self.worth.best((model.uniform(count, degree) for count in counts), budget_watts)


def _main_degree(layout: Layout) -> int:
    """The one on most of the GPUs."""
    return max(layout, key=lambda part: (part[0] * part[1], part[0]))[0]


def _widest_share(targets: Sequence[Target], model: SiteModel) -> int | None:
    """The degree that most of a plan's GPUs have."""
    shares = [
        (one.tensor_parallel_degree * one.instances, one.tensor_parallel_degree)
        for one in targets
        if one.instances > 0 and one.tensor_parallel_degree in model.profiles
    ]
    return max(shares)[1] if shares else None
