"""What this router knows and counts of each site beyond the snapshot: where it is, its breaker, its load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.upstream import Origin
from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.shared_load import Shared

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
        """This router's load of `model` there, made if new."""
        loads = self.loads.setdefault(model, {})
        load = loads.get(entry.site_id)
        if load is None:
            load = loads[entry.site_id] = Load(entry.breaker, entry.site_id)
            shared = self._shared(entry.site_id, model)
            if shared is not None:
                load.share(shared)
        return load

    def forget(self, site_id: str) -> None:
        """The site is no longer known. Requests still in flight there end on their own references."""
        self.entries.pop(site_id, None)
        for model in list(self.loads):
            self.loads[model].pop(site_id, None)
            if not self.loads[model]:
                del self.loads[model]
