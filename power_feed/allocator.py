"""Splits a farm's power between its sites (DESIGN §8). Pure: time is an argument.

Shares are the farm's packing lever: servers are filled one after the other, and one that would not get its
idle draw gets nothing, since power below it is worth nothing. The rules, each of them a property test:

* grants never sum to more than what is there;
* a site gets nothing, or at least its `min_grant_watts`. One that lost its power rests for `rest_seconds`,
  and starts only where a tenth more than its least is there for it, so that it does not flap;
* a site that has power keeps it before one that has none gets any;
* a cut is at once, a rise only by free watts: what is there, less for every other site what it may still draw
  (`counted_watts`): the larger of its grant, its last reported draw and, as long as it has not heard of a
  cut, what it had before. So a share is raised only after the shrinking ones have shrunk;
* a site that cannot be heard counts at that until its own walk-down must be over (10 T) and, where its grant
  is taken only then, its ride-through after that: it may hear the feed by Redis. Then it counts at its idle
  draw, or at 0 once its server is off; it is granted nothing new, unless a switch can start it. One whose
  agent has the feed's stream open hears its grants, whether or not its reports come, so it keeps its power;
* a cut counts as heard by a report that can only have been written since; or by a stream, a ride-through
  after it was opened anew, or after a dead one would have been noticed.

A draw that a site's firm power covers is not the farm's, and counts 0. A farm with one site has nobody to
share with: what cannot be heard keeps its grant there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fleet.power import MAX_PERIOD_WITHOUT_FEED_SECONDS, MIN_PERIOD_SECONDS, WALK_END_PERIODS
from power_feed.server_switch import NO_SWITCH, ServerState

SILENT_SECONDS = 3.0
"""Without a new report for so long, a site is not heard (DESIGN §4: fresh ≤ 3 s)."""
SETTLE_SECONDS = 0.5
"""A report that comes sooner after a cut may have been written before the site heard of it."""
LATE_SECONDS = 3.0
"""A report may be on its way for so long: one that comes sooner after a raise may be of before it."""
STREAM_DEATH_SECONDS = 12.0
"""A stream whose other side is gone looks open for up to so long: the port's 10 s, and two for its timers."""
RIDE_THROUGH_SECONDS = 5.0
"""Within which a site is down at a cut grant; where neither its cap nor its draw is known, that must do."""
START_MARGIN_RATIO = 0.1
"""A site without power starts only where so much more than its least is there for it."""
REST_SECONDS = 30.0
"""A site that lost its power gets none for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteClaim:
    """What is known of one site now. `None` is unknown, never zero."""

    site_id: str
    priority: int = 0
    """Lower is filled first; ties in the order of the sequence."""
    min_grant_watts: float = 0.0
    """Least grant that is worth anything: its idle draw ÷ (1 − its cap's margin)."""
    max_grant_watts: float = float("inf")
    """Most that it can use."""
    idle_watts: float = 0.0
    """Its draw with every engine stopped."""
    firm_watts: float = 0.0
    """Its safe floor: a draw up to it is not the farm's."""
    share: float | None = None
    """Of `Plan.shares`; None: no plan knows the site."""
    server: ServerState = NO_SWITCH
    """Of its switch, where it has one: one that starts keeps its grant, one that may be off or booting can
    have one."""
    is_listening: bool = True
    """Whether its agent has the feed's stream open, so that it hears its grants."""
    heard_at: float | None = None
    """When its last report came (monotonic); None: never."""
    draw_watts: float | None = None
    """Of that report."""
    cap_watts: float | None = None
    """Of that report: what it believes that it may draw."""
    believed_grant_watts: float | None = None
    """What it says that it was granted, for an allocator that sees it for the first time."""
    ride_through_seconds: float = RIDE_THROUGH_SECONDS


@dataclass(slots=True, kw_only=True)
class _Account:
    """What the allocator remembers of a site."""

    known_at: float
    """When it was last heard or seen listening; at first when the allocator began."""
    granted_watts: float = 0.0
    held_watts: float = 0.0
    """The most of the farm's that it may still draw, its grant aside."""
    cut_at: float = float("-inf")
    raised_at: float = float("-inf")
    """Or when its stream was opened: a cap that had walked down rises by that."""
    raised_before_cut_at: float = float("-inf")
    """The last raise before the last cut."""
    is_restored: bool = False
    """Known from the store alone, and not yet compared with what the site says."""
    listening_at: float | None = None
    """Since when, without a break, its stream is open; None: it is not."""
    emptied_at: float = float("-inf")
    heard_at: float | None = None
    """Of the report that was taken in last."""


def fill(
    farm_watts: float,
    sites: Sequence[SiteClaim],
    *,
    least_watts: Callable[[SiteClaim], float] = lambda site: site.min_grant_watts,
    most_watts: Callable[[SiteClaim], float] = lambda site: site.max_grant_watts,
) -> dict[str, float]:
    """What each site would have of `farm_watts`, in the order given; sums to at most that much.

    Cases, in order: each site that a plan gives a share gets it; what is left tops up those that got
    something; then the others are filled one by one, but for those whose share is 0. Nobody gets less than
    its least.
    """
    watts = max(0.0, farm_watts)
    grants = dict.fromkeys([site.site_id for site in sites], 0.0)
    left = watts

    def give(site: SiteClaim, wanted: float) -> None:
        nonlocal left
        has = grants[site.site_id]
        grant = min(most_watts(site), wanted, has + left)
        if grant > has and grant >= least_watts(site):
            grants[site.site_id] = grant
            left = max(0.0, left - (grant - has))

    has_shares = False
    for site in sites:
        if site.share is not None:
            has_shares = True
            give(site, watts * site.share)
    if has_shares:
        for site in sites:
            if grants[site.site_id] > 0:
                give(site, math.inf)
    for site in sites:
        if grants[site.site_id] <= 0 and site.share != 0:
            give(site, math.inf)
    return grants


@dataclass(slots=True, kw_only=True)
class Allocator:
    """One farm's; remembers what it granted."""

    period_seconds: float = MAX_PERIOD_WITHOUT_FEED_SECONDS
    """T: wall seconds between two measurements of the farm's source."""
    rest_seconds: float = REST_SECONDS
    start_margin_ratio: float = START_MARGIN_RATIO
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _began_at: float | None = None

    @property
    def walk_seconds(self) -> float:
        """After so long without the feed a site's own walk-down is over (10 T, as in `CapTracker`)."""
        period = min(max(self.period_seconds, MIN_PERIOD_SECONDS), MAX_PERIOD_WITHOUT_FEED_SECONDS)
        return WALK_END_PERIODS * period

    def granted_watts(self, site_id: str) -> float:
        """What a site was granted last; 0 where nothing ever was."""
        account = self._accounts.get(site_id)
        return 0.0 if account is None else account.granted_watts

    def counted_watts(self, site_id: str) -> float:
        """What a site may still draw of the farm's, and others hence cannot have."""
        account = self._accounts.get(site_id)
        return 0.0 if account is None else max(account.granted_watts, account.held_watts)

    def restore(self, site_id: str, granted_watts: float, *, now: float) -> None:
        """Before the first `allocate`: what an earlier feed granted, which the site may still draw."""
        self._accounts[site_id] = _Account(
            known_at=now, granted_watts=granted_watts, cut_at=now, is_restored=True
        )

    def allocate(self, farm_watts: float, sites: Sequence[SiteClaim], now: float) -> dict[str, float]:
        """The grants of this moment, by site. `now` is monotonic. A site that is left out is forgotten."""
        self._began_at = now if self._began_at is None else self._began_at
        farm_watts = max(0.0, farm_watts)
        self._accounts = {site.site_id: self._account(site, len(sites)) for site in sites}
        for site in sites:
            self._take_in(site, now)
        ordered = self.in_order(sites)
        targets = self._targets(farm_watts, ordered, now)
        for site in ordered:
            if targets[site.site_id] < self._accounts[site.site_id].granted_watts:
                self._cut(site, targets[site.site_id], now)
        for site in ordered:
            if targets[site.site_id] > self._accounts[site.site_id].granted_watts:
                self._raise(site, targets[site.site_id], farm_watts, now)
        return {site.site_id: self._accounts[site.site_id].granted_watts for site in sites}

    def in_order(self, sites: Sequence[SiteClaim]) -> list[SiteClaim]:
        """The order in which sites are filled: those that have power first, then by priority."""
        return sorted(sites, key=lambda site: (self.granted_watts(site.site_id) <= 0, site.priority))

    def _account(self, site: SiteClaim, sites: int) -> _Account:
        """A site seen for the first time has what it says that an earlier feed granted it; else it may draw
        anything. Where the store and the site differ, the larger counts: a grant may have missed the store.
        """
        account = self._accounts.get(site.site_id)
        if account is None:
            assert self._began_at is not None, "set by allocate"
            account = _Account(known_at=self._began_at, cut_at=self._began_at)
            if site.believed_grant_watts is not None:
                account.granted_watts = min(site.believed_grant_watts, site.max_grant_watts)
            elif sites > 1:
                account.held_watts = site.max_grant_watts
        elif account.is_restored:
            account.is_restored = False
            account.held_watts = min(site.believed_grant_watts or 0.0, site.max_grant_watts)
        return account

    def _take_in(self, site: SiteClaim, now: float) -> None:
        """What a site may still draw, from what is known of it now.

        Cases: its server is off; a new report; gone for longer than its walk-down, and its ride-through where
        it was cut only then; no report, but listening.
        """
        account = self._accounts[site.site_id]
        is_new = site.heard_at is not None and site.heard_at != account.heard_at
        account.heard_at = site.heard_at
        account.known_at = max(account.known_at, site.heard_at or account.known_at)
        if not site.is_listening:
            account.listening_at = None
        elif account.listening_at is None:
            account.listening_at = account.raised_at = now
        if site.is_listening or site.server.is_off or site.server.is_starting:
            account.known_at = now
        if site.server.is_off:
            held = 0.0
        elif is_new:
            held = self._held_by_report(site, account, now)
        elif now - account.known_at >= self.walk_seconds and self._is_ridden_through(site, account, now):
            held = site.idle_watts
        elif self._is_silent(site, now) and site.is_listening:
            held = self._held_in_silence(site, account, now)
        else:
            held = account.held_watts
        account.held_watts = held if held > site.firm_watts else 0.0

    def _held_by_report(self, site: SiteClaim, account: _Account, now: float) -> float:
        """Its draw; and what it had before, until its cap (or, where that is not known, time) shows the
        cut. A cap of before the raise that went before the cut looks as if it did.
        """
        before = max(account.held_watts, account.granted_watts)
        draw = site.draw_watts or 0.0
        is_over = self._is_ridden_through(site, account, now)
        is_late = now - account.raised_before_cut_at < LATE_SECONDS or now - account.cut_at < SETTLE_SECONDS
        if is_late or (site.draw_watts is None and not is_over):
            return max(before, draw)
        if site.cap_watts is not None:
            return max(draw, min(site.cap_watts, before))
        return draw if is_over else max(before, draw)

    def _held_in_silence(self, site: SiteClaim, account: _Account, now: float) -> float:
        """A site that hears the feed: its last draw, until 10 T after that report; then idle, or its
        grant.
        """
        assert account.listening_at is not None, "set by _take_in"
        was_told_at = max(account.listening_at, account.cut_at)
        if account.listening_at < account.cut_at:
            was_told_at += STREAM_DEATH_SECONDS
        if now - was_told_at <= site.ride_through_seconds:
            return account.held_watts
        heard_at = site.heard_at if site.heard_at is not None else float("-inf")
        if now - heard_at >= self.walk_seconds:
            return site.idle_watts
        return min(account.held_watts, site.draw_watts or 0.0)

    @staticmethod
    def _is_ridden_through(site: SiteClaim, account: _Account, now: float) -> bool:
        """Whether it is down at its grant, if it heard of the last cut."""
        return now - account.cut_at > site.ride_through_seconds

    @staticmethod
    def _is_silent(site: SiteClaim, now: float) -> bool:
        return site.heard_at is None or now - site.heard_at > SILENT_SECONDS

    def _targets(self, farm_watts: float, ordered: Sequence[SiteClaim], now: float) -> dict[str, float]:
        """What each site should have, hysteresis and silence counted in."""
        is_alone = len(ordered) == 1

        def most(site: SiteClaim) -> float:
            account = self._accounts[site.site_id]
            server = site.server
            if is_alone or site.is_listening or not self._is_silent(site, now):
                return site.max_grant_watts
            if server.is_resting:
                return 0.0
            if server.is_off or server.is_starting or server.is_unheard or server.is_lost:
                return site.max_grant_watts
            is_gone = now - account.known_at >= self.walk_seconds
            return 0.0 if is_gone else min(account.granted_watts, site.max_grant_watts)

        return fill(
            farm_watts, ordered, least_watts=lambda site: self._least_watts(site, now), most_watts=most
        )

    def _least_watts(self, site: SiteClaim, now: float) -> float:
        account = self._accounts[site.site_id]
        if account.granted_watts > 0 or site.min_grant_watts <= 0:
            return site.min_grant_watts
        if now - account.emptied_at < self.rest_seconds:
            return float("inf")
        return min(site.min_grant_watts * (1 + self.start_margin_ratio), site.max_grant_watts)

    def _cut(self, site: SiteClaim, target: float, now: float) -> None:
        account = self._accounts[site.site_id]
        if not site.server.is_off:
            account.held_watts = max(account.held_watts, account.granted_watts)
            account.cut_at = now
            account.raised_before_cut_at = account.raised_at
        account.granted_watts = target
        if target <= 0:
            account.emptied_at = now

    def _raise(self, site: SiteClaim, target: float, farm_watts: float, now: float) -> None:
        account = self._accounts[site.site_id]
        others = sum([self.counted_watts(other) for other in self._accounts if other != site.site_id])
        grant = min(target, farm_watts - others)
        if grant > account.granted_watts and grant >= self._least_watts(site, now):
            account.granted_watts = grant
            account.raised_at = now
