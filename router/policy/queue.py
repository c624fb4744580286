"""Who is next among the requests that wait for room. Pure: no loop, no clock; time is an argument.

The order, for each model:
  1. resumes: streams that lost their site, first come first served;
  2. returning: requests that had a turn at a site already, first come first served;
  3. `priority` and `default`: after PRIORITY_RUN places in a row for priority, one for default if any waits,
     so default gets at least one place in PRIORITY_RUN + 1 and never starves. First those that are not late,
     then, in the same way, the late ones, each only if it leaves room for newcomers (`must_leave_room`); but
     after FRESH_RUN places in a row for others, one late request, so that they never starve either;
  4. the patient: those that the policy would rather not place now, though there is room (`router.policy.
     triage`); each is asked about again by itself, `priority` first, all in turn, and stands in nobody's way;
  5. `flex`, only while nobody of 1 to 3 waits.
Whoever of a tier was at its turn, and may not go where there is room (the site that it needs is full or
dark), stands aside: it is asked about first of its tier from then on, and holds nobody up.
Within a tier tenants are equals, whatever number of requests each has waiting (`router.policy.fair_line`).

The queue is bounded per tier. When it is full, the tenant with the most waiting gives up its newest request,
which may be the newcomer itself. Over all tiers the bodies of what waits are bounded too: there the tenant
with the most bytes gives up its newest (`make_room`). A request waits until its own `expires_at`, no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import islice

from fleet.request import ServiceTier
from router.policy.fair_line import Fifo, Lane, Ticket
from router.policy.model_queue import FRESH_RUN, TIERS, ModelQueue
from router.policy.triage import PATIENCE_RATIO

LATE_RESERVE_RATIO = 0.05
"""Of a site's capacity, kept free by those that are late for those that come: with every slot taken a new
request would wait for one, and be late too."""
MAX_WAITING_BYTES = 512 * 2**20
"""Of the bodies of all that wait; `hold_requests` of the largest in each tier would be 200 GB."""
MAX_GIVING_WAY = 16
"""Of another tenant's requests, for one that needs their memory; where it needs more it is refused itself."""
MAX_SKIPPED = 64
"""Resumes, returning or patient requests passed over, for sites that they exclude or are not worth, before
the rest must wait too."""
MAX_ASIDE = 16
"""Of those that stand aside, in one pass: there is one for every request that ends."""
PATIENT_SECONDS = 0.02
"""The patient are asked about no more often."""


class Offer(Enum):
    """What became of a place that was asked for."""

    PLACED = "placed"
    NO_ROOM = "no_room"
    """Nobody like it fits now."""
    NOT_THIS = "not_this"
    """It excludes the sites that have room; another one may fit."""
    NOT_YET = "not_yet"
    """The policy would have it wait: it is one of the patient from now on."""
    GONE = "gone"
    """It waits no longer: take it out."""


