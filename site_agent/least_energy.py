"""`dynamo_like`: the least watts that carry a site's load in time, after DynamoLLM (arXiv 2408.00741). Pure.

In good faith (decision 9): what a configuration carries is `fleet.capacity`'s rate within the SLO for the
site's recent mean request, as `governed` reckons, and what it draws is by how much runs on it then. Three
loops, as DynamoLLM has them: instances and tensor-parallel degree every `replan_seconds`, the clock every
`clock_seconds`; both at once where what runs carries the load no more.

The load is a rate, worked out from how many requests ran at most of late and from what ran them (Little's
law): so a slower clock, on which the same load runs longer, is not taken for more load.

DynamoLLM knows no cap. Here, where not all of the load can be carried with the power there is, the site runs
what ends the most requests in time, and thinks again as soon as there is more power.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.capacity import Work, busy_watts, mean_running, prefill_ratio, requests_per_second
from site_agent.outlook import Outlook
from site_agent.site_model import Configuration, Layout, SiteModel
from site_agent.situation import GovernorRule
from site_agent.worth import Worth

POINTS = 24
"""Of an instance's table from rate to what runs on it."""
MORE_POWER_RATIO = 1.05
"""A site that lacked power thinks again when it has so much more."""


@dataclass(slots=True, kw_only=True)
class LeastEnergy:
    """One per site; see `choosers.Chooser`."""

    model: SiteModel
    rule: GovernorRule
    replan_seconds: float = 300.0
    clock_seconds: float = 5.0
    saving_ratio: float = 0.1
    """Another number of instances must save so much of the watts: engines that start serve nobody."""
    reshard_ratio: float = 0.25
    """Another degree must save so much; or, short of power, end so many more requests in time."""
    worth: Worth = field(init=False)
    _planned_at: float = float("-inf")
    _clocked_at: float = float("-inf")
    _plan: Configuration | None = None
    _dark_at: float = float("-inf")
    """When nothing was awake last."""
    _lacked_at_watts: float | None = None
    """The budget of a plan that does not carry all of the load."""
    _tables: dict[tuple[int, int], tuple[list[float], list[float]]] = field(default_factory=dict)
    _tables_work: Work | None = None

    def __post_init__(self) -> None:
        self.worth = Worth(model=self.model)

    def wish(self, outlook: Outlook, now: float) -> Configuration:
        """See `choosers.Chooser`."""
        self.worth.learn(outlook.work)
        if not outlook.staying:
            self._dark_at = now
        plan = self._plan
        if plan is None or self._is_due(plan, outlook, now):
            return self._planned(self._replan(outlook, self._load(outlook, now)), now)
        if now - self._clocked_at < self.clock_seconds:
            return plan
        self._clocked_at = now
        rate = self._load(outlook, now)
        clock = None if rate is None else self._clock(plan.layout, rate)
        if rate is not None and clock is None and self._lacked_at_watts is None:
            return self._planned(self._replan(outlook, rate), now)  # more load than was planned for
        clock = self.model.full_clock_mhz if clock is None else clock
        self._plan = Configuration(layout=plan.layout, clock_mhz=clock)
        return self._plan

    def _planned(self, plan: Configuration, now: float) -> Configuration:
        self._plan, self._planned_at, self._clocked_at = plan, now, now
        return plan

    def _is_due(self, plan: Configuration, outlook: Outlook, now: float) -> bool:
        lacked = self._lacked_at_watts
        return (
            now - self._planned_at >= self.replan_seconds
            or outlook.load.turned_away_at > self._planned_at
            or self.model.clock_that_fits(plan.layout, outlook.budget_watts) is None
            or (lacked is not None and outlook.budget_watts >= lacked * MORE_POWER_RATIO)
        )

    def _load(self, outlook: Outlook, now: float) -> float | None:
        """Requests per second; None: not known yet, or more than what runs can take."""
        load = outlook.load
        since_dark = now - self._dark_at
        if since_dark < self.rule.start_seconds + self.rule.load_hold_seconds:
            return None  # nobody was sent here
        if not load.is_known(now) or load.is_overrun(now):
            return None
        clock = outlook.clock_mhz if self._plan is None else min(outlook.clock_mhz, self._plan.clock_mhz)
        shares = [(degree, count * self.model.concurrency[degree]) for degree, count in outlook.staying]
        slots = sum(share for _, share in shares)
        return sum(
            [
                count * self._rate_of(degree, clock, load.most * (share / slots) / count)
                for (degree, count), (_, share) in zip(outlook.staying, shares, strict=True)
            ]
        )

    def _replan(self, outlook: Outlook, rate: float | None) -> Configuration:
        """Over every degree and count; for an unknown load, or one that nothing carries, the most."""
        degrees, staying = self.worth.good_degrees(), outlook.staying
        layouts = [
            self.model.uniform(count, degree)
            for degree in degrees
            for count in range(self.model.most(degree), 0, -1)
        ]
        self._lacked_at_watts = None
        if rate is not None:
            budget = outlook.budget_watts
            own = [layout for layout in layouts if staying and layout[0][0] == staying[0][0]]
            found = self._least([staying], rate, budget)
            for others, saving in ((own, self.saving_ratio), (layouts, self.reshard_ratio)):
                other = self._least(others, rate, budget)
                if other is not None and (found is None or other[1] < found[1] * (1 - saving)):
                    found = other
            if found is not None:
                return found[0]
        self._lacked_at_watts = outlook.budget_watts
        return self._most(layouts, outlook)

    def _least(
        self, layouts: Iterable[Layout], rate: float, budget_watts: float
    ) -> tuple[Configuration, float] | None:
        """The one that carries this load with the least watts, of those whose worst case fits."""
        best: tuple[Configuration, float] | None = None
        for layout in layouts:
            clock = self._clock(layout, rate)
            if clock is None or self.model.worst_watts(layout, clock) > budget_watts:
                continue
            watts = self._watts(layout, clock, rate)
            if best is None or watts < best[1]:
                best = Configuration(layout=layout, clock_mhz=clock), watts
        return best

    def _most(self, layouts: list[Layout], outlook: Outlook) -> Configuration:
        """What ends the most requests in time; another degree than what runs only where it is worth it."""
        budget, staying = outlook.budget_watts, outlook.staying
        best = self.worth.best(layouts, budget)
        if len(staying) == 1 and best.layout and best.layout[0][0] != staying[0][0]:
            own = self.worth.best((one for one in layouts if one[0][0] == staying[0][0]), budget)
            least = self.worth.of(own.layout, own.clock_mhz) * (1 + self.reshard_ratio)
            if own.awake and self.worth.of(best.layout, best.clock_mhz) <= least:
                best = own
        return Configuration(layout=best.layout, clock_mhz=self.model.full_clock_mhz)

    def _clock(self, layout: Layout, rate: float) -> int | None:
        """The named clock at which the layout carries this load with the least watts; None: none does."""
        clocks = [
            clock
            for clock in self.model.clocks_mhz
            if layout and self.worth.of(layout, clock) * self.rule.load_ratio >= rate
        ]
        return min(clocks, key=lambda clock: (self._watts(layout, clock, rate), clock), default=None)

    def _watts(self, layout: Layout, clock_mhz: int, rate: float) -> float:
        """What the site draws in the mean with this load."""
        whole = self.worth.of(layout, clock_mhz)
        gpus = 0.0
        watts = 0.0
        for degree, count in layout:
            share = self.worth.of(self.model.uniform(1, degree), clock_mhz) / whole
            running = self._running_at(degree, clock_mhz, rate * share)
            profile = self.model.profiles[degree]
            in_prefill = prefill_ratio(profile, clock_mhz, self.worth.work, rate * share)
            watts += count * busy_watts(profile, clock_mhz, running, prefill_ratio=in_prefill)
            gpus += degree * count
        own = self.model.profile
        stopped = (self.model.gpu_count - gpus) * own.stopped_watts / own.tensor_parallel_degree
        return self.model.power.site_watts(watts + stopped)

    def _rate_of(self, degree: int, clock_mhz: int, running: float) -> float:
        """The rate at which one instance runs so many requests; the most that it sustains where none does."""
        rates, runs = self._table(degree, clock_mhz)
        at = bisect_left(runs, running)
        if at >= len(runs):
            return rates[-1]
        if at == 0:
            return rates[0]
        part = (running - runs[at - 1]) / (runs[at] - runs[at - 1])
        return rates[at - 1] + part * (rates[at] - rates[at - 1])

    def _running_at(self, degree: int, clock_mhz: int, rate: float) -> float:
        rates, runs = self._table(degree, clock_mhz)
        at = bisect_left(rates, rate)
        if at >= len(rates):
            return runs[-1]
        if at == 0:
            return runs[0]
        part = (rate - rates[at - 1]) / (rates[at] - rates[at - 1])
        return runs[at - 1] + part * (runs[at] - runs[at - 1])

    def _table(self, degree: int, clock_mhz: int) -> tuple[list[float], list[float]]:
        """Rates of one instance, and what runs on it at each; both grow."""
        work = self.worth.work
        if work != self._tables_work:
            self._tables.clear()
            self._tables_work = work
        found = self._tables.get((degree, clock_mhz))
        if found is None:
            profile, slots = self.model.profiles[degree], self.model.concurrency[degree]
            most = requests_per_second(profile, clock_mhz, work, max_concurrency=slots)
            rates, runs = [0.0], [0.0]
            for point in range(1, POINTS + 1):
                rate = most * point / POINTS
                running = mean_running(profile, clock_mhz, work, rate, max_concurrency=slots)
                if running > runs[-1] and rate > rates[-1]:
                    rates.append(rate)
                    runs.append(running)
            found = self._tables[degree, clock_mhz] = rates, runs
        return found
