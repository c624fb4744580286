"""What a site's wish is made from. Plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from site_agent.limits import MeanWork
from site_agent.load_watch import LoadWatch
from site_agent.site_model import Layout
from site_agent.situation import Target


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
    later_watts: tuple[float, ...]
    """What the forecast expects the budget to be, each value as likely as the others; empty: unknown."""
    awaited: Layout
    """What a dip empties, or has: it drains or rests, and is back at once."""
    targets: tuple[Target, ...] | None
    load: LoadWatch
    work: MeanWork | None
    """The recent mean request; None: nothing has finished yet."""
    start_seconds: float | None = None
    """How long an engine's start takes, as seen; None: none was seen."""
