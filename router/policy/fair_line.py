"""A line in which tenants are equals, whatever number of requests each has in it. Pure.

Start-time fair queueing by estimated tokens: the next place goes to the tenant that has had the fewest tokens
so far. A tenant that was away begins level with the others, it saves nothing up.

Whoever has waited LATE_SECONDS, or was refused before and comes again, is late and stands behind everybody
who is not. A tenant with late requests has its others served newest first; the rest, and the late ones among
themselves, are served in order. Served in order alone, a line that has grown long makes everybody late, those
too who come once there is room again; this way new requests are in time at once, and the late ones get what
is left over (after adaptive LIFO: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum
from typing import Any

from fleet.request import ServiceTier

LATE_SECONDS = 1.0
"""Whoever has waited so long has noticed."""
MAX_TAGS_KEPT = 64
"""Of tenants that wait no longer, beyond twice the number of those that do."""


class Lane(Enum):
    """How a request came to wait."""

    RESUME = "resume"
    RETURNING = "returning"
    NEW = "new"


class Ticket:
    """One request that waits. `payload` is the caller's."""

    __slots__ = (
        "body_bytes",
        "expires_at",
        "is_aside",
        "is_late",
        "is_patient",
        "lane",
        "model",
        "must_leave_room",
        "payload",
        "sequence",
        "start_by",
        "tenant",
        "tier",
        "tokens",
        "waits_since",
    )

    def __init__(
        self,
        *,
        model: str,
        tier: ServiceTier,
        tenant: str,
        tokens: int,
        waits_since: float,
        expires_at: float,
        lane: Lane = Lane.NEW,
        is_late: bool = False,
        is_patient: bool = False,
        start_by: float = math.inf,
        body_bytes: int = 0,
        payload: Any = None,
    ) -> None:
        self.model = model
        self.tier: ServiceTier = tier
        self.tenant = tenant
        self.tokens = tokens
        """Estimated, prompt and output: what it costs its tenant."""
        self.waits_since = waits_since
        self.expires_at = expires_at
        self.lane = lane
        self.body_bytes = body_bytes
        """Kept in memory as long as it waits."""
        self.payload = payload
        self.is_late = is_late
        """From the beginning where its client was refused before."""
        self.start_by = start_by
        """Later it would be of no use."""
        self.is_patient = is_patient
        """The policy would have it wait, though there is room."""
        self.is_aside = False
        """It may not go where there is room: it waits beside its tier."""
        self.must_leave_room = False
        """The place that is offered now is for it only if others find room after it."""
        self.sequence = 0


Fifo = OrderedDict[int, Ticket]
"""By sequence: any ticket can be taken out at once."""


class _Flow:
    """One tenant's waiting requests."""

    __slots__ = ("fresh", "late", "tag")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        """Tokens that this tenant has had, on the line's common scale."""
        self.fresh: Fifo = OrderedDict()
        self.late: Fifo = OrderedDict()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.late)

    def lane_of(self, ticket: Ticket) -> Fifo:
        return self.late if ticket.is_late else self.fresh

    def age(self, now: float) -> None:
        """Some are late now that were not before."""
        while self.fresh:
            ticket = next(iter(self.fresh.values()))
            if now - ticket.waits_since < LATE_SECONDS:
                return
            del self.fresh[ticket.sequence]
            ticket.is_late = True
            self.late[ticket.sequence] = ticket

    def head(self, *, late: bool) -> Ticket:
        if late:
            return next(iter(self.late.values()))
        fresh = self.fresh.values()
        return next(reversed(fresh) if self.late else iter(fresh))


class FairLine:
    """Requests of one tier for one model."""

    __slots__ = ("_clock", "_flows", "_keeps_order", "_served")

    def __init__(self, *, keeps_order: bool = False) -> None:
        """`keeps_order`: nobody is ever late (flex: nobody there is in a hurry)."""
        self._keeps_order = keeps_order
        self._flows: dict[str, _Flow] = {}
        self._clock = 0.0
        """The tag of the tenant served last: where a newcomer begins."""
        self._served: dict[str, float] = {}
        """Tags of tenants that wait no longer and are ahead of the clock; at most as many as were served."""

    def __bool__(self) -> bool:
        return bool(self._flows)

    def __len__(self) -> int:
        return sum(len(flow) for flow in self._flows.values())

    def add(self, ticket: Ticket) -> None:
        """Take it in; one that had a turn already goes before its tenant's others."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            tag = max(self._clock, self._served.pop(ticket.tenant, 0.0))
            flow = self._flows[ticket.tenant] = _Flow(tag)
        ticket.is_late = ticket.is_late and not self._keeps_order
        flow.lane_of(ticket)[ticket.sequence] = ticket
        if ticket.lane is Lane.RETURNING:
            flow.lane_of(ticket).move_to_end(ticket.sequence, last=False)

    def age(self, now: float) -> None:
        """Let those who have waited too long be late; before `has` and `head`."""
        if not self._keeps_order:
            for flow in self._flows.values():
                flow.age(now)

    def has(self, *, late: bool) -> bool:
        """Whether anybody waits who is late, or who is not."""
        return any(flow.late if late else flow.fresh for flow in self._flows.values())

    def head(self, *, late: bool) -> Ticket:
        """Whose turn it is, of those who are late or of those who are not (there must be one).

        Of tenants with equal rights, the one whose oldest came first.
        """
        flows = [flow for flow in self._flows.values() if (flow.late if late else flow.fresh)]
        flow = min(flows, key=lambda one: (one.tag, next(iter(one.late if late else one.fresh))))
        return flow.head(late=late)

    def ahead_of_newcomer(self, tenant: str) -> int:
        """How many of these get a place before a request of this tenant that arrives now, at most."""
        own = self._flows.get(tenant)
        before = sum(len(flow.fresh) for flow in self._flows.values())
        return before - len(own.fresh) if own is not None and own.late else before

    def serve(self, ticket: Ticket) -> None:
        """It has its place: its tenant pays."""
        flow = self._flows[ticket.tenant]
        self._clock = flow.tag
        flow.tag += max(1, ticket.tokens)
        self.remove(ticket)

    def charge(self, ticket: Ticket) -> None:
        """It has its place without standing in this line: its tenant pays all the same."""
        flow = self._flows.get(ticket.tenant)
        if flow is not None:
            flow.tag += max(1, ticket.tokens)
        elif self._flows:
            tag = max(self._clock, self._served.get(ticket.tenant, 0.0))
            self._served[ticket.tenant] = tag + max(1, ticket.tokens)

    def remove(self, ticket: Ticket) -> None:
        """Take it out, unserved."""
        flow = self._flows[ticket.tenant]
        del flow.lane_of(ticket)[ticket.sequence]
        if flow:
            return
        del self._flows[ticket.tenant]
        if not self._flows:
            self._served.clear()
            self._clock = 0.0
            return
        if flow.tag > self._clock:
            self._served[ticket.tenant] = flow.tag
        if len(self._served) > 2 * len(self._flows) + MAX_TAGS_KEPT:
            self._served = {name: tag for name, tag in self._served.items() if tag > self._clock}

    def newest_of(self, tenant: str) -> Ticket | None:
        """The tenant's newest request that never had a turn."""
        flow = self._flows.get(tenant)
        waiting = () if flow is None else (*flow.late.values(), *flow.fresh.values())
        new = (one for one in waiting if one.lane is Lane.NEW)
        return max(new, key=lambda one: one.sequence, default=None)
