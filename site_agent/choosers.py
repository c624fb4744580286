"""What a site should run when nothing forces it: the wishes that the governor's ladder follows. Pure.

The ladder (`site_agent.governor`) keeps the cap and carries a wish out calmly; a chooser says where to. Rule:
a chooser never wishes for what does not fit the budget it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from site_agent.load_watch import LoadWatch
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a wish is made from."""

    staying: Layout
    """Awake, and not on its way out."""
    clock_mhz: int
    """The highest at which what stays fits now; the lowest clock where it does not."""
    budget_watts: float
    """For the worst case of what is to be awake: the cap now and soon, less the headroom."""
    sure_watts: float
    """The same by the low quantile of the forecast, for as long as an engine takes to start."""
    targets: tuple[Target, ...] | None
    load: LoadWatch


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
        full = model.full_clock_mhz
        best = model.best(outlook.budget_watts, degree=degree)
        if not staying:
            return Configuration(layout=best.layout, clock_mhz=full)
        rate = model.output_tokens_per_second(staying, outlook.clock_mhz)
        best_rate = model.output_tokens_per_second(best.layout, best.clock_mhz)
        is_more = best.awake > sum(count for _, count in staying)
        if is_more and best_rate > rate * (1 + self.gain_ratio):
            return Configuration(layout=best.layout, clock_mhz=full)
        return Configuration(layout=staying, clock_mhz=full)


@dataclass(slots=True, kw_only=True)
class FollowPlan:
    """`governed`: the plan's targets where they fit and suffice, else the best for the load by itself.

    Without a plan, in this order:

    1. Load unknown, or requests turned away of late: the most throughput (`MostThroughput`).
    2. Everything fits at full clock: all of it stays awake. Spare instances cost wind that nobody else uses.
    3. Power binds, and fewer instances carry the load: they run faster on the watts that the spare ones
       drew. One spare stays awake if the low forecast carries it without a slower clock; the others wait
       stopped (70 W a GPU, not 115).
    """

    model: SiteModel
    rule: GovernorRule
    _most: MostThroughput = field(init=False)

    def __post_init__(self) -> None:
        self._most = MostThroughput(model=self.model, gain_ratio=self.rule.rise_gain_ratio)

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """See Chooser."""
        planned = self._planned(outlook, now)
        if planned is not None:
            return planned
        degree = self._most.degree(outlook.staying)
        if not outlook.staying and outlook.targets:
            degree = _widest_share(outlook.targets, self.model) or degree
        most = self._most.of_degree(outlook, degree)
        if not outlook.load.is_known(now) or outlook.load.is_overrun(now):
            return most
        return self._for_load(outlook, most, degree)

    def _planned(self, outlook: Outlook, now: float) -> Configuration | None:
        """The plan's layout and clock; None without a plan, or where it does not fit or not suffice."""
        if outlook.targets is None or outlook.load.is_overrun(now):
            return None
        found = planned(outlook.targets, self.model)
        if found is None or self.model.clock_that_fits(found.layout, outlook.budget_watts) is None:
            return None
        return found

    def _for_load(self, outlook: Outlook, most: Configuration, degree: int) -> Configuration:
        model, full = self.model, self.model.full_clock_mhz
        count = most.awake
        clock = model.clock_that_fits(most.layout, outlook.budget_watts)
        if clock == full or count <= 1 or len(most.layout) > 1:
            return most  # a mixed layout, as a plan left it, is not taken apart
        slots = model.concurrency[degree] * self.rule.load_ratio
        needed = max(1, -int(-outlook.load.most // slots))
        if needed >= count:
            return most
        best, best_itl = most, self._itl(degree, outlook.load.most, count, clock)
        for fewer in range(needed, count):
            layout = model.uniform(fewer, degree)
            fits = model.clock_that_fits(layout, outlook.budget_watts)
            itl = self._itl(degree, outlook.load.most, fewer, fits)
            if itl < best_itl * (1 - self.rule.rise_gain_ratio):
                best, best_itl = Configuration(layout=layout, clock_mhz=full), itl
        return self._with_reserve(outlook, best, count, degree)

    def _with_reserve(self, outlook: Outlook, best: Configuration, count: int, degree: int) -> Configuration:
        """One more awake than needed, where that costs no clock by the low forecast."""
        if best.awake >= count:
            return best
        wider = self.model.uniform(best.awake + 1, degree)
        alone = self.model.clock_that_fits(best.layout, outlook.sure_watts)
        if alone is not None and self.model.clock_that_fits(wider, outlook.sure_watts) == alone:
            return Configuration(layout=wider, clock_mhz=best.clock_mhz)
        return best

    def _itl(self, degree: int, requests: int, instances: int, clock_mhz: int | None) -> float:
        if clock_mhz is None:
            return float("inf")
        return self.model.profiles[degree].itl_seconds(max(1.0, requests / instances), clock_mhz)


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


def _widest_share(targets: Sequence[Target], model: SiteModel) -> int | None:
    """The degree that most of a plan's GPUs have."""
    shares = [
        (one.tensor_parallel_degree * one.instances, one.tensor_parallel_degree)
        for one in targets
        if one.instances > 0 and one.tensor_parallel_degree in model.profiles
    ]
    return max(shares)[1] if shares else None
