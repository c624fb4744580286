"""Which requests are worth their place while there is too little for all: a threshold by cost. Pure.

A site that sustains r requests of a kind per second within their SLO spends 1 ÷ r seconds on each. What this
router sends there adds up to a backlog of such seconds, and the site works it off as time goes by. A request
whose kind costs c may go there while the backlog is below

    burst_seconds × min(MOST_BURSTS, (mean cost ÷ c) ^ cheapness_exponent)

so where more comes than a site can answer in time, none is sent there to be late, and each request's place
goes to those that need least: as every answer in time counts alike, that is what the clairvoyant bound does
too (`router.policy.planner.bound`). In telephony the rule is called trunk reservation (P. B. Key, "Optimal
control and trunk reservation in loss networks", Probability in the Engineering and Informational Sciences 4,
1990), there with free lines in place of seconds.

Workers of one router share what each site has before it. Other routers send to the same sites: of a site's
time this one counts on the share that its own requests have of those that run there. A report is of before:
what runs there beyond the most that this router has had there of late is of others, and no less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.policy.load import Load

MOST_BURSTS = 4.0
"""The cheapest may use so much more than the mean."""
PATIENCE_RATIO = 0.6
"""Of the time that a request has to spare, how much it waits for a site that is open to it; the rest is for
what it meets there. With all of it a fifth of those that waited came too late (docs/decisions/0017)."""
MOST_BEYOND_SECONDS = 2.0
"""Kept in mind beyond the largest burst: what goes on at any cost (resumes) shuts others out no longer."""
COST_WEIGHT = 0.005
"""Of each request in the mean cost: the last two hundred or so."""
SHARE_WEIGHT = 0.2
"""Of each report in this router's share of a site."""
LEAST_SHARE = 1 / 64
OWN_MEMORY_SECONDS = 30.0
"""For so long at least, and up to twice that, the most that this router has had at a site is kept in mind;
a report that is older is not acted upon while there are others."""
FEW_RUNNING = 4
"""With fewer there, a share says nothing; but then neither is anything scarce."""
MAX_SITES = 20_000
"""Beyond that all shares are forgotten."""


@dataclass(slots=True)
class _There:
    """This router at one site."""

    since: float
    share: float = 1.0
    most_own: int = 0
    """Since then."""
    most_own_before: int = 0
    """In the time before that."""

    def reported(self, own_requests: int, running_requests: float, now: float) -> None:
        if not 0.0 <= now - self.since < OWN_MEMORY_SECONDS:  # or a clock that jumped back
            self.since, self.most_own_before, self.most_own = now, self.most_own, 0
        self.most_own = max(self.most_own, own_requests)
        of_others = running_requests - max(self.most_own, self.most_own_before)
        share = 1.0
        if of_others > 0.0 and running_requests >= FEW_RUNNING:
            share = max(LEAST_SHARE, own_requests / (own_requests + of_others))
        self.share += SHARE_WEIGHT * (share - self.share)


@dataclass(slots=True, kw_only=True)
class Triage:
    """The rule; what each site has before it is in its `Load`, which all workers share. Costs are seconds of
    the site's time."""

    burst_seconds: float
    cheapness_exponent: float
    utilisation: float
    """How much of a site's time is given away."""
    _mean_seconds: float | None = None
    _there: dict[str, _There] = field(default_factory=dict)

    def note(self, costs: Sequence[float]) -> None:
        """A request came that would cost this much at the sites that could take it."""
        if costs:
            cost = sum(costs) / len(costs)
            mean = self._mean_seconds
            self._mean_seconds = cost if mean is None else mean + COST_WEIGHT * (cost - mean)

    def is_open(self, load: Load, cost_seconds: float, now: float) -> bool:
        """Whether a request of this cost may go there now."""
        left = load.work_left_seconds(now)
        if left <= 0.0:
            return True
        bursts: float = ((self._mean_seconds or cost_seconds) / cost_seconds) ** self.cheapness_exponent
        return left * self.utilisation < self.burst_seconds * min(MOST_BURSTS, bursts)

    def is_any_open(self, costs: Sequence[tuple[Load, float]], now: float) -> bool:
        """Whether a request may go to any of these, each with what it costs there: `is_open`, for all that
        wait, many times a second."""
        mean, exponent, utilisation = self._mean_seconds, self.cheapness_exponent, self.utilisation
        burst = self.burst_seconds
        for load, cost in costs:
            left = load.work_left_seconds(now)
            if left <= 0.0:
                return True
            bursts: float = ((mean or cost) / cost) ** exponent
            if left * utilisation < burst * (bursts if bursts < MOST_BURSTS else MOST_BURSTS):
                return True
        return False

    def give(self, load: Load, site_id: str, cost_seconds: float, now: float) -> None:
        """A request of this cost went there: the site works it off in this router's share of its time."""
        there = self._there.get(site_id)
        seconds = cost_seconds / (self.utilisation * (1.0 if there is None else there.share))
        most = MOST_BURSTS * self.burst_seconds / self.utilisation + MOST_BEYOND_SECONDS
        load.give_work(seconds, now, most)

    def reported(
        self, site_id: str, *, own_requests: int, running_requests: float | None, now: float
    ) -> None:
        """A site reported what runs there; so much of it is this router's, all workers together."""
        if running_requests is None:
            return
        there = self._there.get(site_id)
        if there is None:
            if len(self._there) >= MAX_SITES:
                self._there.clear()
            there = self._there[site_id] = _There(now)
        there.reported(own_requests, running_requests, now)
