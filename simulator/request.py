"""One simulated request from the router's side, and what may become of it."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

from fleet.request import RequestFeatures


class Outcome(IntEnum):
    """Where a request stands at the end of a run; every offered one is in exactly one of these."""

    IN_FLIGHT = 0
    """Accepted, or waiting for a place, when the run ended."""
    SERVED = 1
    SHED = 2
    """Refused for want of room or power, before it had a token."""
    BROKEN = 3
    """Accepted, and ended with a stated error."""


class SimRequest:
    """Mutable; one per offered request while it lives."""

    __slots__ = (
        "arrived_at",
        "attempts",
        "breaks",
        "excluded",
        "failures",
        "features",
        "first_token_at",
        "has_had_turn",
        "hold_until",
        "index",
        "is_cut",
        "is_patient",
        "is_power",
        "load",
        "outcome",
        "output_tokens",
        "probe",
        "produced_tokens",
        "prompt_tokens",
        "pushbacks",
        "resume_until",
        "site",
        "start_by",
        "ticket",
        "view",
    )

    def __init__(
        self,
        *,
        index: int,
        arrived_at: float,
        prompt_tokens: int,
        output_tokens: int,
        features: RequestFeatures,
        hold_until: float,
    ) -> None:
        """`output_tokens` are what it will produce; only the engine that serves it may look at them."""
        self.index = index
        self.arrived_at = arrived_at
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.features = features
        self.hold_until = hold_until
        self.start_by = math.inf
        """Later it cannot be within its class's SLO."""
        self.is_patient = False
        """The policy would have it wait, though there is room."""
        self.excluded: dict[str, int] = {}
        self.probe = 0
        """Its number where it asks whether a breaker's site is well again."""
        self.pushbacks = 0
        self.failures = 0
        self.attempts = 0
        """Times that it was sent to a site."""
        self.breaks = 0
        self.produced_tokens = 0
        """What its client has of the answer, before the present attempt."""
        self.first_token_at: float | None = None
        self.has_had_turn = False
        self.is_cut = False
        """A site dropped it; it goes before new work."""
        self.is_power = False
        self.resume_until = 0.0
        self.outcome = Outcome.IN_FLIGHT
        self.ticket: Any = None
        """While it waits."""
        self.load: Any = None
        """`router.policy.load.Load` where it is, while it is somewhere."""
        self.site: Any = None
        """`simulator.site.SimulatedSite`, likewise."""
        self.view: Any = None
        """The view on which it was sent there."""

    @property
    def is_resume(self) -> bool:
        """Whether its client has begun to read."""
        return self.produced_tokens > 0
