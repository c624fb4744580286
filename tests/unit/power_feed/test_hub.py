"""Handing the newest reading to every stream."""

from __future__ import annotations

import asyncio

import pytest

from power_feed.hub import MAX_SUBSCRIBERS_PER_SITE, Hub, TooManySubscribersError


async def test_a_subscriber_begins_with_the_latest_reading() -> None:
    """Nobody waits a second for the first one."""
    hub = Hub(("north",))
    hub.publish("north", b"1")
    assert await hub.subscribe("north").next() == b"1"


async def test_a_slow_subscriber_gets_only_the_newest() -> None:
    """What was replaced is gone; memory holds one reading."""
    hub = Hub(("north",))
    subscription = hub.subscribe("north")
    for number in range(1000):
        hub.publish("north", b"%d" % number)
    assert await subscription.next() == b"999"
    hub.publish("north", b"1000")
    assert await subscription.next() == b"1000"


async def test_a_reading_is_delivered_once() -> None:
    """After it was taken the stream waits for the next."""
    hub = Hub(("north",))
    hub.publish("north", b"1")
    subscription = hub.subscribe("north")
    await subscription.next()
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    hub.publish("north", b"2")
    assert await waiting == b"2"


async def test_sites_do_not_mix() -> None:
    """A reading reaches its own site's streams only."""
    hub = Hub(("north", "coast"))
    north, coast = hub.subscribe("north"), hub.subscribe("coast")
    hub.publish("north", b"n")
    hub.publish("coast", b"c")
    assert (await north.next(), await coast.next()) == (b"n", b"c")
    assert (hub.newest("north"), hub.newest("coast")) == (b"n", b"c")


async def test_closing_ends_every_stream() -> None:
    """Those that wait, those that hold a reading and those that come later."""
    hub = Hub(("north",))
    waiting = asyncio.create_task(hub.subscribe("north").next())
    await asyncio.sleep(0)
    hub.close()
    assert await waiting is None
    late = hub.subscribe("north")
    assert await late.next() is None
    assert await late.next() is None


async def test_streams_are_counted_and_bounded() -> None:
    """One more than the limit is refused with what to do; leaving makes room."""
    hub = Hub(("north",))
    subscriptions = [hub.subscribe("north") for _ in range(MAX_SUBSCRIBERS_PER_SITE)]
    with pytest.raises(TooManySubscribersError, match="site north has 256 streams open"):
        hub.subscribe("north")
    hub.unsubscribe("north", subscriptions[0])
    hub.unsubscribe("north", subscriptions[0])
    assert hub.subscribers("north") == MAX_SUBSCRIBERS_PER_SITE - 1
    hub.subscribe("north")


async def test_only_a_stream_of_its_agent_says_that_a_site_hears_its_grants() -> None:
    """An operator's does not; it counts among the open ones all the same."""
    hub = Hub(("north", "coast"))
    hub.subscribe("north")
    assert (hub.subscribers("north"), hub.has_agent("north")) == (1, False)
    agent = hub.subscribe("north", is_agent=True)
    assert (hub.subscribers("north"), hub.has_agent("north"), hub.has_agent("coast")) == (2, True, False)
    hub.unsubscribe("north", agent)
    assert (hub.subscribers("north"), hub.has_agent("north")) == (1, False)
