"""Following the power over a real stream and a store: either path alone is enough, a sequence counts once."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.authority import Authority
from support.raw_server import raw_server
from support.scripted_store import ScriptedStore
from support.stub_feed import StubFeed, reading, running_feed
from support.wait import until

from fleet.power import CapRule, CapTracker
from gateway.tls import CallerFiles, PortFiles
from gateway.tls_renewal import RenewedTls
from site_agent.power_follow import PowerFollow
from site_agent.reading_judge import IntakeJudge


@dataclass(slots=True)
class Rig:
    """A follower between a feed and a store."""

    follow: PowerFollow
    feed: StubFeed
    store: ScriptedStore
    judge: IntakeJudge

    def cap(self) -> float:
        return self.follow.cap_watts(asyncio.get_running_loop().time())

    def is_up(self, path: str) -> bool:
        return self.follow.is_up(path, asyncio.get_running_loop().time())  # type: ignore[arg-type]


@asynccontextmanager
async def following(
    feed_url: str | None = None,
    *,
    left_over: bytes | None = None,
    feed_tls: RenewedTls | None = None,
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
) -> AsyncIterator[Rig]:
    store = ScriptedStore()
    store.power = left_over
    judge = IntakeJudge(site_id="north", max_clock_skew_seconds=30.0)
    async with running_feed(feed_tls) as feed, asyncio.TaskGroup() as tasks:
        follow = PowerFollow(
            tls=tls,
            site_id="north",
            feed_url=feed_url or feed.url,
            store=store,  # type: ignore[arg-type]
            tracker=CapTracker(rule=CapRule(max_site_watts=10_000, margin_ratio=0.0)),
            judge=judge,
            rng=random.Random(1),
        )
        loops = [
            tasks.create_task(loop)
            for loop in (follow.follow_stream(), follow.follow_events(), follow.reread())
        ]
        await until(lambda: store.listeners == 1, what="subscribed")
        if feed_url is None:
            await until(lambda: feed.listeners == 1, what="connected to the feed")
        yield Rig(follow=follow, feed=feed, store=store, judge=judge)
        for loop in loops:
            loop.cancel()


async def test_the_direct_stream_alone_is_enough() -> None:
    """With the store away from the start."""
    async with following() as rig:
        rig.store.is_down = True
        rig.feed.say(reading(5000))
        await until(lambda: rig.cap() == 5000)
        assert rig.follow.news.is_set()
        assert rig.follow.quality == "good"
        assert rig.is_up("stream")
        assert rig.feed.paths == ["/v1/power/north/stream"]
        assert rig.feed.agent_headers == [b"1"]


async def test_the_stream_comes_over_tls(tmp_path: Path) -> None:
    """Once the feed's certificate is believed: an unknown one gives no power, and no end of the agent."""
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    certificate, key = authority.sign("feed")
    feed_tls = RenewedTls("power_feed", PortFiles(certificate=certificate, key=key))
    ca = tmp_path / "believed.pem"
    ca.write_bytes(other.ca.read_bytes())
    calls = RenewedTls("fleet", CallerFiles(ca=ca))
    async with running_feed(feed_tls) as feed, following(feed.url, tls=lambda: calls.context) as rig:
        await asyncio.sleep(0.3)
        assert feed.connections == 0
        ca.write_bytes(authority.ca.read_bytes())
        calls.look()
        await until(lambda: feed.listeners == 1, what="connected to the feed")
        feed.say(reading(5000))
        await until(lambda: rig.cap() == 5000)


async def test_the_store_alone_is_enough() -> None:
    """With no feed at the address at all."""
    async with following("http://127.0.0.1:9") as rig:
        rig.store.publish_power(reading(4000).to_json())
        await until(lambda: rig.cap() == 4000)
        assert rig.is_up("redis")
        assert not rig.is_up("stream")


async def test_a_record_that_nobody_announced_is_read_again() -> None:
    """Pub/sub gives speed, the re-read certainty."""
    async with following() as rig:
        rig.store.power = reading(3000).to_json()
        await until(lambda: rig.cap() == 3000)


async def test_what_redis_held_before_is_no_power_now() -> None:
    """Its feed may be long gone; it counts once the feed has written another."""
    async with following("http://127.0.0.1:9", left_over=reading(9000, sequence=7).to_json()) as rig:
        rig.store.power = reading(3000, sequence=8).to_json()
        await until(lambda: rig.cap() == 3000)
        assert rig.follow.readings_taken == 1


async def test_what_redis_held_before_that_is_no_power_either() -> None:
    """A Redis that comes back from its last save has an older record than the one that was there."""
    async with following("http://127.0.0.1:9", left_over=reading(9000, sequence=7).to_json()) as rig:
        await until(lambda: rig.follow._has_reread, what="it saw what was there")
        rig.store.power = reading(8000, sequence=6).to_json()
        reads = rig.store.power_reads
        await until(lambda: rig.store.power_reads >= reads + 3, what="it was read again, and looked at")
        assert rig.follow.readings_taken == 0
        rig.store.power = reading(3000, sequence=8).to_json()
        await until(lambda: rig.cap() == 3000)


