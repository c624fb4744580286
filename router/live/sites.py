"""What this router knows and counts of each site beyond the snapshot: where it is, its breaker, its load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from fleet.records import MAX_SITE_MODELS
from gateway.upstream import Origin
from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.shared_load import Shared

MAX_SITE_LOADS = 2 * MAX_SITE_MODELS
"""Models of one site that a load is kept of: all of its newest report and of the one before. More only while
requests for others are in flight there."""
SITE_OUTCOMES = ("answered", "pushback", "failed", "broken")


@dataclass(slots=True, eq=False)
class SiteEntry:
    """One site; lives as long as the site is known."""

    site_id: str
    origin: Origin
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    requests: int = 0
    """Sent there, resumes and retries too."""
    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SITE_OUTCOMES, 0))
    is_told_open: bool = False
    """Operators were told that its breaker is open."""
    pushbacks: dict[str, int] = field(default_factory=dict)
    """By reason."""
    loads: dict[str, Load] = field(default_factory=dict)
    """By model, in the order in which reports told of them last."""


class SiteRegistry:
    """All sites' entries, and per model the load this router has put on each."""

    def __init__(self, shared: Callable[[str, str], Shared | None] = lambda _site_id, _model: None) -> None:
        """`shared`: (site, model) → what workers share of it, None where it is this process's alone."""
        self._shared = shared
        self.entries: dict[str, SiteEntry] = {}
        self.loads: dict[str, dict[str, Load]] = {}
        """model → site → load."""

    def entry(self, site_id: str, origin: Origin) -> SiteEntry:
        """The site's entry, made if new; its origin is kept current."""
        entry = self.entries.get(site_id)
        if entry is None:
            entry = self.entries[site_id] = SiteEntry(site_id, origin)
        entry.origin = origin
        return entry

    def load(self, model: str, entry: SiteEntry) -> Load:
        """This router's load of `model` there, made if new. Called for every model of a report; where that
        makes too many, those that none has told of for longest go, unless requests are in flight there.
        """
        load = entry.loads.pop(model, None)
        if load is None:
            load = Load(entry.breaker, entry.site_id)
            self.loads.setdefault(model, {})[entry.site_id] = load
            shared = self._shared(entry.site_id, model)
            if shared is not None:
                load.share(shared)
        entry.loads[model] = load
        if len(entry.loads) > MAX_SITE_LOADS:
            oldest = islice(entry.loads.items(), len(entry.loads) - MAX_SITE_LOADS)
            for idle in [name for name, other in oldest if not other.in_flight]:
                del entry.loads[idle]
                self._take_out(idle, entry.site_id)
        return load

    def forget(self, site_id: str) -> None:
        """The site is no longer known. Requests still in flight there end on their own references."""
        entry = self.entries.pop(site_id, None)
        for model in entry.loads if entry is not None else ():
            self._take_out(model, site_id)

    def _take_out(self, model: str, site_id: str) -> None:
        del self.loads[model][site_id]
        if not self.loads[model]:
            del self.loads[model]
