"""A request's place at a site: taken when the site is chosen, given back exactly once."""

from __future__ import annotations

from router.live.sites import SiteEntry
from router.policy.load import Load
from router.policy.snapshot import ModelView


class Placement:
    """While it is held the request counts as in flight at the site."""

    __slots__ = ("entry", "is_released", "load", "probe", "view")

    def __init__(
        self, entry: SiteEntry, load: Load, view: ModelView, now: float, *, may_probe: bool = True
    ) -> None:
        self.entry = entry
        self.load = load
        self.view = view
        self.is_released = False
        entry.in_flight += 1
        entry.requests += 1
        load.begin()
        self.probe = 0 if entry.breaker.state == "closed" or not may_probe else entry.breaker.begin(now)
        """Its number where it asks whether the site is well again: only it may say so."""

    def begun(self) -> None:
        """The first of an answer is there: a probe need not wait for the end of a long one."""
        if self.probe:
            self.entry.breaker.succeed(self.probe)

    def release(self) -> bool:
        """Give it back; False if that was done before."""
        if self.is_released:
            return False
        self.is_released = True
        if self.probe:  # one that came to no verdict frees its place
            self.entry.breaker.give_up(self.probe)
        self.entry.in_flight -= 1
        self.load.end()
        return True
