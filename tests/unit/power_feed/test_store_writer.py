"""Writing to a store that may be slow, away, or ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from support.wait import until

from fleet.records import PowerReading
from fleet.signing import BELIEVES_ALL
from fleet.store import StoreError
from power_feed.store_writer import StoreWriter


class PartialStore:
    """The two calls that the writer makes, with faults to order."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.written: list[tuple[str, bytes, bool]] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0

    async def power_readings(self, site_ids: Sequence[str]) -> list[bytes | None]:
        self.calls += 1
        if self.is_away:
            raise StoreError("refused")
        return [self.held.get(site_id) for site_id in site_ids]

    async def publish_power_reading(self, site_id: str, record: bytes, *, log: bool) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.is_away:
            raise StoreError("refused")
        self.written.append((site_id, record, log))


class Run:
    """A writer at work, and what it told."""

    def __init__(self, store: PartialStore) -> None:
        self.store = store
        self.sequences: list[tuple[str, int]] = []
        self.errors = 0
        self.writer = StoreWriter(
            store,  # type: ignore[arg-type]
            ("north", "coast"),
            trust=BELIEVES_ALL,
            on_reading=lambda reading, _age: self.sequences.append((reading.site_id, reading.sequence)),
            on_error=self._count,
        )

    def _count(self) -> None:
        self.errors += 1


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    subject = Run(PartialStore())
    task = asyncio.create_task(subject.writer.run())
    yield subject
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def record(sequence: int) -> bytes:
    return PowerReading(
        feed_id="other",
        sequence=sequence,
        site_id="north",
        farm_id="f",
        observed_at_unix_seconds=1.0,
        period_seconds=1.0,
        available_power_watts=1.0,
        granted_power_watts=1.0,
        nameplate_capacity_watts=1.0,
        quality="good",
        source="test",
    ).to_json()


async def test_readings_are_written_with_their_log_mark(run: Run) -> None:
    """Each site's reading goes out once."""
    run.writer.offer("north", b"n1", log=True)
    run.writer.offer("coast", b"c1", log=False)
    await until(lambda: len(run.store.written) == 2)
    assert run.store.written == [("north", b"n1", True), ("coast", b"c1", False)]
    assert run.writer.is_connected


async def test_only_the_newest_waits_and_its_log_mark_is_kept(run: Run) -> None:
    """While the store is slow readings are replaced, and the minute's log entry is not lost."""
    run.store.gate.clear()
    run.writer.offer("north", b"n1", log=False)
    await until(lambda: run.store.calls == 2)
    run.writer.offer("north", b"n2", log=True)
    run.writer.offer("north", b"n3", log=False)
    run.store.gate.set()
    await until(lambda: len(run.store.written) == 2)
    assert run.store.written == [("north", b"n1", False), ("north", b"n3", True)]


async def test_a_store_that_was_away_gets_the_newest_when_it_is_back(run: Run) -> None:
    """Failures are counted; nothing old is written afterwards."""
    await until(lambda: run.writer.is_connected)
    run.store.is_away = True
    run.writer.offer("north", b"n1", log=True)
    await until(lambda: run.errors >= 2)
    assert not run.writer.is_connected
    run.writer.offer("north", b"n2", log=False)
    run.store.is_away = False
    await until(lambda: run.store.written)
    assert run.store.written == [("north", b"n2", True)]


async def test_the_stores_own_sequence_is_read_before_anything_is_written() -> None:
    """A restarted feed learns how far its predecessor came; what is no reading is passed over."""
    store = PartialStore()
    store.held = {"north": record(2_000_000_000_000), "coast": b"not json"}
    subject = Run(store)
    task = asyncio.create_task(subject.writer.run())
    subject.writer.offer("north", b"n1", log=False)
    await until(lambda: store.written)
    task.cancel()
    assert subject.sequences == [("north", 2_000_000_000_000)]
    assert subject.errors == 0


async def test_a_sequence_from_no_clock_is_not_gone_on_from() -> None:
    """Readers would refuse every reading above it."""
    subject = Run(PartialStore())
    subject.store.held = {"north": record(2**53 - 1), "coast": record(7).replace(b"north", b"coast")}
    task = asyncio.create_task(subject.writer.run())
    await until(lambda: subject.writer.is_connected)
    assert subject.sequences == [("coast", 7)]
    task.cancel()


async def test_a_site_whose_key_takes_nothing_holds_up_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has another type, say."""
    whole = run.store.publish_power_reading

    async def refuse_north(site_id: str, record: bytes, *, log: bool) -> None:
        if site_id == "north":
            raise StoreError("WRONGTYPE")
        await whole(site_id, record, log=log)

    monkeypatch.setattr(run.store, "publish_power_reading", refuse_north)
    for sequence in range(1, 4):
        run.writer.offer("north", record(sequence), log=False)
        run.writer.offer("coast", b"%d" % sequence, log=False)
        await until(lambda now=sequence: ("coast", b"%d" % now, False) in run.store.written)
