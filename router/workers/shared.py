"""The memory that a parent and its workers share: what must survive a worker that is killed, and what every
worker must know of the others at once.

Per worker a page: connections that ended, and its ledger, by model. Only that worker writes it; the parent
reads it at any time and clears it once the worker is dead. For all workers a board: per (site, model) how
many requests each worker has there now (`router.policy.shared_load.Shared`).

Every number is eight bytes at a multiple of eight, so a reader sees it either before or after a change.
"""

from __future__ import annotations

import mmap
import os

from router.live.ledger import OUTCOMES, UNKNOWN_MODEL, Ledger, LedgerEntry
from router.policy.shared_load import Shared

WORD = 8
HEAD_WORDS = 8
MODELS = 256
"""Rows of a worker's ledger; what comes after them is counted as of an unknown model."""
NAME_BYTES = 248
ROW_WORDS = 1 + NAME_BYTES // WORD + len(OUTCOMES)
"""Length of the name, name, one count per outcome."""
PAGE_WORDS = HEAD_WORDS + MODELS * ROW_WORDS
SLOTS = 8192
"""(site, model) pairs on the board; of those beyond it each worker only knows its own requests."""
OFFSETS = {outcome: offset for offset, outcome in enumerate(OUTCOMES)}
CLOSED, REQUESTS, RETRIED, RESUMED, ROWS = range(5)
"""Words of a page's head."""


class WorkerPage:
    """One worker's page."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` is this page's bytes."""
        self._bytes = memory
        self.words = memory.cast("q")

    @property
    def closed(self) -> int:
        """Connections that were handed to this worker and are over."""
        closed: int = self.words[CLOSED]
        return closed

    @property
    def requests(self) -> int:
        """Requests that came."""
        requests: int = self.words[REQUESTS]
        return requests

    def count_closed(self) -> None:
        """A connection is over. Called by the worker."""
        self.words[CLOSED] += 1

    def new_row(self, model: str) -> int | None:
        """Where a model's outcomes are counted from now on; None: there is no room. Called by the worker."""
        name, rows = model.encode(), self.words[ROWS]
        if rows >= MODELS or len(name) > NAME_BYTES:
            return None
        first = HEAD_WORDS + rows * ROW_WORDS
        start = (first + 1) * WORD
        self._bytes[start : start + len(name)] = name
        self.words[first] = len(name)
        self.words[ROWS] = rows + 1
        return first + 1 + NAME_BYTES // WORD

    def read_ledger(self) -> Ledger:
        """The ledger as the page has it; what has no outcome yet is in flight. Called by the parent."""
        ledger = Ledger()
        words = self.words
        for row in range(words[ROWS]):
            first = HEAD_WORDS + row * ROW_WORDS
            start = (first + 1) * WORD
            model = bytes(self._bytes[start : start + words[first]]).decode()
            counts = first + 1 + NAME_BYTES // WORD
            for offset, outcome in enumerate(OUTCOMES):
                if count := words[counts + offset]:
                    ledger.by_model[model, outcome] = count
        ledger.retried, ledger.resumed = words[RETRIED], words[RESUMED]
        ledger.requests = words[REQUESTS]  # after the outcomes: a request that is read as over has begun
        ledger.in_flight = max(0, ledger.requests - sum(ledger.by_model.values()))
        return ledger

    def clear(self) -> None:
        """The worker is dead and has been counted. Called by the parent."""
        self._bytes[:] = bytes(len(self._bytes))


class SharedMemory:
    """All pages and the board; in the parent and in every worker."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """`descriptor` is of a memory file; it stays open."""
        self.descriptor = descriptor
        self._workers = workers
        self._map = mmap.mmap(descriptor, _size(workers))
        memory = memoryview(self._map)
        page_bytes = PAGE_WORDS * WORD
        self.pages = [
            WorkerPage(memory[index * page_bytes : (index + 1) * page_bytes]) for index in range(workers)
        ]
        board = memory[workers * page_bytes :]
        self._clear_at = board[: SLOTS * WORD].cast("d")
        self._worked_off_at = board[SLOTS * WORD : 2 * SLOTS * WORD].cast("d")
        self._figures = board[2 * SLOTS * WORD : 3 * SLOTS * WORD].cast("q")
        self._in_flight = board[3 * SLOTS * WORD :].cast("q")

    @classmethod
    def create(cls, workers: int) -> SharedMemory:
        """Anonymous memory that children may inherit; gone with the last process that has it."""
        descriptor = os.memfd_create("heron-router")
        os.ftruncate(descriptor, _size(workers))
        return cls(descriptor, workers)

    def part(self, slot: int, own: int, *, takes_reports: bool = False) -> Shared:
        """A (site, model)'s part of the board, as the worker `own` uses it, or the parent, which has none."""
        first = slot * self._workers
        return Shared(
            in_flight=self._in_flight[first : first + self._workers],
            own=own,
            takes_reports=takes_reports,
            figure=self._figures[slot : slot + 1],
            prefill_clear_at=self._clear_at[slot : slot + 1],
            worked_off_at=self._worked_off_at[slot : slot + 1],
        )

    def empty(self, slot: int) -> bool:
        """Make a slot as new, for another (site, model); False: workers have requests there. Called by the
        parent."""
        first = slot * self._workers
        if any(self._in_flight[first : first + self._workers]):
            return False
        self._figures[slot] = 0
        self._clear_at[slot] = self._worked_off_at[slot] = 0.0
        return True

    def clear_worker(self, index: int) -> None:
        """The worker is dead: its requests are at no site any more."""
        self.pages[index].clear()
        for slot in range(SLOTS):
            self._in_flight[slot * self._workers + index] = 0


class SharedLedger(Ledger):
    """A worker's ledger, which the parent can read even when the worker is killed."""

    def __init__(self, page: WorkerPage) -> None:
        super().__init__()
        self._page = page
        self._rows: dict[str, int] = {}
        row = page.new_row(UNKNOWN_MODEL)
        assert row is not None, "an empty page has room"
        self._rows[UNKNOWN_MODEL] = row

    def open(self) -> None:
        super().open()
        self._page.words[REQUESTS] = self.requests

    def close(self, entry: LedgerEntry) -> None:
        if entry.is_closed:
            return
        super().close(entry)
        words = self._page.words
        if entry.retries or entry.resumes:
            words[RETRIED], words[RESUMED] = self.retried, self.resumed
        words[self._row(entry.model) + OFFSETS[entry.outcome]] += 1

    def _row(self, model: str) -> int:
        row = self._rows.get(model)
        if row is None:
            row = self._page.new_row(model) or self._rows[UNKNOWN_MODEL]
            if len(self._rows) < MODELS:
                self._rows[model] = row
        return row


def _size(workers: int) -> int:
    return WORD * (workers * PAGE_WORDS + 3 * SLOTS + SLOTS * workers)
