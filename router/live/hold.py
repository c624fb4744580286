"""Places requests, and holds those that find no room: the shell around `router.policy.queue`.

Rule: a new request never overtakes one that waits before it and is not late (`router.policy.fair_line`). A
waiter gets its place from `pump`, which runs when something may have made room: a request ended, the
snapshot changed, or a tenth of a second has passed (pushback blocks, breakers and the pace of prompts end by
the clock).

What waited is released no faster than the sites read prompts, and within the room they report: after a dark
spell a thousand may wait, and none of the sites must get them all at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from fleet.request import ServiceTier
from router.live.exchange import Exchange
from router.live.placement import Placement
from router.live.sites import SiteRegistry
from router.policy.affinity import Affinity
from router.policy.deadline import wait_seconds
from router.policy.dispatch import NOT_YET, choose, stays_shut
from router.policy.fair_line import Lane, Ticket
from router.policy.flex import Pace
from router.policy.interface import Policy
from router.policy.queue import LATE_RESERVE_RATIO, PATIENT_SECONDS, HoldQueue, Offer
from router.policy.snapshot import Shortage, Snapshot, shortage

PUMP_SECONDS = 0.1
EXPIRY_STEP_SECONDS = 0.01
"""Requests whose time is over within so long are looked for together."""


class NoRoomError(Exception):
    """No site had room in time, or too many wait already."""

    def __init__(self, shortage: Shortage, *, is_queue_full: bool = False) -> None:
        super().__init__(shortage)
        self.shortage: Shortage = shortage
        self.is_queue_full = is_queue_full


class _Waiter:
    __slots__ = ("exchange", "future")

    def __init__(self, exchange: Exchange, future: asyncio.Future[Placement]) -> None:
        self.exchange = exchange
        self.future = future


class Dispatcher:
    """One per process."""

    def __init__(
        self,
        *,
        registry: SiteRegistry,
        snapshot: Callable[[], Snapshot],
        policy: Policy,
        reserve_ratio: float,
        max_held: int,
        flex_surplus_ratio: float,
        flex_per_second: float,
        clock: Callable[[], float],
        rng: random.Random,
        affinity: Affinity | None = None,
    ) -> None:
        self.affinity = affinity
        """None: switched off."""
        self.policy = policy
        """May be another one from one decision to the next."""
        self._registry = registry
        self._snapshot = snapshot
        self._reserve_ratio = reserve_ratio
        self._flex_surplus_ratio = flex_surplus_ratio
        self._flex_pace = Pace(flex_per_second)
        self._clock = clock
        self._rng = rng
        self._turn = 0
        self._queue = HoldQueue(max_waiting=max_held)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.held = 0
        """Requests that wait now."""

    @property
    def held_by_tier(self) -> dict[ServiceTier, int]:
        """The same by tier, resumes too."""
        return self._queue.by_tier

    def try_place(self, exchange: Exchange, *, is_resume: bool = False) -> Placement | None:
        """A place now, or None: nothing fits, or others wait before it."""
        if self.held:
            features = exchange.features
            if self._queue.is_before(
                features.model, features.tier, self._clock(), is_resume=is_resume, is_late=exchange.is_retry
            ):
                return None
        return self._choose(exchange, is_resume, is_released=is_resume)

    async def wait(
        self, exchange: Exchange, *, until: float, is_resume: bool = False, is_returning: bool = False
    ) -> Placement:
        """Wait for a place until then (loop time). `is_returning`: it had a turn already and goes first.

        Raises:
            NoRoomError: too many wait already, or there was none in time.
        """
        loop = asyncio.get_running_loop()
        features = exchange.features
        if exchange.trace is not None:
            exchange.trace.begin_wait(loop.time())
        if until <= loop.time():
            raise NoRoomError(self.shortage(features.model))
        future: asyncio.Future[Placement] = loop.create_future()
        ticket = Ticket(
            model=features.model,
            tier=features.tier,
            tenant=features.tenant,
            tokens=features.prompt_tokens + features.expected_output_tokens,
            waits_since=loop.time(),
            expires_at=until,
            lane=Lane.RESUME if is_resume else Lane.RETURNING if is_returning else Lane.NEW,
            is_late=exchange.is_retry,
            is_patient=exchange.is_patient,
            start_by=exchange.start_by,
            body_bytes=exchange.held_bytes,
            payload=_Waiter(exchange, future),
        )
        give_way = self._queue.make_room(ticket)
        one = ticket if give_way is None else self._queue.add(ticket)
        for gives_way in (*(give_way or ()), *(() if one is None else (one,))):
            error = NoRoomError(self.shortage(gives_way.model), is_queue_full=True)
            if gives_way is ticket:
                raise error
            _fail(gives_way, error)
        self.held += 1
        try:
            self._arm()
            self._pump_model(features.model)
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # the place came in the same moment in which the client left
            raise
        finally:
            self._queue.remove(ticket)
            self.held -= 1

    def release(self, placement: Placement) -> None:
        """Give a place back; whoever waits may take it."""
        if placement.release() and self.held:
            self._pump_model(placement.view.model)

    def pump(self) -> None:
        """Something has changed: serve who can be served."""
        for model in self._queue.models():
            self._pump_model(model)

    def shortage(self, model: str) -> Shortage:
        """Why there is no room."""
        return shortage(self._snapshot().models.get(model, ()))

    def expected_wait_seconds(self, exchange: Exchange) -> float:
        """How long a request that finds no room now will wait; 0 where it cannot be known."""
        features = exchange.features
        return wait_seconds(
            self._snapshot().models.get(features.model, ()),
            ahead=self._queue.ahead(features.model, features.tier, features.tenant, self._clock()),
            prompt_tokens=features.prompt_tokens,
            output_tokens=features.expected_output_tokens,
        )

    def _choose(
        self, exchange: Exchange, is_resume: bool, *, is_released: bool, must_leave_room: bool = False
    ) -> Placement | None:
        features = exchange.features
        snapshot = self._snapshot()
        views = snapshot.models.get(features.model)
        if not views:
            return None
        now = self._clock()
        surplus_ratio = None
        if features.tier == "flex" and not is_resume:
            if not self._flex_pace.is_ready(now):
                return None
            surplus_ratio = self._flex_surplus_ratio
        loads = self._registry.loads[features.model]
        self._turn += 1
        view = choose(
            views,
            loads,
            policy=self.policy,
            features=features,
            excluded=exchange.excluded,
            is_resume=is_resume,
            reserve_ratio=self._reserve_ratio + LATE_RESERVE_RATIO
            if must_leave_room
            else self._reserve_ratio,
            turn=self._turn,
            now=now,
            rng=self._rng,
            context=snapshot,
            is_paced=is_released,
            is_patient=exchange.is_patient,
            surplus_ratio=surplus_ratio,
            affinity=self.affinity,
            hint=None if is_resume else exchange.hint,
            may_probe=exchange.suspicion is None,
        )
        exchange.is_patient = view is NOT_YET
        if view is None or view is NOT_YET:
            return None
        load = loads[view.site_id]
        if exchange.hint is not None and self.affinity is not None:
            self.affinity.note(exchange.hint, load.kv_cache)
        if surplus_ratio is not None:
            self._flex_pace.take(now)
        if is_released:
            load.send_resume(features.prompt_tokens, view, now)
        entry = self._registry.entries[view.site_id]
        return Placement(entry, load, view, now, may_probe=exchange.suspicion is None)

    def _pump_model(self, model: str) -> None:
        self._queue.serve(model, self._offer, self._clock(), self._stays_shut)

    def _stays_shut(self, ticket: Ticket) -> bool:
        """Whether the policy would have it wait again; each answer that spares a decision counts as one."""
        waiter: _Waiter = ticket.payload
        exchange = waiter.exchange
        features = exchange.features
        if waiter.future.done() or not exchange.is_patient or features.tier == "flex":
            return False
        views = self._snapshot().models.get(features.model, ())
        if not stays_shut(views, self.policy, features, self._clock()):
            return False
        self._turn += 1
        return True

    def _offer(self, ticket: Ticket) -> Offer:
        """Try to place one that waits."""
        waiter: _Waiter = ticket.payload
        if waiter.future.done():
            return Offer.GONE
        placement = self._choose(
            waiter.exchange,
            ticket.lane is Lane.RESUME,
            is_released=True,
            must_leave_room=ticket.must_leave_room,
        )
        if placement is None:
            if waiter.exchange.is_patient:
                return Offer.NOT_YET
            return Offer.NOT_THIS if waiter.exchange.excluded else Offer.NO_ROOM
        waiter.future.set_result(placement)
        return Offer.PLACED

    def _arm(self) -> None:
        """Look again in a tenth of a second, or when somebody's time is over."""
        now = self._clock()
        pause = PATIENT_SECONDS if self._queue.has_patient else PUMP_SECONDS
        at = min(now + pause, max(self._queue.next_expiry_at, now + EXPIRY_STEP_SECONDS))
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.pump()
        for ticket in self._queue.expire(self._clock()):
            _fail(ticket, NoRoomError(self.shortage(ticket.model)))
        if len(self._queue):
            self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _fail(ticket: Ticket, error: NoRoomError) -> None:
    waiter: _Waiter = ticket.payload
    if not waiter.future.done():
        waiter.future.set_exception(error)