class HoldQueue:
    """Mutable, one per process: all models, all tiers."""

    def __init__(self, *, max_waiting: int, max_bytes: int = MAX_WAITING_BYTES) -> None:
        """`max_waiting`: new requests of each tier; `max_bytes`: of the bodies of all. Resumes and returning
        ones are always taken in."""
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self.waiting_bytes = 0
        """Of all bodies."""
        self._new_bytes: dict[str, int] = {}
        """Of new requests by tenant."""
        self._models: dict[str, ModelQueue] = {}
        self._tickets: dict[int, Ticket] = {}
        self._waiting: dict[ServiceTier, dict[str, int]] = {tier: {} for tier in TIERS}
        """New requests by tier and tenant."""
        self._new: dict[ServiceTier, int] = dict.fromkeys(TIERS, 0)
        self._sequence = 0
        self.next_expiry_at = float("inf")
        """No ticket expires before; one may have left since."""

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket.sequence in self._tickets

    @property
    def by_tier(self) -> dict[ServiceTier, int]:
        """How many wait, resumes and returning ones too."""
        counts = dict.fromkeys(TIERS, 0)
        for ticket in self._tickets.values():
            counts[ticket.tier] += 1
        return counts

    @property
    def has_patient(self) -> bool:
        """Whether anybody waits whom the policy would rather not place now."""
        return any(queue.has_patient for queue in self._models.values())

    def models(self) -> list[str]:
        """Models that somebody waits for."""
        return list(self._models)

    def is_before(
        self, model: str, tier: ServiceTier, now: float, *, is_resume: bool, is_late: bool = False
    ) -> bool:
        """Whether anybody waits who comes before a request that arrives now."""
        queue = self._models.get(model)
        if queue is None:
            return False
        if queue.resumes or is_resume:
            return bool(queue.resumes)
        if queue.returning:
            return True
        if tier == "flex":
            return any(queue.tiers.values())
        queue.age(now)
        return queue.next_tier(late=False) is not None or (is_late and queue.next_tier(late=True) is not None)

    def ahead(self, model: str, tier: ServiceTier, tenant: str, now: float) -> int:
        """How many may get a place before one that arrives now, at most: all but those of lower tiers."""
        queue = self._models.get(model)
        if queue is None:
            return 0
        waiting = len(queue.resumes) + len(queue.returning)
        for other in TIERS[: TIERS.index(tier)]:
            waiting += len(queue.tiers[other])
        queue.age(now)
        return waiting + queue.tiers[tier].ahead_of_newcomer(tenant)

    def make_room(self, ticket: Ticket) -> list[Ticket] | None:
        """Where bodies take too much memory with this one's, let the tenant with the most bytes give up its
        newest. Returns the tickets that had to give way, which are out then; None: it must itself."""
        over = self.waiting_bytes + ticket.body_bytes - self._max_bytes
        if over <= 0 or ticket.lane is not Lane.NEW:
            return []
        by_tenant = self._new_bytes
        largest = max(by_tenant, key=lambda tenant: (by_tenant[tenant], tenant), default=ticket.tenant)
        own = by_tenant.get(ticket.tenant, 0) + ticket.body_bytes
        if largest == ticket.tenant or own >= by_tenant[largest]:
            return None
        tickets = (one for one in self._tickets.values() if one.tenant == largest and one.lane is Lane.NEW)
        give_way: list[Ticket] = []
        for one in sorted(tickets, key=lambda one: -one.sequence)[:MAX_GIVING_WAY]:
            give_way.append(one)
            over -= one.body_bytes
            if over <= 0:
                for other in give_way:
                    self.remove(other)
                return give_way
        return None

    def add(self, ticket: Ticket) -> Ticket | None:
        """Take it in. Returns the ticket that had to give way because the tier is full: itself, or another
        one, which is out then."""
        if ticket.is_patient:
            _limit_patience(ticket, ticket.waits_since)
        gives_way = None
        if ticket.lane is Lane.NEW and self._new[ticket.tier] >= self._max_waiting:
            gives_way = self._newest_of_the_largest(ticket)
            if gives_way is ticket:
                return ticket
            self.remove(gives_way)
        self._sequence += 1
        ticket.sequence = self._sequence
        self._tickets[ticket.sequence] = ticket
        self.waiting_bytes += ticket.body_bytes
        if ticket.lane is Lane.NEW:
            self._new[ticket.tier] += 1
            tenants = self._waiting[ticket.tier]
            tenants[ticket.tenant] = tenants.get(ticket.tenant, 0) + 1
            if ticket.body_bytes:
                self._new_bytes[ticket.tenant] = self._new_bytes.get(ticket.tenant, 0) + ticket.body_bytes
        queue = self._models.setdefault(ticket.model, ModelQueue())
        fifo = queue.fifo_of(ticket)
        if fifo is None:
            queue.tiers[ticket.tier].add(ticket)
        else:
            fifo[ticket.sequence] = ticket
        self.next_expiry_at = min(self.next_expiry_at, ticket.expires_at)
        return gives_way

    def remove(self, ticket: Ticket) -> None:
        """It waits no longer: its client left, its time is over, or it gave way."""
        if ticket.sequence not in self._tickets:
            return
        queue = self._models[ticket.model]
        fifo = queue.fifo_of(ticket)
        if fifo is None:
            queue.tiers[ticket.tier].remove(ticket)
        else:
            del fifo[ticket.sequence]
        self._forget(ticket, queue)

    def expire(self, now: float) -> list[Ticket]:
        """Take out those whose time is over."""
        if now < self.next_expiry_at:
            return []
        over = [ticket for ticket in self._tickets.values() if ticket.expires_at <= now]
        for ticket in over:
            self.remove(ticket)
        times = (ticket.expires_at for ticket in self._tickets.values())
        self.next_expiry_at = min(times, default=float("inf"))
        return over

    def serve(
        self,
        model: str,
        offer: Callable[[Ticket], Offer],
        now: float,
        stays_shut: Callable[[Ticket], bool] = lambda _ticket: False,
    ) -> None:
        """Offer places in order. `offer` tries to place one ticket and says how it went; `stays_shut` says of
        a patient one, at little cost, that it would be NOT_YET again.
        """
        queue = self._models.get(model)
        if queue is None:
            return
        for fifo in (queue.resumes, queue.returning):
            self._serve_fifo(queue, fifo, offer, now)
        self._serve_aside(queue, ("priority", "default"), offer, now)
        queue.age(now)
        most_apart = queue.apart + MAX_SKIPPED
        while (turn := queue.turn()) is not None:
            if not self._serve_tier(queue, turn[0], offer, now, late=turn[1]):
                return
            if queue.apart >= most_apart:
                return  # the rest at the next pass: each of these was a decision
        if queue.has_patient and not now < queue.patient_at < now + 2 * PATIENT_SECONDS:
            queue.patient_at = now + PATIENT_SECONDS
            for fifo in queue.patient.values():
                self._serve_patient(queue, fifo, offer, stays_shut)
        if queue.resumes or queue.returning:
            return
        self._serve_aside(queue, ("flex",), offer, now)
        while queue.tiers["flex"] and queue.apart < most_apart:
            if not self._serve_tier(queue, "flex", offer, now):
                return

    def _serve_aside(
        self,
        queue: ModelQueue,
        tiers: tuple[ServiceTier, ...],
        offer: Callable[[Ticket], Offer],
        now: float,
    ) -> None:
        """Ask about so many of each tier, each once; those beyond get their turn at the next pass."""
        for tier in tiers:
            fifo = queue.aside[tier]
            if not fifo:
                continue
            is_all = len(fifo) <= MAX_ASIDE
            for ticket in list(islice(fifo.values(), MAX_ASIDE)):
                result = offer(ticket)
                if result is Offer.PLACED or result is Offer.GONE:
                    del fifo[ticket.sequence]
                    if result is Offer.PLACED:
                        queue.tiers[tier].charge(ticket)
                    self._forget(ticket, queue)
                elif result is Offer.NOT_YET:
                    del fifo[ticket.sequence]
                    self._make_patient(ticket, queue, now)
                elif not is_all:
                    fifo.move_to_end(ticket.sequence)

    def _serve_patient(
        self,
        queue: ModelQueue,
        fifo: Fifo,
        offer: Callable[[Ticket], Offer],
        stays_shut: Callable[[Ticket], bool],
    ) -> None:
        """Ask about so many, each once; who is not served goes to the end, so that all get their turn."""
        for ticket in list(islice(fifo.values(), MAX_SKIPPED)):
            result = Offer.NOT_YET if stays_shut(ticket) else offer(ticket)
            if result is Offer.PLACED or result is Offer.GONE:
                del fifo[ticket.sequence]
                if result is Offer.PLACED:
                    queue.tiers[ticket.tier].charge(ticket)
                self._forget(ticket, queue)
            elif result is Offer.NO_ROOM:
                return
            else:
                fifo.move_to_end(ticket.sequence)

    def _serve_fifo(
        self, queue: ModelQueue, fifo: Fifo, offer: Callable[[Ticket], Offer], now: float
    ) -> None:
        while fifo:
            skipped = 0
            for ticket in list(islice(fifo.values(), 2 * MAX_SKIPPED)):
                result = offer(ticket)
                if result is Offer.PLACED or result is Offer.GONE:
                    del fifo[ticket.sequence]
                    self._forget(ticket, queue)
                    continue
                if result is Offer.NOT_YET and fifo is queue.returning:
                    del fifo[ticket.sequence]
                    self._make_patient(ticket, queue, now)
                    continue
                skipped += 1
                if result is Offer.NO_ROOM or skipped >= MAX_SKIPPED:
                    return
            if skipped:
                return

    def _serve_tier(
        self,
        queue: ModelQueue,
        tier: ServiceTier,
        offer: Callable[[Ticket], Offer],
        now: float,
        *,
        late: bool = False,
    ) -> bool:
        """Offer one place to the tier; whether to go on."""
        ticket = queue.tiers[tier].head(late=late)
        ticket.must_leave_room = late and queue.fresh_run < FRESH_RUN
        result = offer(ticket)
        if result is Offer.PLACED:
            queue.tiers[tier].serve(ticket)
            queue.take_turn(tier, late=late)
        elif result is Offer.GONE:
            queue.tiers[tier].remove(ticket)
        elif result is Offer.NOT_YET:
            queue.tiers[tier].remove(ticket)
            self._make_patient(ticket, queue, now)
            return True
        elif result is Offer.NOT_THIS:
            queue.tiers[tier].remove(ticket)
            ticket.is_aside, ticket.must_leave_room = True, False
            queue.aside[tier][ticket.sequence] = ticket
            return True
        else:
            return False
        self._forget(ticket, queue)
        return True

    def _make_patient(self, ticket: Ticket, queue: ModelQueue, now: float) -> None:
        ticket.is_patient = True
        ticket.is_aside = ticket.must_leave_room = False
        _limit_patience(ticket, now)
        self.next_expiry_at = min(self.next_expiry_at, ticket.expires_at)
        fifo = queue.fifo_of(ticket)
        assert fifo is not None
        fifo[ticket.sequence] = ticket

    def _forget(self, ticket: Ticket, queue: ModelQueue) -> None:
        del self._tickets[ticket.sequence]
        self.waiting_bytes -= ticket.body_bytes
        if ticket.lane is Lane.NEW:
            if ticket.body_bytes:
                self._new_bytes[ticket.tenant] -= ticket.body_bytes
                if not self._new_bytes[ticket.tenant]:
                    del self._new_bytes[ticket.tenant]
            self._new[ticket.tier] -= 1
            tenants = self._waiting[ticket.tier]
            tenants[ticket.tenant] -= 1
            if not tenants[ticket.tenant]:
                del tenants[ticket.tenant]
        if queue.is_empty():
            self._models.pop(ticket.model, None)

    def _newest_of_the_largest(self, newcomer: Ticket) -> Ticket:
        tenants = self._waiting[newcomer.tier]
        if not tenants:
            return newcomer  # a queue of length 0
        largest = max(tenants, key=lambda tenant: (tenants[tenant], tenant))
        if tenants.get(newcomer.tenant, 0) + 1 >= tenants[largest]:
            return newcomer
        candidates = [queue.newest_of(newcomer.tier, largest) for queue in self._models.values()]
        return max((one for one in candidates if one is not None), key=lambda one: one.sequence)


def _limit_patience(ticket: Ticket, now: float) -> None:
    """It waits for a part of the time that it can spare; the rest is for what it meets at the site."""
    ticket.expires_at = min(ticket.expires_at, now + PATIENCE_RATIO * max(0.0, ticket.start_by - now))
