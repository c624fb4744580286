"""Hands each site's newest reading to whoever streams it. Nothing waits for a slow subscriber.

Rule: a subscriber holds one reading, the newest: an older one has no value, and memory stays bounded.
"""

from __future__ import annotations

import asyncio

MAX_SUBSCRIBERS_PER_SITE = 256
"""An agent, its standby and some operators; more is a leak or an attack."""


class TooManySubscribersError(Exception):
    """A site has as many subscribers as it may."""


class Subscription:
    """One stream's mailbox."""

    __slots__ = ("_arrived", "_closed", "_newest", "is_agent")

    def __init__(self, newest: bytes | None, *, is_agent: bool) -> None:
        self.is_agent = is_agent
        """Whether its reader says that it is the site's agent."""
        self._newest = newest
        self._closed = False
        self._arrived = asyncio.Event()
        if newest is not None:
            self._arrived.set()

    def put(self, reading: bytes) -> None:
        """Replace what was not taken yet."""
        self._newest = reading
        self._arrived.set()

    def close(self) -> None:
        """End the stream; what was not taken is dropped."""
        self._closed = True
        self._arrived.set()

    async def next(self) -> bytes | None:
        """The newest reading, once there is one that was not taken; None: the feed is stopping."""
        await self._arrived.wait()
        self._arrived.clear()
        if self._closed:
            self._arrived.set()
            return None
        return self._newest


class Hub:
    """All subscriptions, by site."""

    def __init__(self, site_ids: tuple[str, ...]) -> None:
        self._subscriptions: dict[str, dict[Subscription, None]] = {site_id: {} for site_id in site_ids}
        self._newest: dict[str, bytes] = {}
        self._is_closed = False

    def publish(self, site_id: str, reading: bytes) -> None:
        """Give a site's newest reading to all that stream it."""
        self._newest[site_id] = reading
        for subscription in self._subscriptions[site_id]:
            subscription.put(reading)

    def newest(self, site_id: str) -> bytes | None:
        """A site's latest reading; None before the first."""
        return self._newest.get(site_id)

    def subscribe(self, site_id: str, *, is_agent: bool = False) -> Subscription:
        """Begin with the latest reading, where there is one. The caller must `unsubscribe`.

        `is_agent`: the site's agent reads it.

        Raises:
            TooManySubscribersError: the site has MAX_SUBSCRIBERS_PER_SITE already.
        """
        subscriptions = self._subscriptions[site_id]
        if len(subscriptions) >= MAX_SUBSCRIBERS_PER_SITE:
            raise TooManySubscribersError(
                f"site {site_id} has {len(subscriptions)} streams open, which is all it may have: close some"
            )
        subscription = Subscription(self._newest.get(site_id), is_agent=is_agent)
        if self._is_closed:
            subscription.close()
        subscriptions[subscription] = None
        return subscription

    def unsubscribe(self, site_id: str, subscription: Subscription) -> None:
        """Forget it; harmless twice."""
        self._subscriptions[site_id].pop(subscription, None)

    def subscribers(self, site_id: str) -> int:
        """Open streams of a site."""
        return len(self._subscriptions[site_id])

    def has_agent(self, site_id: str) -> bool:
        """Whether one of them is its agent's: then the site hears its grants."""
        return any(subscription.is_agent for subscription in self._subscriptions[site_id])

    def close(self) -> None:
        """End every stream, now and in future."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()
