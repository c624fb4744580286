"""What stands in shared memory is there for whoever reads it, at any moment."""

from __future__ import annotations

from typing import Any

import pytest

from router.live.ledger import UNKNOWN_MODEL, LedgerEntry, Outcome
from router.workers.shared import MODELS, NAME_BYTES, SharedLedger, SharedMemory


@pytest.fixture
def memory() -> SharedMemory:
    """Of two workers."""
    return SharedMemory.create(2)


def serve(ledger: SharedLedger, model: str, outcome: Outcome, **changes: Any) -> None:
    """One request from its beginning to its end."""
    entry = LedgerEntry(0.0)
    ledger.open()
    entry.model, entry.outcome = model, outcome
    for name, value in changes.items():
        setattr(entry, name, value)
    ledger.close(entry)


def test_the_parent_reads_what_the_worker_counted(memory: SharedMemory) -> None:
    """By model and outcome, with what is in flight; of another mapping of the same memory."""
    ledger = SharedLedger(memory.pages[1])
    serve(ledger, "m", "completed", retries=1)
    serve(ledger, "m", "completed")
    serve(ledger, "n", "shed", resumes=2)
    ledger.open()
    read = SharedMemory(memory.descriptor, 2).pages[1].read_ledger()
    assert read.by_model == {("m", "completed"): 2, ("n", "shed"): 1} == ledger.by_model
    assert read.totals() == ledger.totals()
    assert read.in_flight == 1
    assert memory.pages[0].read_ledger().requests == 0


def test_a_request_that_is_closed_twice_is_counted_once(memory: SharedMemory) -> None:
    """As in the ledger itself."""
    ledger = SharedLedger(memory.pages[0])
    entry = LedgerEntry(0.0)
    ledger.open()
    ledger.close(entry)
    ledger.close(entry)
    assert memory.pages[0].read_ledger().by_model == {(UNKNOWN_MODEL, "failed"): 1}


def test_models_beyond_the_rows_are_counted_as_unknown(memory: SharedMemory) -> None:
    """And so is one whose name is too long: no request goes uncounted."""
    ledger = SharedLedger(memory.pages[0])
    for number in range(MODELS + 5):
        serve(ledger, f"m{number}", "completed")
    serve(ledger, "x" * (NAME_BYTES + 1), "completed")
    read = memory.pages[0].read_ledger()
    assert read.requests == MODELS + 6 == read.count("completed")
    assert read.by_model[UNKNOWN_MODEL, "completed"] == 7


def test_a_dead_worker_leaves_nothing_behind(memory: SharedMemory) -> None:
    """Its page is empty, its requests are at no site; the other's stay."""
    serve(SharedLedger(memory.pages[0]), "m", "completed")
    memory.pages[0].count_closed()
    for own in (0, 1):
        memory.part(3, own).in_flight[own] += 2
    memory.clear_worker(0)
    assert memory.pages[0].read_ledger().requests == memory.pages[0].closed == 0
    assert list(memory.part(3, 1).in_flight) == [0, 2]


def test_a_slot_is_emptied_once_no_worker_has_requests_there(memory: SharedMemory) -> None:
    """Nothing of its last (site, model) is left to the next one."""
    part = memory.part(3, 1)
    part.in_flight[1], part.figure[0] = 1, 5 << 32
    part.prefill_clear_at[0], part.worked_off_at[0] = 1.5, 2.5
    assert not memory.empty(3)
    assert part.figure[0] == 5 << 32
    part.in_flight[1] = 0
    assert memory.empty(3)
    assert (part.figure[0], part.prefill_clear_at[0], part.worked_off_at[0]) == (0, 0.0, 0.0)


def test_slots_do_not_overlap(memory: SharedMemory) -> None:
    """Neither counts nor the moments at which prompts are read."""
    first, second = memory.part(0, 0), memory.part(1, 0)
    first.in_flight[0] = 5
    first.prefill_clear_at[0], first.worked_off_at[0] = 1.5, 2.5
    assert list(second.in_flight) == [0, 0]
    assert second.prefill_clear_at[0] == second.worked_off_at[0] == 0.0
    assert (first.prefill_clear_at[0], first.worked_off_at[0], first.figure[0]) == (1.5, 2.5, 0)
