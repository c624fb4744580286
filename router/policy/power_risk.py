"""What becomes of work at a site when its power goes where a forecast says it may. Pure.

Two figures, for an instant to come: the part of the work that the site could then no longer carry (it breaks
off), and how much slower the rest runs, because the site lowers its clocks first (DESIGN §7, the ladder). Of
three quantiles the mean is 0.3 · p10 + 0.4 · p50 + 0.3 · p90 (Swanson's rule).

The instant is that of the end: a dip that is over by then is not seen, nor is one that a request meets later
than expected. The site itself decides what it breaks; this only says what to expect.
"""

from __future__ import annotations

from typing import NamedTuple

from router.policy.outlook import Quantiles

SWANSON = (0.3, 0.4, 0.3)
LEAST_DYNAMIC_RATIO = 0.335
"""Draw above idle at the lowest clock, as part of that at full clock: 0.25 + 0.75 · (800 ÷ 1980)^2.4
(FACTS.md, a fluid estimate). A site cannot go below it without breaking work off."""
LEAST_SPEED_RATIO = 0.66
"""Tokens per second there: 1 ÷ (0.65 + 0.35 · 1980 ÷ 800)."""


class PowerNeed(NamedTuple):
    """A site's draw as its report says, and what turns a grant into its cap."""

    draw_watts: float
    idle_watts: float
    """With every engine stopped."""
    margin_ratio: float
    safe_floor_watts: float


class Risk(NamedTuple):
    """Of work that ends at some instant."""

    lost_ratio: float
    """The part of it that breaks off: a request's chance to."""
    slow_ratio: float
    """Time it takes ÷ time it takes now, at least 1."""


NO_RISK = Risk(0.0, 1.0)


def risk_of(need: PowerNeed, watts: Quantiles) -> Risk:
    """What to expect where the grant will be one of these; `NO_RISK` itself where each of them is enough."""
    draw, idle, margin_ratio, safe_floor = need
    used = 1.0 - margin_ratio
    if watts.p10_watts * used >= draw:
        return NO_RISK
    lost = speed = 0.0
    floor = idle + (draw - idle) * LEAST_DYNAMIC_RATIO
    for weight, granted in zip(SWANSON, watts, strict=True):
        cap = max(granted * used, safe_floor)
        if cap >= draw:
            speed += weight
        elif cap >= floor:
            speed += weight * (LEAST_SPEED_RATIO + (cap - floor) / (draw - floor) * (1.0 - LEAST_SPEED_RATIO))
        else:
            lost += weight * (floor - cap) / floor
            speed += weight * LEAST_SPEED_RATIO
    return Risk(min(1.0, lost), 1.0 / speed)
