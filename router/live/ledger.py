"""The router's own count of every request: opened once, closed once, by one owner, in `finally`.

The commonest bug of every peer is an in-flight count that leaks on error or cancel (FACTS.md); here there is
one place that counts, and one test per exit path.
"""

from __future__ import annotations

from typing import Literal, get_args

Outcome = Literal["completed", "shed", "client_cancelled", "broken", "client_error", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
UNKNOWN_MODEL = "unknown"
"""Label of requests for a model that no site serves: clients may not make up label values."""


class LedgerEntry:
    """One request. Its owner sets the outcome; what has none at the end has failed."""

    model = UNKNOWN_MODEL
    outcome: Outcome = "failed"
    first_token_at: float | None = None
    retries = 0
    resumes = 0
    is_closed = False

    def __init__(self, received_at: float) -> None:
        self.received_at = received_at


class Ledger:
    """Counts since the start of this process. `requests` = the sum of the outcomes + `in_flight`."""

    def __init__(self) -> None:
        self.requests = 0
        self.in_flight = 0
        self.retried = 0
        self.resumed = 0
        self.by_model: dict[tuple[str, Outcome], int] = {}

    def open(self) -> None:
        """A request has come in."""
        self.requests += 1
        self.in_flight += 1

    def close(self, entry: LedgerEntry) -> None:
        """It is over; a second call for the same request does nothing."""
        if entry.is_closed:
            return
        entry.is_closed = True
        self.in_flight -= 1
        key = (entry.model, entry.outcome)
        self.by_model[key] = self.by_model.get(key, 0) + 1
        if entry.retries:
            self.retried += 1
        if entry.resumes:
            self.resumed += 1

    def add(self, other: Ledger) -> None:
        """Count another process's requests here too."""
        self.requests += other.requests
        self.in_flight += other.in_flight
        self.retried += other.retried
        self.resumed += other.resumed
        for key, count in other.by_model.items():
            self.by_model[key] = self.by_model.get(key, 0) + count

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return sum(count for (_, ended), count in self.by_model.items() if ended == outcome)

    def totals(self) -> dict[str, int]:
        """What `GET /heron/v1/ledger` answers. `lost` is 0 by construction: every entry is closed with an
        outcome; the load generator counts from outside."""
        counts: dict[str, int] = {outcome: self.count(outcome) for outcome in OUTCOMES}
        return {
            "requests": self.requests,
            **counts,
            "lost": self.requests - self.in_flight - sum(counts.values()),
            "retried": self.retried,
            "resumed": self.resumed,
            "in_flight": self.in_flight,
        }
