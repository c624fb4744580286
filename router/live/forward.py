"""The one forwarding path: every inference request of every API comes in by `Forwarder.begin`.

The life of a request (DESIGN §5): read → choose a site (or wait for one) → forward → on failure before the
first byte another site → after the first byte resume (`router.live.resume`) → close the ledger entry.

What follows a failed attempt:
  pushback   another site, outside the retry budget, `max_pushbacks` times, then back to the queue
  failure    another site, never the same one again, within the retry budget
  cut        the site lost its power under a request it had accepted: another site, before new work
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any

from gateway.server import ClientRequest, HotHandler
from gateway.upstream import UpstreamPool, UpstreamResponse
from router.config import RouterConfig
from router.live.access_log import AccessLog
from router.live.admission import Door
from router.live.answers import RefusalCode, answer, end_for_shutdown, end_internal_error, refuse_for_now
from router.live.attempt import Attempt, Verdict
from router.live.energy import note_energy
from router.live.exchange import Exchange
from router.live.fleet_view import FleetView
from router.live.hold import Dispatcher, NoRoomError
from router.live.ledger import Ledger
from router.live.lengths import note_length
from router.live.metrics import RouterMetrics
from router.live.placement import Placement
from router.live.reading import Reader, exclude_lacking
from router.live.response_homes import SiteHomes
from router.live.resume import Resumer
from router.live.straight import Straight
from router.policy.body import Api
from router.policy.dispatch import FOREVER, has_other_site
from router.policy.retry_budget import RetryBudget
from router.policy.snapshot import Shortage
from router.policy.snapshot import shortage as shortage_of

if TYPE_CHECKING:
    from router.live.spans import Spans

logger = logging.getLogger(__name__)

MAX_FAILED_SITES = 5
"""Sites that may fail one request before the client is told: one that kills engines must not meet all."""
BUDGET_POLL_SECONDS = 0.1
Run = Callable[[Exchange], Awaitable[None]]


class GoOn(Enum):
    """What a request does after an attempt."""

    NOW = "now"
    """Another site, if one has room."""
    QUEUE = "queue"
    STOP = "stop"


class Forwarder:
    """One per process."""

    def __init__(
        self,
        *,
        config: RouterConfig,
        view: FleetView,
        dispatcher: Dispatcher,
        pool: UpstreamPool,
        ledger: Ledger,
        metrics: RouterMetrics,
        site_token: str | None,
        clock: Callable[[], float],
        rng: random.Random,
        door: Door,
        access_log: AccessLog | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._access_log = access_log
        self._spans = spans
        self.homes = SiteHomes(clock)
        self._config = config
        self._hold_seconds = config.hold_seconds
        self._timeout_seconds = config.request_timeout_seconds
        self._door = door
        self._view = view
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._metrics = metrics
        authorization = f"Bearer {site_token}".encode() if site_token else None
        self._clock = self.clock = clock
        """Loop time."""
        self._reader = Reader(config, view=view, door=door, homes=self.homes, meter=metrics.demand, rng=rng)
        self._budget = RetryBudget(
            ratio=config.retry_budget_ratio, minimum_per_second=config.retry_budget_minimum
        )
        self._pool = pool
        self.max_answer_bytes = config.max_answer_bytes
        self.attempt = Attempt(config=config, view=view, pool=pool, authorization=authorization, clock=clock)
        self._resumer = Resumer(
            config=config,
            view=view,
            dispatcher=dispatcher,
            pool=pool,
            metrics=metrics,
            authorization=authorization,
            clock=clock,
        )
        self.active: set[Exchange] = set()
        self._when_idle: asyncio.Future[None] | None = None

    def handler(self, api: Api, run: Run | None = None) -> HotHandler:
        """The hot handler of one path; `run` is what it does where it is no inference."""
        if run is None:
            return functools.partial(self.begin, api)
        return functools.partial(self._begin_other, api, run)

    def begin(self, api: Api, request: ClientRequest) -> Coroutine[Any, Any, None] | None:
        """Take a request; returns what a task must do for it, None where callbacks will do it all."""
        exchange = self._open(api, request)
        self._budget.count_request(self._clock())
        try:
            if not (self._door.enter(exchange) and self._reader.read(exchange)):
                self._close(exchange)
                return None
            placement = exchange.placement = self._dispatcher.try_place(exchange)
            if placement is not None:
                connection = self._pool.take_idle(placement.entry.origin)
                if connection is not None:
                    Straight(self, exchange, placement).send(connection)
                    return None
        except Exception:  # noqa: BLE001 - told and counted in there
            self.fail_inside(exchange)
            return None
        return self._serve(exchange)

    def _begin_other(self, api: Api, run: Run, request: ClientRequest) -> Coroutine[Any, Any, None] | None:
        exchange = self._open(api, request)
        if not self._door.enter(exchange, takes_request=False):
            self._close(exchange)
            return None
        return self._own(exchange, functools.partial(run, exchange))

    def _open(self, api: Api, request: ClientRequest) -> Exchange:
        """Count a request in; from here on somebody owns it."""
        received_at = request.received_at
        exchange = Exchange(
            request,
            api,
            hold_until=received_at + self._hold_seconds,
            deadline_at=received_at + self._timeout_seconds,
        )
        if self._spans is not None:
            exchange.trace = self._spans.begin(request.headers, request.path, received_at)
        self._ledger.open()
        self.active.add(exchange)
        request.on_gone = functools.partial(self._client_gone, exchange)
        return exchange

    # the straight path's side
    def reach(self, exchange: Exchange, verdict: Verdict) -> None:
        """The straight attempt is over: so is the request, or a task goes on with it."""
        if verdict is Verdict.DONE:
            placement, exchange.placement = exchange.placement, None
            assert placement is not None
            self._dispatcher.release(placement)
            self._close(exchange)
        else:
            exchange.request.run(self._serve(exchange, verdict))

    def go_on(self, exchange: Exchange, response: UpstreamResponse | None) -> None:
        """The attempt goes on in a task: from the response's head, or from the beginning."""
        exchange.request.run(self._serve(exchange, response=response))

    def fail_inside(self, exchange: Exchange) -> None:
        """Something in here is wrong; called while the exception is handled."""
        logger.exception("a request failed inside the router", extra=exchange.about)
        try:
            end_internal_error(exchange)
        finally:
            self._close(exchange)

    def _client_gone(self, exchange: Exchange) -> None:
        exchange.note_gone()
        self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        """Release whatever a request still holds and close its entry; nothing more the second time."""
        request = exchange.request
        request.on_gone = None
        if request.on_pause is not None:
            request.on_pause = request.on_resume = None
        if exchange.response is not None:
            exchange.response.close()
            exchange.response = None
        if exchange.placement is not None:
            self._dispatcher.release(exchange.placement)
            exchange.placement = None
        if exchange.is_closed:
            return
        self.active.discard(exchange)
        if exchange.is_counted:
            self._door.leave(exchange)
        if exchange.suspicion is not None:
            exchange.suspicion.drop()
        note_length(self._reader.lengths, exchange)
        note_energy(self._metrics.energy, self._view.snapshot, exchange)
        self._ledger.close(exchange)
        self._metrics.finished(exchange, self._clock())
        if exchange.trace is not None:
            exchange.trace.end(exchange, self._clock())
        if self._access_log is not None:
            self._access_log.write(exchange, self._clock())
        if self._when_idle is not None and not self.active and not self._when_idle.done():
            self._when_idle.set_result(None)

    def _serve(
        self, exchange: Exchange, verdict: Verdict | None = None, response: UpstreamResponse | None = None
    ) -> Coroutine[Any, Any, None]:
        """The general path, from wherever the request stands."""
        return self._own(exchange, functools.partial(self._run, exchange, verdict, response))

    async def _own(self, exchange: Exchange, run: Callable[[], Awaitable[None]]) -> None:
        """See a request through to its end; from here on its only owner."""
        exchange.request.on_gone = None
        try:
            await run()
        except asyncio.CancelledError:
            if exchange.request.is_disconnected:
                exchange.note_gone()
                raise
            end_for_shutdown(exchange)
            if not exchange.is_terminated:
                raise
        except Exception:
            logger.exception("a request failed inside the router", extra=exchange.about)
            end_internal_error(exchange)
        finally:
            self._close(exchange)

    async def drain(self, until: float) -> None:
        """Return when no request is under way, or at that loop time."""
        left = until - self._clock()
        if self.active and left > 0:
            self._when_idle = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._when_idle], timeout=left)
            self._when_idle = None

    async def terminate(self) -> None:
        """End every request under way with a stated error; returns when their handlers have."""
        tasks = []
        for exchange in list(self.active):
            exchange.is_terminated = True
            request = exchange.request
            if request.on_gone is not None:  # no task owns it (yet)
                try:
                    end_for_shutdown(exchange)
                finally:
                    self._close(exchange)
            if request.task is not None:
                request.task.cancel()
                tasks.append(request.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(
        self, exchange: Exchange, verdict: Verdict | None, response: UpstreamResponse | None
    ) -> None:
        dispatcher = self._dispatcher
        placement = exchange.placement
        while True:
            if placement is None:
                placement = await self._wait(exchange)
                if placement is None:
                    return
                exchange.placement = placement
            if response is not None:
                verdict = await self.attempt.see_through(exchange, placement, response)
                response = None
            elif verdict is None:
                verdict = await self.attempt.send(exchange, placement)
            exchange.placement = None
            dispatcher.release(placement)
            if exchange.trace is not None:
                exchange.trace.end_part(verdict.value, self._clock())
            if verdict is Verdict.DONE:
                return
            if verdict is Verdict.BROKEN_STREAM:
                await self._resumer.run(exchange, placement)
                return
            exchange.has_had_turn = True
            go_on = await self._go_on(exchange, verdict)
            if go_on is GoOn.STOP:
                return
            at_once = go_on is GoOn.NOW
            placement = dispatcher.try_place(exchange, is_resume=exchange.is_cut) if at_once else None
            exchange.placement = placement
            verdict = None

    async def _wait(self, exchange: Exchange) -> Placement | None:
        """A place in time, or None: the client was told when to come back."""
        if exchange.start_by < math.inf and not exchange.is_cut and not exchange.is_patient:
            expected = self._dispatcher.expected_wait_seconds(exchange)
            if self._clock() + expected > exchange.start_by:
                self._door.refuse_late(exchange)
                return None
        try:
            return await self._dispatcher.wait(
                exchange,
                until=min(exchange.hold_until, exchange.deadline_at, exchange.start_by),
                is_resume=exchange.is_cut,
                is_returning=exchange.has_had_turn,
            )
        except NoRoomError as error:
            is_worn_out = exchange.is_patient and not error.is_queue_full
            if self._clock() >= exchange.start_by or is_worn_out:
                self._door.refuse_late(exchange)
            else:
                self._refuse(exchange, error)
            return None

    def _refuse(self, exchange: Exchange, error: NoRoomError) -> None:
        """503 for a request that found no room in time, or no place in the queue."""
        shortage = self._shortage(exchange) if exchange.excluded else error.shortage
        code: RefusalCode = shortage
        if error.is_queue_full:
            code = "queue_full"
        elif exchange.features.tier == "flex" and not exchange.is_cut:
            code = "no_surplus"
        self._metrics.count_refusal(code)
        why = None if code == shortage else shortage
        seconds = self._view.retry_after_seconds(shortage)
        refuse_for_now(exchange, code, seconds, shortage=why)

    def _shortage(self, exchange: Exchange) -> Shortage:
        """Why there is no room, at the sites that this request may go to; none is left: they had none."""
        views = self._view.snapshot.models.get(exchange.features.model, ())
        left = [view for view in views if exchange.excluded.get(view.site_id) != FOREVER]
        return shortage_of(left) if left else "no_capacity"

    async def _go_on(self, exchange: Exchange, verdict: Verdict) -> GoOn:
        """What follows an attempt that did not end the request."""
        if verdict is Verdict.PUSHED_BACK:
            exchange.pushbacks += 1
            if exchange.pushbacks <= self._config.max_pushbacks:
                return GoOn.NOW
            exchange.forgive_pushbacks()
            return GoOn.QUEUE
        if verdict is Verdict.NOT_HERE:
            return self._look_elsewhere(exchange)
        if verdict is Verdict.CUT:
            exchange.is_cut = True
            exchange.hold_until = self._clock() + self._config.resume_wait_seconds
        elif await self._may_retry(exchange):
            exchange.hold_until = self._clock() + self._config.hold_seconds
        else:
            return GoOn.STOP
        exchange.retries += 1
        self._metrics.count_retry(exchange.cut_reason)
        return GoOn.NOW

    def _look_elsewhere(self, exchange: Exchange) -> GoOn:
        """A site does not have what the request names: the next one, and 404 when none has it."""
        views = self._view.snapshot.models.get(exchange.features.model, ())
        if exchange.pinned_to:
            exchange.excluded = {exchange.pinned_to: FOREVER}  # the hint was wrong
            exchange.pinned_to = ""
            exclude_lacking(exchange, views)
        if any(view.is_serving and exchange.excluded.get(view.site_id) != FOREVER for view in views):
            return GoOn.NOW
        assert exchange.last_error is not None
        answer(exchange, *exchange.last_error)
        return GoOn.STOP

    async def _may_retry(self, exchange: Exchange) -> bool:
        """Whether a failed request may go to another site; waits for the retry budget, tells the client if
        nobody is left to ask."""
        if self._clock() >= exchange.deadline_at:
            assert exchange.last_error is not None
            answer(exchange, *exchange.last_error)
            return False
        views = self._view.snapshot.models.get(exchange.features.model, ())
        if exchange.failures < MAX_FAILED_SITES and has_other_site(views, exchange.excluded):
            until = min(self._clock() + self._config.hold_seconds, exchange.deadline_at)
            while not self._budget.take(self._clock()):
                if self._clock() >= until:
                    break
                await asyncio.sleep(BUDGET_POLL_SECONDS)
            else:
                return True
        assert exchange.last_error is not None
        answer(exchange, *exchange.last_error)
        return False
