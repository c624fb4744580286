"""The console's look once a second, and what its watchers get."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from support.stub_site import StubSite
from support.wait import until

from fleet.signing import BELIEVES_ALL
from router.console.facts import Counters, RouterFacts
from router.live import console as module
from router.live.console import MAX_WATCHERS, Console, TooManyWatchersError
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.metrics import RouterMetrics
from router.live.site_counts import SiteCounts, no_counts
from router.live.sites import SiteRegistry


class Router:
    """What the console asks, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.began_at = time.time() - self.now
        self.facts = RouterFacts(about={"router_id": "r"}, fleet="demo", is_store_up=True)
        self.ledger: dict[str, int] = {"requests": 0, "in_flight": 0}
        self.asked: list[Sequence[str]] = []
        self.counts: dict[str, SiteCounts] = {}
        self.events = EventRing()
        self.view = FleetView(
            registry=SiteRegistry(),
            metrics=RouterMetrics(CollectorRegistry()),
            events=self.events,
            networks=(),
            max_clock_skew_seconds=30.0,
            trust=BELIEVES_ALL,
            clock=lambda: self.now,
            unix_clock=lambda: self.began_at + self.now,
            rng=random.Random(1),
        )
        self.console = Console(
            self, self.view, self.events, clock=lambda: self.now, unix_clock=lambda: self.began_at + self.now
        )

    def counters(self) -> Counters:
        return Counters(ledger=dict(self.ledger))

    def router_facts(self) -> RouterFacts:
        return self.facts

    def site_counts(self, site_ids: Sequence[str]) -> Mapping[str, SiteCounts]:
        self.asked.append(site_ids)
        return {site_id: self.counts.get(site_id, no_counts()) for site_id in site_ids}

    def report(self, *site_ids: str) -> None:
        """These sites report now."""
        for site_id in site_ids:
            site = StubSite(site_id)
            site.port = 1  # allowed nowhere, so nothing is sent there
            self.view.take_report(site.report(), "event")
            assert self.view.records(site_id) is not None

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes, and the console looks."""
        self.now += seconds
        self.console.tick()

    def whole(self) -> dict[str, Any]:
        """What a page asks for once."""
        decoded: dict[str, Any] = orjson.loads(self.console.whole())
        return decoded


async def test_a_page_is_made_when_it_is_asked_for() -> None:
    """State, events and trends; nothing is made while nobody asks."""
    router = Router()
    router.report("a", "b")
    router.tick()
    assert router.console._page == b"{}"
    found = router.whole()
    assert [row["site_id"] for row in found["state"]["rows"]] == ["a", "b"]
    assert found["state"]["rows"][0]["status"]["name"] == "not_allowed"
    assert set(found["trends"]) == {"a", "b"}


async def test_what_the_timeline_finds_stands_among_the_router_s_events() -> None:
    """A site that stays silent, told once."""
    router = Router()
    router.report("a")
    for _ in range(20):
        router.tick()
    texts = [event["text"] for event in router.events.recent() if event["kind"] == "report"]
    assert len(texts) == 1
    assert texts[0].startswith("no report of a for")


async def test_a_large_fleet_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tick looks at more sites than its bound, and every site's turn comes."""
    monkeypatch.setattr(module, "SITES_PER_TICK", 3)
    router = Router()
    names = [f"s{number}" for number in range(7)]
    router.report(*names)
    for _ in range(3):
        router.tick()
    assert [len(part) for part in router.asked] == [3, 3, 1]
    assert sorted(name for part in router.asked for name in part) == names
    assert router.whole()["state"]["sites"]["known"] == 7


async def test_a_forgotten_site_leaves_nothing_behind() -> None:
    """Another one in the same second does not hide that."""
    router = Router()
    router.report("a", "b")
    router.tick()
    router.view.forget("a")
    router.report("c")
    router.tick()
    assert sorted(router.console._sites) == ["b", "c"]
    assert sorted(router.console._timeline._sites) == ["b", "c"]


async def test_since_when_redis_is_away_and_a_site_is_as_it_is() -> None:
    """Both count from the tick that saw it: a site that may not be called is so from the start."""
    router = Router()
    router.report("a")
    router.tick()
    router.facts = RouterFacts(is_store_up=False)
    router.tick()
    router.tick(11.0)
    state = router.whole()["state"]
    assert state["store"] == {"is_up": False, "since_unix_seconds": router.began_at + 1002.0}
    assert state["rows"][0]["status"]["since_unix_seconds"] == router.began_at + 1001.0


async def test_a_fault_in_a_look_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next look comes."""
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)
    router = Router()
    looks = 0

    def fail() -> Counters:
        nonlocal looks
        looks += 1
        raise ValueError("broken")

    monkeypatch.setattr(router, "counters", fail)
    running = asyncio.create_task(router.console.run())
    await until(lambda: looks >= 3, what="it looks again")
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert "ValueError: broken" in caplog.text


def decoded(message: bytes) -> dict[str, Any]:
    """The data of a server-sent event."""
    [line] = [line for line in message.split(b"\n") if line.startswith(b"data: ")]
    found: dict[str, Any] = orjson.loads(line.removeprefix(b"data: "))
    return found


async def test_a_watcher_gets_everything_once_and_then_what_is_new() -> None:
    """Events come once each, trends only at first."""
    router = Router()
    router.events.add("policy", "before")
    router.tick()
    stream = router.console.stream()
    first = decoded(await anext(stream))
    assert [event["text"] for event in first["events"]] == ["before"]
    assert first["trends"] == {}
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    router.events.add("policy", "after")
    router.tick()
    second = decoded(await waiting)
    assert [event["text"] for event in second["events"]] == ["after"]
    assert second["trends"] is None
    assert router.console.watchers == 1
    await stream.aclose()
    assert router.console.watchers == 0


async def test_watchers_are_bounded() -> None:
    """The next one is told so, and one that leaves makes room."""
    router = Router()
    streams = [router.console.stream() for _ in range(MAX_WATCHERS)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(TooManyWatchersError):
        await anext(router.console.stream())
    await streams[0].aclose()
    again = router.console.stream()
    assert await anext(again)
    for stream in [*streams[1:], again]:
        await stream.aclose()
    assert router.console.watchers == 0


async def test_all_watchers_share_one_page_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many watch and ask, it is made once a tick."""
    router = Router()
    made = 0
    make = module.console_page

    def count(*arguments: Any, **options: Any) -> dict[str, Any]:
        nonlocal made
        made += 1
        return make(*arguments, **options)

    monkeypatch.setattr(module, "console_page", count)
    streams = [router.console.stream() for _ in range(5)]
    for stream in streams:
        await anext(stream)
    for _ in range(3):
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        router.tick()
        await asyncio.gather(*waiting)
        router.console.whole()
    assert made == 4
    for stream in streams:
        await stream.aclose()
