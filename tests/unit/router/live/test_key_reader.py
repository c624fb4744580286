"""Reading keys from a store, whatever happens to it."""

from __future__ import annotations

import itertools

import pytest
from prometheus_client import CollectorRegistry

from fleet.memory_store import MemoryStore
from fleet.records import ApiKey
from fleet.store import StoreError
from router.live import key_reader
from router.live.events import EventRing
from router.live.key_reader import KeyReader
from router.live.metrics import RouterMetrics
from router.policy.key_ring import KeyRing


class Bench:
    """A reader around a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ring = KeyRing()
        self.metrics = RouterMetrics(CollectorRegistry())
        self.events = EventRing()
        ticks = itertools.count(100.0)
        self.reader = KeyReader(
            store=self.store,
            ring=self.ring,
            metrics=self.metrics,
            events=self.events,
            clock=lambda: next(ticks),
        )

    async def put(self, number: int, tenant: str = "acme") -> None:
        await self.store.write_api_key(f"{number:064x}", ApiKey(tenant=tenant).to_hash())

    def tenants(self) -> list[str]:
        return [one.tenant for one in self.ring.credentials()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_all_keys_are_known_after_the_first_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """However many round trips it takes."""
    monkeypatch.setattr(key_reader, "KEYS_AT_ONCE", 3)
    for number in range(10):
        await bench.put(number)
    assert bench.ring.read_at is None
    await bench.reader.reread()
    assert len(bench.ring) == 10
    assert bench.ring.read_at is not None


async def test_an_empty_store_is_one_that_was_read(bench: Bench):
    """From then on a key is unknown, not unread."""
    await bench.reader.reread()
    assert bench.ring.find(b"hk-x", 0.0) == "unknown"


async def test_known_keys_take_turns_and_new_ones_do_not(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A new key works at once in a fleet of many; an edit is seen a few seconds later."""
    monkeypatch.setattr(key_reader, "KEYS_PER_REREAD", 4)
    for number in range(10):
        await bench.put(number)
    await bench.reader.reread()
    for number in range(10):
        await bench.put(number, "edited")
    await bench.put(99, "new")
    await bench.reader.reread()
    assert "new" in bench.tenants()
    assert 0 < bench.tenants().count("edited") <= 4
    for _ in range(2):
        await bench.reader.reread()
    assert bench.tenants().count("edited") == 10


async def test_a_store_that_is_away_changes_nothing(bench: Bench):
    """The reader says so to whoever runs it; the ring keeps its keys and its age."""
    await bench.put(1)
    await bench.reader.reread()
    read_at = bench.ring.read_at
    bench.store.is_down = True
    with pytest.raises(StoreError):
        await bench.reader.reread()
    assert (len(bench.ring), bench.ring.read_at) == (1, read_at)


async def test_a_record_that_cannot_be_used_is_counted_and_told_once(bench: Bench):
    """By the first digits of its id, never more of what may be a secret of somebody."""
    await bench.store.write_api_key("a" * 64, {"tenant": "no version"})
    await bench.reader.reread()
    await bench.reader.reread()
    assert bench.metrics.records_refused == {("ApiKey", "malformed"): 1}
    (event,) = bench.events.recent()
    assert event["kind"] == "record_refused"
    assert "aaaaaaaaaaaa…" in event["text"]
