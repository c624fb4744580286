"""What breaks in a run, and how it mends: crashes of sites, trips of farms, a Redis that does not answer.

Rule: what holds at an instant is worked out from all faults under way, so that two of them that overlap end
when the last one does. A crashed agent whose server was switched off meanwhile stays down until it is booted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from simulator.events import Events
from simulator.feed import SimulatedFarm
from simulator.settings import Fault
from simulator.site import SimulatedSite


class Faults:
    """One per run."""

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        events: Events,
        sites: Mapping[str, SimulatedSite],
        farms: Mapping[str, SimulatedFarm],
        on_store: Callable[[bool], None],
        on_heard: Callable[[str], None],
    ) -> None:
        """`on_store`: whether Redis answers at all; `on_heard`: a site's own link to it is back."""
        self.silent_since: dict[str, float] = {}
        """Sites whose link to Redis is down."""
        self._under_way: list[Fault] = []
        self._events = events
        self._sites = sites
        self._farms = farms
        self._on_store = on_store
        self._on_heard = on_heard
        for fault in faults:
            events.at(fault.at_seconds, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        self._under_way.append(fault)
        self._events.after(fault.seconds, self._end, fault)
        self._apply()

    def _end(self, fault: Fault) -> None:
        self._under_way.remove(fault)
        self._apply()

    def _apply(self) -> None:
        """Bring everything in line with what is under way."""
        self._on_store(not any(one.kind == "silence" and one.site_id is None for one in self._under_way))
        for farm in self._farms.values():
            names = {None, *(site.site_id for site in farm.sites)}
            farm.is_tripped = any(one.kind == "trip" and one.site_id in names for one in self._under_way)
        for site_id, site in self._sites.items():
            kinds = {one.kind for one in self._under_way if one.site_id in (None, site_id)}
            if "crash" in kinds:
                site.crash("fault")
            else:
                site.recover("fault")
            if "silence" in kinds:
                self.silent_since.setdefault(site_id, self._events.now)
            elif self.silent_since.pop(site_id, None) is not None:
                self._on_heard(site_id)
