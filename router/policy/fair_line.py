"""A line in which tenants are equals, whatever number of requests each has in it. Pure.

Start-time fair queueing by estimated tokens: the next place goes to the tenant that has had the fewest tokens
so far. A tenant that was away begins level with the others, it saves nothing up. Within a tenant: first come
first served.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Any

from fleet.request import ServiceTier

MAX_TAGS_KEPT = 64
"""Of tenants that wait no longer, beyond twice the number of those that do."""


class Lane(Enum):
    """How a request came to wait."""

    RESUME = "resume"
    RETURNING = "returning"
    NEW = "new"


class Ticket:
    """One request that waits. `payload` is the caller's."""

    __slots__ = ("expires_at", "lane", "model", "payload", "sequence", "tenant", "tier", "tokens")

    def __init__(
        self,
        *,
        model: str,
        tier: ServiceTier,
        tenant: str,
        tokens: int,
        expires_at: float,
        lane: Lane = Lane.NEW,
        payload: Any = None,
    ) -> None:
        self.model = model
        self.tier: ServiceTier = tier
        self.tenant = tenant
        self.tokens = tokens
        """Estimated, prompt and output: what it costs its tenant."""
        self.expires_at = expires_at
        self.lane = lane
        self.payload = payload
        self.sequence = 0


Fifo = OrderedDict[int, Ticket]
"""By sequence: any ticket can be taken out at once."""


class _Flow:
    """One tenant's waiting requests."""

    __slots__ = ("tag", "tickets")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        """Tokens that this tenant has had, on the line's common scale."""
        self.tickets: Fifo = OrderedDict()


class FairLine:
    """Requests of one tier for one model."""

    __slots__ = ("_clock", "_flows", "_served")

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._clock = 0.0
        """The tag of the tenant served last: where a newcomer begins."""
        self._served: dict[str, float] = {}
        """Tags of tenants that wait no longer and are ahead of the clock; at most as many as were served."""

    def __bool__(self) -> bool:
        return bool(self._flows)

    def __len__(self) -> int:
        return sum(len(flow.tickets) for flow in self._flows.values())

    def add(self, ticket: Ticket) -> None:
        """Take it in; one that had a turn already goes before its tenant's others."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            tag = max(self._clock, self._served.pop(ticket.tenant, 0.0))
            flow = self._flows[ticket.tenant] = _Flow(tag)
        flow.tickets[ticket.sequence] = ticket
        if ticket.lane is Lane.RETURNING:
            flow.tickets.move_to_end(ticket.sequence, last=False)

    def head(self) -> Ticket:
        """Whose turn it is; the oldest of those with equal rights."""
        flow = min(self._flows.values(), key=lambda one: (one.tag, next(iter(one.tickets))))
        return next(iter(flow.tickets.values()))

    def serve(self, ticket: Ticket) -> None:
        """It has its place: its tenant pays."""
        flow = self._flows[ticket.tenant]
        self._clock = flow.tag
        flow.tag += max(1, ticket.tokens)
        self.remove(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take it out, unserved."""
        flow = self._flows[ticket.tenant]
        del flow.tickets[ticket.sequence]
        if flow.tickets:
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
        new = () if flow is None else (one for one in flow.tickets.values() if one.lane is Lane.NEW)
        return max(new, key=lambda one: one.sequence, default=None)
