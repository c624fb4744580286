"""Every request is counted once."""

from __future__ import annotations

from router.live.ledger import Ledger, LedgerEntry


def test_the_sum_is_right():
    """Requests = outcomes + in flight."""
    ledger = Ledger()
    entries = []
    for outcome in ("completed", "shed", "failed", "broken", "client_cancelled", "completed"):
        ledger.open()
        entry = LedgerEntry(1.0)
        entry.outcome = outcome  # type: ignore[assignment]
        entries.append(entry)
    for entry in entries[:4]:
        ledger.close(entry)
    totals = ledger.totals()
    assert (totals["requests"], totals["in_flight"], totals["lost"]) == (6, 2, 0)
    assert (totals["completed"], totals["shed"], totals["failed"], totals["broken"]) == (1, 1, 1, 1)


def test_closing_twice_counts_once():
    """There is one owner, and still."""
    ledger = Ledger()
    ledger.open()
    entry = LedgerEntry(1.0)
    ledger.close(entry)
    ledger.close(entry)
    assert (ledger.totals()["failed"], ledger.in_flight) == (1, 0)


def test_retries_and_resumes_count_requests():
    """Not tries."""
    ledger = Ledger()
    ledger.open()
    entry = LedgerEntry(1.0)
    entry.retries, entry.resumes = 3, 2
    ledger.close(entry)
    assert (ledger.totals()["retried"], ledger.totals()["resumed"]) == (1, 1)
