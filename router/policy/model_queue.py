"""All that waits for one model, line by line, and whose turn it is (order: `router.policy.queue`). Pure."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain

from fleet.request import ServiceTier
from router.policy.fair_line import FairLine, Fifo, Lane, Ticket

PRIORITY_RUN = 4
"""Places in a row for priority while default waits."""
FRESH_RUN = 4
"""Places in a row for those that are not late while others are."""
TIERS: tuple[ServiceTier, ...] = ("priority", "default", "flex")


class ModelQueue:
    """All that waits for one model."""

    __slots__ = (
        "aside",
        "fresh_run",
        "patient",
        "patient_at",
        "priority_run",
        "resumes",
        "returning",
        "tiers",
    )

    def __init__(self) -> None:
        self.resumes: Fifo = OrderedDict()
        self.returning: Fifo = OrderedDict()
        self.aside: dict[ServiceTier, Fifo] = {tier: OrderedDict() for tier in TIERS}
        self.patient: dict[ServiceTier, Fifo] = {"priority": OrderedDict(), "default": OrderedDict()}
        self.patient_at = float("-inf")
        """When they are asked about next."""
        self.tiers: dict[ServiceTier, FairLine] = {
            tier: FairLine(keeps_order=tier == "flex") for tier in TIERS
        }
        self.priority_run = 0
        self.fresh_run = 0

    def is_empty(self) -> bool:
        return not (self.resumes or self.returning or self.apart or any(self.tiers.values()))

    @property
    def has_patient(self) -> bool:
        """Whether anybody is."""
        return bool(self.patient["priority"] or self.patient["default"])

    @property
    def apart(self) -> int:
        """How many have had their turn and wait beside their tier."""
        patient, aside = self.patient, self.aside  # one by one: this is asked after each place
        few = len(patient["priority"]) + len(patient["default"])
        return few + len(aside["priority"]) + len(aside["default"]) + len(aside["flex"])

    def fifo_of(self, ticket: Ticket) -> Fifo | None:
        """The plain line that a ticket stands in; None: its tier's. Flex that returns stays flex."""
        if ticket.lane is Lane.RESUME:
            return self.resumes
        if ticket.is_aside:
            return self.aside[ticket.tier]
        if ticket.is_patient:
            return self.patient["priority" if ticket.tier == "priority" else "default"]
        return self.returning if ticket.lane is Lane.RETURNING and ticket.tier != "flex" else None

    def newest_of(self, tier: ServiceTier, tenant: str) -> Ticket | None:
        """The tenant's newest request of this tier that never had a turn."""
        fifos = chain(self.patient.values(), self.aside.values())
        apart = (
            one
            for one in chain.from_iterable(fifo.values() for fifo in fifos)
            if one.lane is Lane.NEW and one.tier == tier and one.tenant == tenant
        )
        waiting = [*apart, *filter(None, [self.tiers[tier].newest_of(tenant)])]
        return max(waiting, key=lambda one: one.sequence, default=None)

    def age(self, now: float) -> None:
        for line in self.tiers.values():
            line.age(now)

    def next_tier(self, *, late: bool) -> ServiceTier | None:
        """The tier whose turn it is, of those that are not flex."""
        has_default = self.tiers["default"].has(late=late)
        if self.tiers["priority"].has(late=late) and not (has_default and self.priority_run >= PRIORITY_RUN):
            return "priority"
        return "default" if has_default else None

    def turn(self) -> tuple[ServiceTier, bool] | None:
        """The tier whose turn it is, and whether that of its late ones; None: only flex waits, or nobody."""
        fresh, late = self.next_tier(late=False), self.next_tier(late=True)
        if fresh is not None and (late is None or self.fresh_run < FRESH_RUN):
            return fresh, False
        return None if late is None else (late, True)

    def take_turn(self, tier: ServiceTier, *, late: bool) -> None:
        """A place was given."""
        self.priority_run = self.priority_run + 1 if tier == "priority" else 0
        self.fresh_run = 0 if late or self.next_tier(late=True) is None else self.fresh_run + 1
