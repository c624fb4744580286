"""What of a site's cap admission counts as taken, and when it looks at that again. Pure.

Rules:

* the draw is the measured one, but never below the model: what came in is modelled at once, measured later;
* what has ended is still measured for a while. So what the model says has gone since is taken off the
  measured draw: a request in its place makes no more of it than was measured;
* no request is refused for want of power by figures of an earlier moment: they are brought up to date first.

The agent and the simulator run this same code.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from site_agent.instance import Instance
from site_agent.recent import RecentMost
from site_agent.slots import Ask, Pushback, Slots

SETTLING_SECONDS = 1.0
"""What has ended is measured for so long: GPUs and their readings lag, some by a second."""


@dataclass(slots=True, kw_only=True)
class ExpectedDraw:
    """Remembers what the model said of late."""

    meter_lag_seconds: float = 0.0
    """By how much the meter is late beyond that."""
    _most: RecentMost = field(init=False)

    def __post_init__(self) -> None:
        self._most = RecentMost(hold_seconds=SETTLING_SECONDS + self.meter_lag_seconds)

    def note(self, modelled_watts: float, now: float) -> None:
        """What the model says now, before some of it ends."""
        self._most.observe(modelled_watts, now)

    def watts(self, *, modelled_watts: float, draw_watts: float, now: float) -> float:
        """What the site will draw once its GPUs and its meter show what runs; for `Slots.set_power`."""
        gone = self._most.observe(modelled_watts, now) - modelled_watts
        return max(modelled_watts, draw_watts - gone)


def choose_again(
    slots: Slots, ask: Ask, tried: Container[str] = (), *, look_again: Callable[[], None]
) -> Instance | Pushback:
    """`Slots.choose`; where power is short, once more after `look_again` has told `slots` of this moment."""
    chosen = slots.choose(ask, tried)
    if isinstance(chosen, Pushback) and chosen.reason == "power":
        look_again()
        chosen = slots.choose(ask, tried)
    return chosen
