"""The paper table's results and its bounds, and what is read from them: means, leads, parts of the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.experiments.figures import (
    CLOSE_RATIO,
    Counts,
    Crossing,
    crossing,
    lead,
    ratio_of,
    way,
)
from benchmarks.experiments.setting import BASELINES, OURS, Runs, Setting
from simulator.estimates import Estimate, estimate
from simulator.plots import BOUND

ATTAINMENTS = (0.99, 0.95, 0.9)
WAY_GOAL, BOUND_GOAL, NEVER_LESS_RATIO = 0.9, 0.95, 0.99


@dataclass(frozen=True, slots=True)
class Table:
    """All results, and the bound of each week, load and seed."""

    setting: Setting
    runs: Runs
    ceilings: dict[tuple[str, float], list[dict[str, Any]]]
    """Week, load → what `heron bound` says, one for each seed."""

    def counts(self, week: str, load: float, policy: str) -> Counts:
        """Good and offered requests, block by block; the bound's in sums of the minutes' rates."""
        if policy != BOUND:
            return self.runs.counts((week, load, policy))
        rows = [_row(one) for one in self.ceilings[week, load]]
        served = [count for row in rows for count in row["bound_by_block"]]
        return served, [count for row in rows for count in row["offered_by_block"]]

    def share(self, week: str, load: float, policy: str) -> Estimate:
        """Of the offered requests, within the SLO; `bound` too."""
        return ratio_of(*self.counts(week, load, policy))

    def mean(self, week: str, load: float, policy: str) -> float:
        """The same without its interval."""
        return self.share(week, load, policy).mean

    def share_of_bound(self, week: str, load: float, policy: str) -> Estimate:
        """Of what could be; where that is nothing, nothing is all of it."""
        if not self.mean(week, load, BOUND):
            return Estimate(mean=1.0, half=0.0)
        return ratio_of(self._shares(week, load, policy), self._shares(week, load, BOUND))

    def _shares(self, week: str, load: float, policy: str) -> list[float]:
        """Of each block: its good requests as a part of the mean block's offered ones."""
        good, offered = self.counts(week, load, policy)
        mean = sum(offered) / len(offered)
        return [count / mean if mean else 0.0 for count in good]

    def fluid(self, week: str, load: float, name: str) -> float:
        """A fluid baseline, mean over seeds."""
        return estimate([_row(one)["baselines"][name] for one in self.ceilings[week, load]]).mean

    def offered(self, week: str, load: float) -> float:
        """What really came ÷ the cluster's peak."""
        return estimate(self.runs.offered_ratios((week, load, OURS))).mean

    def best_baseline(self, week: str, load: float) -> str:
        """The one with the most within the SLO."""
        return max(BASELINES, key=lambda policy: self.mean(week, load, policy))

    def lead(self, week: str, load: float, other: str | None = None) -> Estimate:
        """Ours less another's, by default the best baseline's, of the same requests."""
        name = self.best_baseline(week, load) if other is None else other
        return lead(self.counts(week, load, OURS), self.counts(week, load, name))

    def way(self, week: str, load: float) -> Estimate | None:
        """Our part of the way from the best baseline to the bound; None: they are as good as one."""
        best, bound = (self._shares(week, load, one) for one in (self.best_baseline(week, load), BOUND))
        gaps = [one - other for one, other in zip(bound, best, strict=True)]
        if sum(gaps) <= CLOSE_RATIO * sum(bound):
            return None
        ours = self._shares(week, load, OURS)
        return ratio_of([one - other for one, other in zip(ours, best, strict=True)], gaps)

    def sustained_way(self, week: str, level: float) -> tuple[str, bool | None]:
        """The same on sustained load, and whether the goal is met; None: the loads run do not say."""
        bound, ours = self.crossing(week, BOUND, level), self.crossing(week, OURS, level)
        name = self.best_sustained(week, level)
        best = self.crossing(week, name, level)
        if bound.kind == "below":
            return "the bound has less too", None
        if ours.kind != best.kind and _order(ours) < _order(best):
            return f"less than `{name}`", False
        if ours.kind != "at":
            return "not bracketed by the loads that were run", None
        part = way(ours.load, best.load, bound.load)
        if best.kind == bound.kind == "at":
            if part is None:
                lead = ours.load - best.load
                return f"baseline within 2 % of the bound, lead {lead:+.3f}", lead >= 0
            return f"{part:.0%}", part >= WAY_GOAL
        if part is None or best.kind == "above" or (best.kind == "below" and bound.kind == "above"):
            return "not bracketed by the loads that were run", None
        if best.kind == "below":  # it is lower than that, so our part is larger
            return f"> {part:.0%}", True if part >= WAY_GOAL else None
        return f"< {part:.0%}", False if part < WAY_GOAL else None  # the bound is higher, our part smaller

    def best_sustained(self, week: str, level: float) -> str:
        """The baseline that sustains the most."""
        return max(BASELINES, key=lambda policy: _order(self.crossing(week, policy, level)))

    def best_sustained_text(self, week: str, level: float) -> str:
        """Its load and its name; of baselines that the loads run do not tell apart no name."""
        best = self.best_sustained(week, level)
        found = self.crossing(week, best, level)
        alike = [policy for policy in BASELINES if self.crossing(week, policy, level) == found]
        name = "all" if len(alike) == len(BASELINES) else ", ".join(f"`{policy}`" for policy in alike)
        return f"{self.crossing_text(week, best, level)} ({name})"

    def crossing(self, week: str, policy: str, level: float) -> Crossing:
        """Of a policy's curve, or the bound's."""
        return crossing(self.curve(week, policy), level)

    def crossing_text(self, week: str, policy: str, level: float) -> str:
        """With the least and the most of the seeds' own curves, where there are several."""
        found = self.crossing(week, policy, level).text()
        seeds = range(len(self.setting.seeds))
        if len(seeds) < 2:
            return found
        each = sorted((crossing(self._curve_of(week, policy, seed), level) for seed in seeds), key=_order)
        return f"{found} [{each[0].text()} … {each[-1].text()}]"

    def _curve_of(self, week: str, policy: str, seed: int) -> list[tuple[float, float]]:
        def attained(load: float) -> float:
            if policy == BOUND:
                return float(_row(self.ceilings[week, load][seed])["bound"])
            return self.runs.attained((week, load, policy))[seed]

        loads = self.setting.loads
        return [(self.runs.offered_ratios((week, load, OURS))[seed], attained(load)) for load in loads]

    def full_ratio(self) -> float:
        """What a fluid serves of this mix within the SLO at full power everywhere, ÷ the cluster's peak."""
        found = [
            one["within_slo"]["capacity_at_full_power_ratio"]
            for ones in self.ceilings.values()
            for one in ones
        ]
        return estimate(found).mean

    def curve(self, week: str, policy: str) -> list[tuple[float, float]]:
        """(Load that came, share attained)."""
        return [(self.offered(week, load), self.mean(week, load, policy)) for load in self.setting.loads]


def _order(one: Crossing) -> tuple[int, float]:
    return ("below", "at", "above").index(one.kind), one.load


def _row(ceiling: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ceiling["within_slo"]["by_load"][0]
    return found
