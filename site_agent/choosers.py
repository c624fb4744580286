"""What a site should run when nothing forces it: the wishes that the governor's ladder follows. Pure.

The ladder (`site_agent.governor`) keeps the cap and carries a wish out calmly; a chooser says where to. Rule:
a chooser never wishes for what does not fit the budget it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from site_agent.outlook import Outlook
from site_agent.own_choice import OwnChoice
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule, Target


class Chooser(Protocol):
    """Says what to aim at."""

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """The layout to move to, and the highest clock to run it at."""


@dataclass(slots=True, kw_only=True)
class MostThroughput:
    """All that fits, in the site's own degree, as fast as it fits: for a load that takes whatever there is.

    What is awake stays unless more instances gain `gain_ratio` of throughput.
    """

    model: SiteModel
    gain_ratio: float

    def wish(self, outlook: Outlook, now: float) -> Configuration:  # noqa: ARG002 -- always the same
        """See Chooser."""
        return self.of_degree(outlook, self.degree(outlook.staying))

    def degree(self, staying: Layout) -> int:
        """The one on most of the GPUs; the own one where nothing is awake."""
        if not staying:
            return self.model.degree
        return max(staying, key=lambda part: (part[0] * part[1], part[0]))[0]

    def of_degree(self, outlook: Outlook, degree: int) -> Configuration:
        """The most throughput with instances of this degree; full clock is the ceiling."""
        model, staying = self.model, outlook.staying
        best = model.best(outlook.budget_watts, degree=degree)
        if not staying:
            return model.at_full(best.layout)
        rate = model.output_tokens_per_second(staying, outlook.clock_mhz)
        best_rate = model.output_tokens_per_second(best.layout, best.clock_mhz)
        is_more = best.awake > sum(count for _, count in staying)
        if is_more and best_rate > rate * (1 + self.gain_ratio):
            return model.at_full(best.layout)
        return model.at_full(staying)


@dataclass(slots=True, kw_only=True)
class FollowPlan:
    """`governed`: the plan's targets where they fit and suffice, else the best by itself (`OwnChoice`)."""

    model: SiteModel
    rule: GovernorRule
    own: OwnChoice = field(init=False)

    def __post_init__(self) -> None:
        self.own = OwnChoice(model=self.model, rule=self.rule)

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """See Chooser."""
        planned = self._planned(outlook, now)
        return self.own.wish(outlook, now) if planned is None else planned

    def _planned(self, outlook: Outlook, now: float) -> Configuration | None:
        """The plan's layout and clock; None without a plan, or where it does not fit or not suffice."""
        if outlook.targets is None or outlook.load.is_overrun(now):
            return None
        found = planned(outlook.targets, self.model)
        if found is None or self.model.clock_that_fits(found.layout, outlook.budget_watts) is None:
            return None
        return found


def planned(targets: Sequence[Target], model: SiteModel) -> Configuration | None:
    """A plan's targets as a configuration of this site; None where it cannot run them.

    A site has one clock: the mean of the targets' clocks, weighted by their GPUs, on the next step up.
    """
    counts: dict[int, int] = {}
    weighted = gpus = 0.0
    for target in targets:
        degree = target.tensor_parallel_degree
        if degree not in model.profiles:
            return None
        if target.instances <= 0:
            continue
        counts[degree] = counts.get(degree, 0) + target.instances
        clock = model.full_clock_mhz if target.gpu_clock_mhz is None else target.gpu_clock_mhz
        weighted += clock * degree * target.instances
        gpus += degree * target.instances
    if gpus > model.gpu_count:
        return None
    wanted = weighted / gpus if gpus else float(model.full_clock_mhz)
    clock = next((one for one in model.clocks_mhz if one >= wanted - 0.5), model.full_clock_mhz)
    return Configuration(layout=tuple(sorted(counts.items())), clock_mhz=clock)
