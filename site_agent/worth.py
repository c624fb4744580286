"""What a configuration is worth: the requests per second that it ends within their SLO. Pure.

Watts and tokens per second are not it: at tensor-parallel 2 the KV cache holds so little that four instances
make more tokens than two at 4, and a fifth of the answers in time. Rates are `fleet.capacity`'s, for the
site's recent mean request, on a coarse grid, so that a mean that drifts does not make every figure new.

Where no configuration meets the SLO the rate however late decides, and where a request fits nowhere tokens
per second do; both count so little beside the first that they only break ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet.capacity import Slo, Work, reference_slo, requests_per_second
from site_agent.limits import MeanWork
from site_agent.site_model import Configuration, Layout, SiteModel

TYPICAL_WORK = Work(prompt_tokens=1024.0, output_tokens=128.0)
"""Until something has finished here: a conversation's (FACTS: Azure's traces)."""
GRID = 1.25
SLO_FACTOR = 5.0
"""Of one request alone on the fastest degree, where the site's configuration names no SLO."""
POOR_RATIO = 0.5
"""A degree that does less than this part of the best one's at full power is not chosen, even where power is
too little for any other: a few slow requests a minute draw as much as many, and mislead routers (decision
18)."""
LATE_WORTH, TOKEN_WORTH = 1e-3, 1e-9


@dataclass(slots=True, kw_only=True)
class Worth:
    """One per site."""

    model: SiteModel
    _work: Work = TYPICAL_WORK
    _slo: Slo | None = None
    _rates: dict[tuple[int, int], float] = field(default_factory=dict)
    """(degree, clock) → of one instance, for this work."""
    _good: tuple[int, ...] = ()
    """The good degrees for this work; empty: not looked for yet."""

    def learn(self, work: MeanWork | None) -> None:
        """The recent mean request; None: nothing has finished yet."""
        found = self._work if work is None else _on_grid(work)
        if found is not self._work and found != self._work:
            self._work, self._slo, self._good = found, None, ()
            self._rates.clear()

    def of(self, layout: Layout, clock_mhz: int) -> float:
        """Of all its instances."""
        total = 0.0
        for degree, count in layout:
            rate = self._rates.get((degree, clock_mhz))
            if rate is None:
                rate = self._rates[degree, clock_mhz] = self._rate(degree, clock_mhz)
            total += count * rate
        return total

    def under(self, layout: Layout, budget_watts: float) -> float:
        """At the highest clock that fits; 0 where none does."""
        clock = self.model.clock_that_fits(layout, budget_watts) if layout else None
        return 0.0 if clock is None else self.of(layout, clock)

    def best(self, layouts: Iterable[Layout], budget_watts: float) -> Configuration:
        """The worthiest of these that fits, at its clock; the first of equals. Empty where none fits."""
        best: Layout = ()
        best_clock, most = self.model.lowest_clock_mhz, 0.0
        for layout in layouts:
            clock = self.model.clock_that_fits(layout, budget_watts) if layout else None
            if clock is not None and (worth := self.of(layout, clock)) > most:
                best, best_clock, most = layout, clock, worth
        return Configuration(layout=best, clock_mhz=best_clock)

    def good_degrees(self) -> Sequence[int]:
        """Those that do not do less than `POOR_RATIO` of the best one's at full power; the own one first."""
        if not self._good:
            self._good = self._find_good()
        return self._good

    def _find_good(self) -> tuple[int, ...]:
        model, full = self.model, {}
        for degree in model.profiles:
            counts = range(model.most(degree), 0, -1)
            full[degree] = self.best((model.uniform(count, degree) for count in counts), math.inf)
        worth = {degree: self.of(one.layout, one.clock_mhz) for degree, one in full.items()}
        most = max(worth.values())
        return tuple(degree for degree in worth if worth[degree] >= POOR_RATIO * most)

    @property
    def work(self) -> Work:
        """The request that it is for."""
        return self._work

    def _rate(self, degree: int, clock_mhz: int) -> float:
        model, work = self.model, self._work
        profile, most = model.profiles[degree], model.concurrency[degree]
        slo = self._slo
        if slo is None:
            slo = self._slo = model.slo or reference_slo(model.profiles.values(), work, SLO_FACTOR)
        in_time = requests_per_second(profile, clock_mhz, work, max_concurrency=most, slo=slo)
        late = requests_per_second(profile, clock_mhz, work, max_concurrency=most)
        tokens = model.output_tokens_per_second(model.uniform(1, degree), clock_mhz)
        return in_time + LATE_WORTH * late + TOKEN_WORTH * tokens


def _on_grid(work: MeanWork) -> Work:
    return Work(prompt_tokens=_rounded(work.prompt_tokens), output_tokens=_rounded(work.output_tokens))


def _rounded(tokens: float) -> float:
    return max(1.0, GRID ** round(math.log(max(1.0, tokens), GRID)))
