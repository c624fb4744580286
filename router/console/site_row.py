"""One site as the console keeps it from one look to the next, and shows it."""

from __future__ import annotations

from dataclasses import dataclass

from router.console.facts import SiteFacts
from router.console.rates import SiteRates
from router.console.status import SiteStatus


@dataclass(slots=True, kw_only=True)
class SiteRow:
    """Changed in place by `router.live.console`, read by everything else."""

    facts: SiteFacts
    status: SiteStatus
    since_unix_seconds: float
    """Since when the status has this name, as far as this router saw."""
    rates: SiteRates