async def test_an_event_that_was_not_kept_counts_too() -> None:
    """The other way round."""
    async with following() as rig:
        rig.store.publish_power(reading(3100).to_json(), is_kept=False)
        await until(lambda: rig.cap() == 3100)


async def test_a_sequence_heard_on_both_paths_counts_once() -> None:
    """And an older one not at all, whichever path is slower."""
    async with following() as rig:
        old, new = reading(2000), reading(6000)
        rig.feed.say(new)
        await until(lambda: rig.cap() == 6000)
        rig.store.publish_power(new.to_json())
        rig.store.publish_power(old.to_json())
        rig.store.publish_power(reading(6500).to_json())
        await until(lambda: rig.cap() == 6500)
        assert rig.follow.readings_taken == 2


async def test_a_stream_that_ends_is_opened_anew() -> None:
    """Again and again, by itself."""
    async with following() as rig:
        for watts in (5000, 4000, 3000):
            rig.feed.say(reading(watts))
            await until(lambda: rig.cap() == watts)  # noqa: B023 - awaited here
            rig.feed.cut()
            await until(lambda: rig.feed.listeners == 0)
            await until(lambda: rig.feed.listeners == 1)


async def test_a_feed_that_refuses_is_asked_again() -> None:
    """It may just be starting."""
    async with following() as rig:
        rig.feed.status = 503
        rig.feed.cut()
        await until(lambda: rig.feed.connections >= 3)
        rig.feed.status = 200
        await until(lambda: rig.feed.listeners == 1)
        rig.feed.say(reading(2500))
        await until(lambda: rig.cap() == 2500)


async def test_a_store_that_comes_back_is_subscribed_to_again() -> None:
    """With nobody's help."""
    async with following() as rig:
        rig.store.is_down = True
        await until(lambda: rig.store.listeners == 0)
        rig.store.is_down = False
        await until(lambda: rig.store.listeners == 1)
        rig.store.publish_power(reading(2600).to_json(), is_kept=False)
        await until(lambda: rig.cap() == 2600)


async def test_hostile_bytes_on_either_path_change_nothing() -> None:
    """They are refused and counted, and the reader lives."""
    async with following() as rig:
        rig.feed.say(reading(5000))
        await until(lambda: rig.cap() == 5000)
        for garbage in (
            b"data: {}\n\n",
            b"data: \xff\xfe\n\n",
            b": comment\n\n",
            b"event: x\n\n",
            b"data: " + b"[" * 10_000 + b"\n\n",
        ):
            rig.feed.send(garbage)
        rig.store.publish_power(b"null")
        rig.store.publish_power(reading(9000, site_id="south").to_json(), is_kept=False)
        rig.feed.say(reading(5100))
        await until(lambda: rig.cap() == 5100)
        assert sum(rig.judge.refused.values()) >= 4
        assert rig.follow.readings_taken == 2


async def test_an_event_without_an_end_does_not_fill_the_memory() -> None:
    """The stream is opened anew instead."""
    async with following() as rig:
        rig.feed.send(b"data: " + b"x" * 300_000)
        await until(lambda: rig.feed.connections == 2)
        await until(lambda: rig.feed.listeners >= 1)
        rig.feed.say(reading(4400))
        await until(lambda: rig.cap() == 4400)


async def test_a_suspect_reading_lowers_the_cap_and_never_raises_it() -> None:
    """A suspicious fall is obeyed at once."""
    async with following() as rig:
        rig.feed.say(reading(5000))
        await until(lambda: rig.cap() == 5000)
        rig.feed.say(reading(3000, quality="suspect"))
        await until(lambda: rig.cap() == 3000)
        rig.feed.say(reading(9000, quality="suspect"))
        await until(lambda: rig.follow.readings_taken == 3)
        assert rig.cap() == 3000


async def test_when_both_paths_are_gone_the_cap_walks_down() -> None:
    """To the safe floor, here 0 W, within ten periods."""
    async with following() as rig:
        rig.feed.say(reading(5000, period_seconds=0.05))
        await until(lambda: rig.follow.has_reading)
        await until(lambda: rig.cap() == 0, what="walked down")
        assert rig.follow.age_seconds(asyncio.get_running_loop().time()) is not None


@pytest.mark.parametrize("location", ["x:y", "http://xn--a/"])
async def test_an_answer_that_httpx_chokes_on_is_a_stream_that_ended(location: str) -> None:
    """It reads where a redirect leads though it does not follow, and raises what is no HTTPError."""
    answer = f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    async with raw_server(answer.encode()) as port, following(f"http://127.0.0.1:{port}") as rig:
        rig.store.publish_power(reading(4000).to_json())
        await until(lambda: rig.cap() == 4000)
