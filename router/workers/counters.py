"""The console's counters of all workers together. Their metrics come every few seconds; the ledger is shared
memory, and always current.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.console.facts import Counters
from router.live.console_counters import make_counters
from router.live.ledger import Ledger
from router.workers.merge import Page, sums


def workers_counters(ledger: Ledger, pages: Sequence[Page]) -> Counters:
    """`pages`: as workers said them last, of dead ones too."""
    return make_counters(
        ledger,
        resumes=sums(pages, "heron_router_resumes", "method", "result"),
        retries=_by_one(pages, "heron_router_retries", "reason"),
        refusals=_by_one(pages, "heron_router_refusals", "code"),
        ttft={
            float(bound): count
            for (bound,), count in sums(pages, "heron_router_ttft_seconds", "le", suffix="_bucket").items()
        },
    )


def _by_one(pages: Sequence[Page], name: str, label: str) -> dict[str, int]:
    return {value: round(count) for (value,), count in sums(pages, name, label).items()}
