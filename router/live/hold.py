"""Places requests, and holds those that find no room: bounded, first come first served, resumes first.

Rule: a new request never overtakes one that waits. A waiter gets its place from `pump`, which runs when
something may have made room: a request ended, the snapshot changed, or a tenth of a second has passed
(pushback blocks and breakers end by the clock).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from router.live.exchange import Exchange
from router.live.placement import Placement
from router.live.sites import SiteRegistry
from router.policy.dispatch import choose
from router.policy.policies import Policy
from router.policy.snapshot import Shortage, Snapshot, shortage

PUMP_SECONDS = 0.1
MAX_SKIPPED = 64
"""Waiters passed over, because of sites that they exclude, before the rest must wait too."""
RESUMES, NEW = 0, 1


class NoRoomError(Exception):
    """No site had room in time."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(shortage)
        self.shortage: Shortage = shortage


class _Waiter:
    __slots__ = ("exchange", "future")

    def __init__(self, exchange: Exchange, future: asyncio.Future[Placement]) -> None:
        self.exchange = exchange
        self.future = future


Lanes = tuple[deque[_Waiter], deque[_Waiter]]
"""Resumes, new work."""


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
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._policy = policy
        self._reserve_ratio = reserve_ratio
        self._max_held = max_held
        self._clock = clock
        self._rng = rng
        self._turn = 0
        self._lanes: dict[str, Lanes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.held = 0
        """Requests that wait now."""

    def try_place(self, exchange: Exchange, *, is_resume: bool = False) -> Placement | None:
        """A place now, or None: nothing fits, or others wait before it."""
        if self._lanes:
            lanes = self._lanes.get(exchange.features.model)
            if lanes is not None and (lanes[RESUMES] or (lanes[NEW] and not is_resume)):
                return None
        return self._choose(exchange, is_resume)

    async def wait(
        self, exchange: Exchange, *, until: float, is_resume: bool = False, is_returning: bool = False
    ) -> Placement:
        """Wait for a place until then (loop time). `is_returning`: it had a turn already and goes first.

        Raises:
            NoRoomError: too many wait already, or there was none in time.
        """
        loop = asyncio.get_running_loop()
        if until <= loop.time() or (self.held >= self._max_held and not is_resume and not is_returning):
            raise NoRoomError(self.shortage(exchange.features.model))
        future: asyncio.Future[Placement] = loop.create_future()
        waiter = _Waiter(exchange, future)
        lane = self._lanes.setdefault(exchange.features.model, (deque(), deque()))[
            RESUMES if is_resume else NEW
        ]
        if is_returning:
            lane.appendleft(waiter)
        else:
            lane.append(waiter)
        self.held += 1
        timer = loop.call_at(until, self._give_up, waiter)
        self._start_timer()
        self._pump_model(exchange.features.model)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # the place came in the same moment in which the client left
            raise
        finally:
            timer.cancel()
            self.held -= 1

    def release(self, placement: Placement) -> None:
        """Give a place back; whoever waits may take it."""
        if placement.release() and self._lanes:
            self._pump_model(placement.view.model)

    def pump(self) -> None:
        """Something has changed: serve who can be served."""
        for model in list(self._lanes):
            self._pump_model(model)

    def shortage(self, model: str) -> Shortage:
        """Why there is no room."""
        return shortage(self._snapshot().models.get(model, ()))

    def _choose(self, exchange: Exchange, is_resume: bool) -> Placement | None:
        features = exchange.features
        views = self._snapshot().models.get(features.model)
        if not views:
            return None
        now = self._clock()
        loads = self._registry.loads[features.model]
        self._turn += 1
        view = choose(
            views,
            loads,
            policy=self._policy,
            features=features,
            excluded=exchange.excluded,
            is_resume=is_resume,
            reserve_ratio=self._reserve_ratio,
            turn=self._turn,
            now=now,
            rng=self._rng,
        )
        if view is None:
            return None
        load = loads[view.site_id]
        if is_resume:
            load.send_resume(features.prompt_tokens, view, now)
        return Placement(self._registry.entries[view.site_id], load, view, now)

    def _pump_model(self, model: str) -> None:
        lanes = self._lanes.get(model)
        if lanes is None:
            return
        for is_resume, lane in ((True, lanes[RESUMES]), (False, lanes[NEW])):
            self._pump_lane(lane, is_resume)
        if not lanes[RESUMES] and not lanes[NEW]:
            del self._lanes[model]

    def _pump_lane(self, lane: deque[_Waiter], is_resume: bool) -> None:
        skipped: list[_Waiter] = []
        while lane and len(skipped) < MAX_SKIPPED:
            waiter = lane.popleft()
            if waiter.future.done():
                continue
            placement = self._choose(waiter.exchange, is_resume)
            if placement is not None:
                waiter.future.set_result(placement)
                continue
            skipped.append(waiter)
            if not waiter.exchange.excluded:
                break  # what does not fit it fits nobody behind it
        lane.extendleft(reversed(skipped))

    def _give_up(self, waiter: _Waiter) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(NoRoomError(self.shortage(waiter.exchange.features.model)))

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PUMP_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.pump()
        if self._lanes:
            self._start_timer()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
