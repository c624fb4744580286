"""The reporter: every second and at once on change; sequences that only grow; a store that comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from support.scripted_store import ScriptedStore
from support.wait import until

from fleet.records import Capabilities, SiteInfo, SiteReport
from fleet.signing_keys import UNSIGNED
from site_agent.reporter import Reporter


@dataclass(slots=True)
class Rig:
    """A reporter over a scripted store."""

    reporter: Reporter
    store: ScriptedStore
    changed: asyncio.Event
    state: list[str]
    max_model_len: list[int | None]

    def last(self) -> SiteReport:
        return SiteReport.from_json(self.store.reports[-1])


def make(store: ScriptedStore) -> Rig:
    changed = asyncio.Event()
    state = ["serving"]
    max_model_len: list[int | None] = [None]

    def report(sequence: int) -> SiteReport:
        return SiteReport(
            agent_id="a",
            sequence=sequence,
            site_id="north",
            observed_at_unix_seconds=time.time(),
            ingress_url="http://127.0.0.1:1",
            state=state[0],  # type: ignore[arg-type]
        )

    def info(sequence: int) -> SiteInfo:
        return SiteInfo(
            agent_id="a",
            sequence=sequence,
            site_id="north",
            farm_id="f",
            region="r",
            ingress_url="http://127.0.0.1:1",
            gpu_model="g",
            gpu_count=1,
            server_idle_watts=1.0,
            overhead_ratio=1.1,
            ride_through_seconds=5.0,
            ride_through_joules=5.0,
            safe_floor_watts=0.0,
            max_site_watts=10.0,
            capabilities=Capabilities(max_model_len=max_model_len[0]),
        )

    reporter = Reporter(
        site_id="north",
        store=store,  # type: ignore[arg-type]
        changed=changed,
        make_report=report,
        make_info=info,
        signing=UNSIGNED,
    )
    return Rig(reporter=reporter, store=store, changed=changed, state=state, max_model_len=max_model_len)


@asynccontextmanager
async def reporting(store: ScriptedStore | None = None) -> AsyncIterator[Rig]:
    rig = make(store or ScriptedStore())
    task = asyncio.create_task(rig.reporter.run())
    try:
        yield rig
    finally:
        task.cancel()


async def test_reports_come_each_second_with_growing_sequences() -> None:
    """Without any change."""
    async with reporting() as rig:
        await until(lambda: len(rig.store.reports) >= 3)
        sequences = [SiteReport.from_json(raw).sequence for raw in rig.store.reports]
        assert sequences == sorted(set(sequences))
        assert abs(sequences[0] - time.time() * 1000) < 60_000


async def test_a_change_is_told_at_once() -> None:
    """Not at the next second."""
    async with reporting() as rig:
        await until(lambda: len(rig.store.reports) == 1)
        for number, state in enumerate(("draining", "dark", "serving"), start=2):
            rig.state[0] = state
            rig.changed.set()
            await until(lambda: len(rig.store.reports) == number, seconds=0.9)  # noqa: B023
            assert rig.last().state == state


async def test_the_info_is_written_at_start_and_when_it_differs() -> None:
    """Not with every report."""
    async with reporting() as rig:
        await until(lambda: len(rig.store.reports) >= 2)
        assert len(rig.store.infos) == 1
        rig.max_model_len[0] = 4096
        await until(lambda: len(rig.store.infos) == 2)
        first, second = (SiteInfo.from_json(raw) for raw in rig.store.infos)
        assert second.sequence > first.sequence
        assert second.capabilities.max_model_len == 4096


async def test_the_info_is_written_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have emptied Redis, which nobody tells."""
    monkeypatch.setattr("site_agent.reporter.INFO_SECONDS", 1.5)
    async with reporting() as rig:
        await until(lambda: len(rig.store.infos) == 2)
        first, second = (SiteInfo.from_json(raw) for raw in rig.store.infos)
        assert second == first.model_copy(update={"sequence": second.sequence})


async def test_a_store_that_is_away_costs_nothing_and_gets_everything_when_it_is_back() -> None:
    """Also one that was restarted empty."""
    async with reporting() as rig:
        await until(lambda: len(rig.store.reports) == 1)
        rig.store.is_down = True
        await until(lambda: rig.reporter.failed >= 1)
        before = rig.last().sequence
        rig.store.empty()
        rig.store.is_down = False
        await until(lambda: len(rig.store.infos) == 2, what="info again")
        await until(lambda: rig.store.report is not None)
        assert rig.last().sequence > before


async def test_sequences_go_on_from_what_an_earlier_agent_wrote() -> None:
    """Its clock was ahead of ours."""
    store = ScriptedStore()
    ahead = int(time.time() * 1000) + 3_600_000
    rig = make(store)
    store.report = rig.reporter._make_report(ahead).to_json()
    store.info = rig.reporter._make_info(ahead + 5).to_json()
    await rig.reporter.publish()
    assert rig.last().sequence == ahead + 1
    assert SiteInfo.from_json(store.infos[-1]).sequence == ahead + 6
    assert SiteReport.from_json(rig.reporter.current_report()).sequence == ahead + 2


async def test_a_hostile_record_under_its_key_is_not_followed() -> None:
    """A sequence at the end of all numbers would be the last one ever."""
    for raw in (b"null", b"\xff", make(ScriptedStore()).reporter._make_report((1 << 53) - 1).to_json()):
        rig = make(ScriptedStore())
        rig.store.report = raw
        await rig.reporter.publish()
        assert abs(rig.last().sequence - time.time() * 1000) < 60_000
