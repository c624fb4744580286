"""What the feed knows of its sites, and when it believes that it knows."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.authority import Authority
from support.obedient_agent import ObedientAgent
from support.raw_server import raw_server
from support.wait import until

from fleet.memory_store import MemoryStore
from fleet.records import Plan, SolverReport
from fleet.signing import BELIEVES_ALL
from gateway.client_request import ClientRequest
from gateway.server import HttpServer
from gateway.tls import CallerFiles, PortFiles
from gateway.tls_renewal import RenewedTls
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


def watching(
    store: MemoryStore,
    url: str,
    polls: list[str],
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
) -> SiteWatch:
    """Of one site, whose agent is asked at `url`."""
    return SiteWatch(
        store,
        {"coast": url},
        tls=tls,
        site_token=None,
        max_clock_skew_seconds=5.0,
        trust=BELIEVES_ALL,
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


async def test_junk_in_redis_does_not_keep_the_feed_from_asking() -> None:
    """However often it changes: only a record that is used is word of a site."""
    store, agent, polls = MemoryStore(clock=time.monotonic), ObedientAgent("coast", "coast-farm"), list[str]()

    def report(request: ClientRequest) -> None:
        request.respond(200, (), agent.report().to_json())

    port = HttpServer(hot=lambda _method, _path: report)
    await port.start()
    watch = watching(store, f"http://127.0.0.1:{port.port}", polls)

    async def spoil() -> None:
        for number in itertools.count():
            await store.publish_site_report("coast", b"%d" % number, time.time())
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(work) for work in (spoil(), watch.follow_store(), watch.poll_agents())]
    await until(lambda: "ok" in polls and watch.report_state("coast") == "serving")
    first = len(polls)
    await until(lambda: len(polls) >= first + 3, what="asked on and on")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await port.stop(0)


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


async def test_an_agent_is_asked_over_tls_with_a_certificate(tmp_path: Path) -> None:
    """Without the right one the feed is not let in; once the files are right it is, without a restart."""
    authority, agent, polls = Authority(tmp_path), ObedientAgent("coast", "coast-farm"), list[str]()
    certificate, key = authority.sign("site")
    files = PortFiles(certificate=certificate, key=key, client_ca=authority.ca)
    shown = Authority(tmp_path / "other").sign("feed")
    calls = RenewedTls("fleet", CallerFiles(ca=authority.ca, certificate=shown[0], key=shown[1]))

    def report(request: ClientRequest) -> None:
        request.respond(200, (), agent.report().to_json())

    port = HttpServer(hot=lambda _method, _path: report, tls=RenewedTls("sites.coast", files))
    await port.start()
    url = f"https://127.0.0.1:{port.port}"
    watch = watching(MemoryStore(clock=time.monotonic), url, polls, lambda: calls.context)
    tasks = [asyncio.create_task(watch.follow_store()), asyncio.create_task(watch.poll_agents())]
    await until(lambda: polls == ["failed"], what="not let in")
    for path, good in zip(shown, authority.sign("feed"), strict=True):
        path.write_bytes(good.read_bytes())
    calls.look()
    await until(lambda: polls[-1] == "ok", what="let in")
    assert watch.report_state("coast") == "serving"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await port.stop(0)


async def test_an_agent_that_is_restarted_is_known_once_the_one_before_is_silent() -> None:
    """Its info, written once a minute, comes too early to be believed: it is looked at again."""
    store, agent = MemoryStore(clock=time.monotonic), ObedientAgent("coast", "coast-farm")
    await store.publish_site_info("coast", agent.info().to_json())
    watch = watching(store, "http://127.0.0.1:1", [])
    task = asyncio.create_task(watch.follow_store())

    def idle_watts() -> float | None:
        info = watch.state("coast", farm_id="coast-farm", is_listening=False).info
        return None if info is None else info.server_idle_watts

    await until(lambda: idle_watts() == 950.0)
    successor = agent.info()
    changes = {
        "agent_id": "restarted",
        "sequence": successor.sequence + 1,
        "server_idle_watts": 400.0,
    }
    await store.publish_site_info("coast", successor.model_copy(update=changes).to_json())
    await until(lambda: idle_watts() == 400.0, seconds=10, what="what the new agent says")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("age_seconds", "is_valid"), [(0.0, True), (50.0, True), (61.0, False), (-60.0, False)]
)
async def test_a_plan_that_lay_in_redis_when_the_feed_began_is_no_younger_for_it(
    age_seconds: float, is_valid: bool
) -> None:
    """It is valid for a minute from when it was solved, by a clock as ours; a later one from its arrival."""
    store = MemoryStore(clock=time.monotonic)

    def plan(sequence: int, share: float, solved_at: float) -> Plan:
        return Plan(
            router_id="planner",
            sequence=sequence,
            epoch=1,
            solved_at_unix_seconds=solved_at,
            valid_for_seconds=60.0,
            solver=SolverReport(status="optimal", seconds=0.1),
            shares={"coast-farm": {"coast": share}},
        )

    watch = watching(store, "http://127.0.0.1:1", [])

    def shares() -> dict[str, float]:
        return dict(watch.shares("coast-farm", now=asyncio.get_running_loop().time()))

    agent = ObedientAgent("coast", "coast-farm")
    await store.publish_site_report("coast", agent.report().to_json(), time.time())
    await store.publish_plan(plan(1, 0.3, time.time() - age_seconds).to_json())
    task = asyncio.create_task(watch.follow_store())
    await until(lambda: watch.report_state("coast") == "serving")
    assert shares() == ({"coast": 0.3} if is_valid else {})
    await store.publish_plan(plan(2, 0.4, 1.0).to_json())
    await until(lambda: shares() == {"coast": 0.4})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
