"""The console: looks at the fleet once a second, tells what changed, and shows it to who watches.

Rule: nothing of it is on a request's path. Without a watcher it costs one bounded look a second
(SITES_PER_TICK sites); a page is made once a second for all watchers together. A watcher that does not read
misses states and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from router.console.facts import Counters, PlanFacts, RouterFacts, SiteFacts
from router.console.page import console_page, rows_shown, trends
from router.console.rates import TREND_STEP_SECONDS, RouterRates, SiteRates
from router.console.site_row import SiteRow
from router.console.status import site_status
from router.console.timeline import Happening, Timeline
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.planner import Planner
from router.live.site_counts import SiteCounts, no_counts

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SITES_PER_TICK = 200
"""Some 1.5 milliseconds, measured; of a larger fleet each tick looks at the next part."""
MAX_WATCHERS = 32
"""Pages open at once; further ones are told so, and ask again."""


class ConsoleSource(Protocol):
    """What the router says of itself: one process of itself, a parent for its workers. Never waits."""

    def counters(self) -> Counters:
        """Everything that only grows."""

    def router_facts(self) -> RouterFacts:
        """The router as it is."""

    def site_counts(self, site_ids: Sequence[str]) -> Mapping[str, SiteCounts]:
        """What was sent to these sites."""


class TooManyWatchersError(Exception):
    """MAX_WATCHERS pages are open."""


class Console:
    """One per router."""

    def __init__(
        self,
        source: ConsoleSource,
        view: FleetView,
        events: EventRing,
        *,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._view = view
        self._events = events
        self._clock = clock
        self._unix_clock = unix_clock
        self._timeline = Timeline()
        self._rates = RouterRates()
        self._sites: dict[str, SiteRow] = {}
        self._next = 0
        self._counters = Counters()
        self._is_store_up: bool | None = None
        self._store_since = unix_clock()
        self._ticked = asyncio.Event()
        self._page = b"{}"
        """Of the last tick; kept only while somebody watches."""
        self._page_at = float("-inf")
        self._trends = b"{}"
        self._trends_at = float("-inf")
        self.watchers = 0
        self._is_closed = False

    async def run(self) -> None:
        """Look once a second until cancelled. A fault here is logged and harms no request."""
        while True:
            try:
                self.tick()
            except Exception:
                logger.exception("the console could not look at the fleet")
            await asyncio.sleep(TICK_SECONDS)

    def close(self) -> None:
        """End every stream: the router is about to end."""
        self._is_closed = True
        self._ticked.set()

    def tick(self) -> None:
        """Look at the next part of the fleet, and tell what happened."""
        now, unix_now = self._clock(), self._unix_clock()
        known = self._view.known_sites()
        self._forget(known)
        part = self._part(known)
        counts = self._source.site_counts(part)
        for site_id in part:
            self._look(site_id, counts.get(site_id) or no_counts(), now, unix_now)
        counters = self._counters = self._source.counters()
        self._rates.take(counters, now)
        router = self._source.router_facts()
        if router.is_store_up is not self._is_store_up:
            self._is_store_up, self._store_since = router.is_store_up, unix_now
        for happening in self._timeline.take_fleet(counters, router.held, router.plan, now):
            self._tell(happening)
        if self.watchers:
            self._make_page(router, now, unix_now)
        self._ticked.set()
        self._ticked = asyncio.Event()

    def _part(self, known: Sequence[str]) -> Sequence[str]:
        if len(known) <= SITES_PER_TICK:
            return known
        if self._next >= len(known):
            self._next = 0
        part = known[self._next : self._next + SITES_PER_TICK]
        self._next += SITES_PER_TICK
        return part

    def _forget(self, known: Sequence[str]) -> None:
        if len(self._sites) > len(known) or self._sites.keys() - known:
            left = set(known)
            self._sites = {site_id: kept for site_id, kept in self._sites.items() if site_id in left}
            self._timeline.keep_only(left)

    def _look(self, site_id: str, counts: SiteCounts, now: float, unix_now: float) -> None:
        facts = self._facts(site_id, counts)
        if facts is None:
            return
        status = site_status(facts, now)
        kept = self._sites.get(site_id)
        if kept is None:
            kept = self._sites[site_id] = SiteRow(
                facts=facts, status=status, since_unix_seconds=unix_now, rates=SiteRates()
            )
        if kept.status.name != status.name:
            kept.since_unix_seconds = unix_now
        kept.facts, kept.status = facts, status
        kept.rates.take(facts.requests, now)
        draw = cap = None
        if facts.report is not None and status.name != "silent":
            draw, cap = facts.report.power.draw_watts, facts.report.power.cap_watts
        kept.rates.take_watts(draw, cap, now)
        for happening in self._timeline.take_site(facts, status, now):
            self._tell(happening)

    def _facts(self, site_id: str, counts: SiteCounts) -> SiteFacts | None:
        kept = self._view.records(site_id)
        if kept is None:
            return None
        return SiteFacts(
            site_id=site_id,
            report=kept.report,
            info=kept.info,
            power=kept.power,
            view=self._view.snapshot.sites.get(site_id),
            arrived_at=kept.arrived_at,
            clock_skew_seconds=kept.skew_seconds,
            is_clock_off=kept.is_skewed,
            breaker=counts["breaker"],
            in_flight=counts["in_flight"],
            requests=counts["requests"],
            results=counts["results"],
            pushbacks=counts["pushbacks"],
            in_flight_by_model=counts["models"],
        )

    def _tell(self, happening: Happening) -> None:
        self._events.add(happening.kind, happening.text, site_id=happening.site_id, level=happening.level)

    # what watchers get
    def _rows(self) -> list[SiteRow]:
        return [row for _, row in sorted(self._sites.items())]

    def _make_page(self, router: RouterFacts, now: float, unix_now: float) -> None:
        page = console_page(
            router,
            self._rows(),
            counters=self._counters,
            minute=self._rates.last_minute(),
            store_since_unix_seconds=self._store_since,
            now=now,
            unix_now=unix_now,
        )
        self._page = orjson.dumps(page)
        self._page_at = now

    def _fresh_page(self) -> bytes:
        """The page of the last tick, made now where nobody watched then."""
        now = self._clock()
        if now - self._page_at > TICK_SECONDS:
            self._make_page(self._source.router_facts(), now, self._unix_clock())
        return self._page

    def whole(self) -> bytes:
        """State, trends and all events, as one JSON object."""
        now = self._clock()
        if now - self._trends_at >= TREND_STEP_SECONDS:
            self._trends, self._trends_at = orjson.dumps(trends(rows_shown(self._rows()))), now
        return _join(self._fresh_page(), self._events.recent(), self._trends)

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events: first everything, then every second the state and what happened since.

        Raises:
            TooManyWatchersError: before the first one, when too many watch already.
        """
        if self.watchers >= MAX_WATCHERS:
            raise TooManyWatchersError(f"{MAX_WATCHERS} pages are open already")
        self.watchers += 1
        try:
            told = self._events.last_number
            yield b"retry: 2000\ndata: %b\n\n" % self.whole()
            while True:
                await self._ticked.wait()
                if self._is_closed:
                    return
                events = self._events.recent(after=told) if self._events.last_number > told else []
                told = self._events.last_number
                yield b"data: %b\n\n" % _join(self._fresh_page(), events, b"null")
        finally:
            self.watchers -= 1


def _join(page: bytes, events: list[dict[str, Any]], trends_json: bytes) -> bytes:
    return b'{"state":%b,"events":%b,"trends":%b}' % (page, orjson.dumps(events), trends_json)


def plan_facts(view: FleetView, planner: Planner, *, is_planner: bool, now: float) -> PlanFacts:
    """The plan in use, and this router's part in it."""
    plans = view.plans
    return PlanFacts(
        plan=plans.plan,
        age_seconds=now - plans.arrived_at,
        is_planner=is_planner and planner.figures.is_available,
        is_leader=planner.figures.is_leader,
    )
