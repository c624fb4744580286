"""Finds out whether a silent site can be reached at all, for the requests that wait there.

Why: a network that drops a site's packets ends no connection, and an answer in one piece may rightly take
minutes. So where a site's report has expired and requests wait for its answer, it is asked for a connection.
If none comes in time they are cut, and go elsewhere within the retry budget. (The kernel's own watch,
`gateway.link_watch`, sees the same later.)

Rule: only silence counts. A refused connection is an answer: that machine would have reset the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateway.upstream import Origin, UpstreamError
from router.live.exchange import Exchange
from router.policy.snapshot import STALE_SECONDS, Snapshot

EXPIRED_SECONDS = STALE_SECONDS
"""Without a report for so long, by any way, a site that has requests is asked."""
ASK_SECONDS = 5.0
"""Between two questions to one site."""


class Lookout:
    """One per process."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, connect_timeout_seconds: float) -> None:
        self._snapshot = snapshot
        self._connect_timeout_seconds = connect_timeout_seconds
        self._asked_at: dict[str, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def look(self, active: Callable[[], Iterable[Exchange]], now: float) -> None:
        """Ask the sites that have expired and owe the beginning of an answer; called with every sweep."""
        sites = self._snapshot().sites.values()
        expired = {site.site_id for site in sites if now - site.arrived_at > EXPIRED_SECONDS}
        if not expired:
            self._asked_at.clear()
            return
        for exchange in active():
            placement, site_id = exchange.placement, exchange.site_id
            if (
                placement is not None
                and site_id in expired
                and _waits_at(exchange, site_id)
                and now - self._asked_at.get(site_id, -ASK_SECONDS) >= ASK_SECONDS
            ):
                self._asked_at[site_id] = now
                asking = asyncio.create_task(self._ask(site_id, placement.entry.origin, active))
                self._asking.add(asking)
                asking.add_done_callback(self._asking.discard)

    async def _ask(self, site_id: str, origin: Origin, active: Callable[[], Iterable[Exchange]]) -> None:
        seconds = self._connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(origin.host, origin.port)
        except TimeoutError:
            pass
        except OSError:
            return
        else:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return
        message = f"{site_id}: no report for {EXPIRED_SECONDS:g} s, no connection within {seconds:g} s"
        for exchange in list(active()):
            if exchange.response is not None and _waits_at(exchange, site_id):
                exchange.response.stop(UpstreamError("connect_timeout", message))

    async def aclose(self) -> None:
        """Ask no more."""
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


def _waits_at(exchange: Exchange, site_id: str) -> bool:
    """Whether its client has nothing yet and the site has the request. A stream that has begun may stall."""
    return exchange.site_id == site_id and exchange.response is not None and not exchange.is_committed
