"""What a router knows at one instant, as the console reads it. Pure.

Rule: `None` is unknown, never zero; nothing here is older than its own age says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.records import Plan, PowerReading, SiteInfo, SiteReport
from router.policy.snapshot import SiteView

Buckets = Mapping[float, float]
"""Upper bound in seconds → how many were not above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """One site."""

    site_id: str
    report: SiteReport | None = None
    info: SiteInfo | None = None
    power: PowerReading | None = None
    """The feed's newest reading for it."""
    view: SiteView | None = None
    """None: nothing may be sent there, since its ingress_url is not allowed, or not looked up yet."""
    arrived_at: float = 0.0
    """When its newest report came (monotonic)."""
    clock_skew_seconds: float = 0.0
    """Clock here less clock there."""
    is_clock_off: bool = False
    """By too much."""
    breaker: str = "closed"
    in_flight: int = 0
    """Requests of this router there now."""
    requests: int = 0
    """Sent there since the start, resumes and retries too."""
    results: Mapping[str, int] = field(default_factory=dict)
    pushbacks: Mapping[str, int] = field(default_factory=dict)
    in_flight_by_model: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Of this router since its start; they only grow."""

    ledger: Mapping[str, int] = field(default_factory=dict)
    """`Ledger.totals`."""
    resumed: int = 0
    """Broken streams that went on elsewhere."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """Streams that ended broken, by the code that the client was given."""
    not_resumed: Mapping[str, int] = field(default_factory=dict)
    """Tries to go on that failed, by why; another may have gone well."""
    retries: Mapping[str, int] = field(default_factory=dict)
    """Requests sent to another site, by why."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Requests that the router refused, by the code that the client was given."""
    ttft: Buckets = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """The plan in use, and this router's part in making plans."""

    plan: Plan | None = None
    age_seconds: float = 0.0
    is_planner: bool = False
    """This router may lead."""
    is_leader: bool = False

    @property
    def is_valid(self) -> bool:
        """Whether decisions still read it."""
        return self.plan is not None and self.age_seconds <= self.plan.valid_for_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacts:
    """The router itself."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """`Presence.about`."""
    fleet: str = ""
    started_at_unix_seconds: float = 0.0
    not_ready: str | None = None
    """Why clients should not be sent here; None: they may."""
    held: int = 0
    is_store_up: bool | None = None
    """None before the first answer."""
    workers: Sequence[Mapping[str, Any]] = ()
    """As `GET /heron/v1/fleet` has them; empty: this process forwards itself."""
    plan: PlanFacts = PlanFacts()
