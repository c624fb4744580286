"""What the feed knows of its sites, and when it believes that it knows."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence

from support.obedient_agent import ObedientAgent
from support.raw_server import raw_server
from support.wait import until

from fleet.memory_store import MemoryStore
from power_feed.site_watch import SiteWatch


class SlowInfos(MemoryStore):
    """Says at once what sites report, and what they are only when it is let."""

    def __init__(self) -> None:
        super().__init__(clock=time.monotonic)
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def site_infos(self, site_ids: Sequence[str]) -> list[bytes | None]:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().site_infos(site_ids)


def watching(store: MemoryStore, url: str, polls: list[str]) -> SiteWatch:
    """Of one site, whose agent is asked at `url`."""
    return SiteWatch(
        store,
        {"coast": url},
        tls=ssl.create_default_context,
        site_token=None,
        max_clock_skew_seconds=5.0,
        clock=time.time,
        on_poll=polls.append,
        on_refused=lambda _reason: None,
    )


async def test_a_site_is_not_heard_before_it_is_known_what_it_is() -> None:
    """A feed that starts shares out once it has heard all: without idle draws it gave one too little."""
    store, agent, polls = SlowInfos(), ObedientAgent("coast", "coast-farm"), list[str]()
    await store.publish_site_info("coast", agent.info().to_json())
    await store.publish_site_report("coast", agent.report().to_json(), time.time())
    watch = watching(store, "http://127.0.0.1:1", polls)
    tasks = [asyncio.create_task(watch.follow_store()), asyncio.create_task(watch.poll_agents())]
    await store.is_asked.wait()
    assert watch.state("coast", farm_id="coast-farm", is_listening=False).heard_at is None
    store.may_answer.set()
    await until(lambda: watch.state("coast", farm_id="coast-farm", is_listening=False).heard_at)
    known = watch.state("coast", farm_id="coast-farm", is_listening=False).info
    assert known is not None
    assert known.server_idle_watts == agent.idle_watts
    assert polls == []  # the store knew it, so its agent was not asked
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_agent_that_httpx_chokes_on_ends_no_poll() -> None:
    """One site's agent must not end the feed of all."""
    answer, polls = b"HTTP/1.1 302 Found\r\nlocation: x:y\r\ncontent-length: 0\r\n\r\n", list[str]()
    async with raw_server(answer) as port:
        watch = watching(MemoryStore(clock=time.monotonic), f"http://127.0.0.1:{port}", polls)
        tasks = [asyncio.create_task(watch.follow_store()), asyncio.create_task(watch.poll_agents())]
        await until(lambda: polls == ["failed"] * 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
