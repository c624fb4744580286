"""The simulated router: `router.policy`'s decisions, driven by the virtual clock instead of by asyncio.

It does what `router.live.forward`, `hold` and `resume` do around the same pure code: the snapshot is built by
`view_of`, room is `Load`'s, the choice `dispatch.choose`'s, the order of those that wait `HoldQueue`'s. A
request's life: arrive → place (or wait) → sent → pushed back, failed, cut, broken (→ resume) or answered.

Rule: a request that has arrived is in exactly one of four places: on its way or at a site (`load` is set),
waiting (`ticket` is set), waiting for a retry, or over (`outcome` is set).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from fleet.records import SiteReport
from fleet.request import RequestFeatures
from router.policy.deadline import start_by, wait_seconds
from router.policy.dispatch import FOREVER, NOT_YET, NotYet, choose, has_other_site, stays_shut
from router.policy.fair_line import Lane, Ticket
from router.policy.load import Load
from router.policy.policies import make_policy
from router.policy.queue import LATE_RESERVE_RATIO, PATIENT_SECONDS, HoldQueue, Offer
from router.policy.retry_budget import RetryBudget
from router.policy.snapshot import ModelView
from simulator.events import Events
from simulator.fleet_view import SimulatedView
from simulator.guess import Guess
from simulator.record import Record
from simulator.request import Outcome, SimRequest
from simulator.settings import RouterSettings
from simulator.site import SimulatedSite

PUMP_SECONDS = 0.1
BUDGET_POLL_SECONDS = 0.1
MAX_FAILED_SITES = 5
MAX_BREAKS = 16
"""As `router.live` has them."""


class SimulatedRouter:
    """One router process."""

    def __init__(
        self,
        settings: RouterSettings,
        *,
        model: str,
        sites: dict[str, SimulatedSite],
        round_trips: Mapping[str, float],
        events: Events,
        record: Record,
        rng: random.Random,
    ) -> None:
        self.view = SimulatedView(model, events, round_trips)
        self.pushbacks: Counter[str] = Counter()
        self.decisions = 0
        self.on_request: Callable[[RequestFeatures], object] = lambda _features: None
        """Told of every request that comes."""
        self._settings = settings
        self._model = model
        self._sites = sites
        self._events = events
        self._record = record
        self._rng = rng
        self.policy = make_policy(settings.policy, settings.parameters)
        self._queue = HoldQueue(max_waiting=settings.hold_requests)
        self._budget = RetryBudget(
            ratio=settings.retry_budget_ratio, minimum_per_second=settings.retry_budget_minimum
        )
        self._guess = Guess(settings, model, rng)
        self._is_pump_armed = False

    # What it hears

    def take_report(self, report: SiteReport) -> None:
        """A report, by whatever way it came."""
        if self.view.take_report(report) and len(self._queue):
            self._pump()

    def learn(self, lengths: Iterable[tuple[int, int]]) -> None:
        """(prompt, answer) in tokens, of what ended before the run."""
        self._guess.learn(lengths)

    # A request's life

    def arrive(self, index: int, prompt_tokens: int, output_tokens: int) -> None:
        """A client's request."""
        now = self._events.now
        features = self._guess.features(prompt_tokens)
        request = SimRequest(
            index=index,
            arrived_at=now,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            features=features,
            hold_until=now + self._settings.hold_seconds,
        )
        self._budget.count_request(now)
        self.on_request(features)
        if features.slo is not None:
            request.start_by = start_by(
                self.view.views,
                prompt_tokens=prompt_tokens,
                output_tokens=features.expected_output_tokens,
                received_at=now,
                deadline_seconds=None,
                slo=features.slo,
            )
        if request.start_by < now:
            self._give_up(request)
        elif not self._try_place(request):
            self._wait(request)

    def _try_place(self, request: SimRequest, *, is_resume: bool = False) -> bool:
        """Send it now, unless nothing fits or others wait before it."""
        if len(self._queue):
            features = request.features
            if self._queue.is_before(features.model, features.tier, self._events.now, is_resume=is_resume):
                return False
        return self._place(request, is_resume=is_resume, is_released=is_resume) is Offer.PLACED

    def _place(
        self, request: SimRequest, *, is_resume: bool, is_released: bool, must_leave_room: bool = False
    ) -> Offer:
        now = self._events.now
        kind = {"is_resume": is_resume, "is_released": is_released, "must_leave_room": must_leave_room}
        view = self.decide(request.features, request.excluded, is_patient=request.is_patient, **kind)
        request.is_patient = view is NOT_YET
        if view is None:
            return Offer.NOT_THIS if request.excluded else Offer.NO_ROOM
        if view is NOT_YET:
            return Offer.NOT_YET
        load = self.view.loads[view.site_id]
        if is_released:
            load.send_resume(request.prompt_tokens + request.produced_tokens, view, now)
        load.begin()
        request.probe = 0 if load.breaker.state == "closed" else load.breaker.begin(now)
        site = self._sites[view.site_id]
        request.load, request.site, request.view = load, site, view
        request.attempts += 1
        self._events.at(now + site.one_way_seconds, self._reach, request)
        return Offer.PLACED

    def decide(
        self,
        features: RequestFeatures,
        excluded: Mapping[str, int],
        *,
        is_resume: bool,
        is_released: bool,
        must_leave_room: bool = False,
        is_patient: bool = False,
    ) -> ModelView | NotYet | None:
        """Where a request would go now, as `router.live.hold` asks it."""
        if not self.view.views:
            return None
        self.decisions += 1
        reserve_ratio = self._settings.resume_reserve_ratio
        return choose(
            self.view.views,
            self.view.loads,
            policy=self.policy,
            features=features,
            excluded=excluded,
            is_resume=is_resume,
            reserve_ratio=reserve_ratio + LATE_RESERVE_RATIO if must_leave_room else reserve_ratio,
            turn=self.decisions,
            now=self._events.now,
            rng=self._rng,
            context=self.view.snapshot,
            is_paced=is_released,
            is_patient=is_patient,
        )

    def _reach(self, request: SimRequest) -> None:
        """The request is at the site's door."""
        site: SimulatedSite = request.site
        if site.is_down:
            self._events.after(site.one_way_seconds, self._not_reached, request)
            return
        pushback = site.arrive(request)
        if pushback is not None:
            answer = (request, pushback.reason, pushback.retry_after_seconds)
            self._events.after(site.one_way_seconds, self._hear_pushback, answer)

    @staticmethod
    def _hear_begin(heard: tuple[Load, int, int]) -> None:
        load, headroom, probe = heard
        load.answered(headroom)
        if probe:
            load.breaker.succeed(probe)

    def _hear_pushback(self, answer: tuple[SimRequest, str, float]) -> None:
        request, reason, seconds = answer
        self.pushbacks[reason] += 1
        load: Load = request.load
        load.pushed_back(reason, seconds, self._events.now)
        load.breaker.succeed(request.probe)
        request.excluded[request.view.site_id] = request.view.sequence
        self._release(request)
        if request.is_resume:
            self._resume(request)
            return
        request.has_had_turn = True
        request.pushbacks += 1
        if request.pushbacks <= self._settings.max_pushbacks:
            if self._try_place(request, is_resume=request.is_cut):
                return
        else:
            request.pushbacks = 0
            request.excluded = {key: until for key, until in request.excluded.items() if until == FOREVER}
        self._wait(request)

    def _not_reached(self, request: SimRequest) -> None:
        """Nobody answered there."""
        site_id = request.view.site_id
        load: Load = request.load
        load.breaker.fail(self._events.now, request.probe)
        request.excluded[site_id] = FOREVER
        request.failures += 1
        self._release(request)
        if request.is_resume:
            self._resume(request)
        else:
            request.has_had_turn = True
            self._retry((request, self._events.now + self._settings.hold_seconds))

    def _retry(self, what: tuple[SimRequest, float]) -> None:
        """Another site, within the budget."""
        request, until = what
        now = self._events.now
        if request.failures >= MAX_FAILED_SITES or not has_other_site(self.view.views, request.excluded):
            self._end(request, Outcome.BROKEN)
        elif self._budget.take(now):
            request.hold_until = now + self._settings.hold_seconds
            if not self._try_place(request):
                self._wait(request)
        elif now >= until:
            self._end(request, Outcome.BROKEN)
        else:
            self._events.after(BUDGET_POLL_SECONDS, self._retry, what)

    # What sites say; the answer's way is added here

    def first_token(self, request: SimRequest, now: float) -> None:
        """A site made the first token of an attempt; its head carries the room that is left."""
        site: SimulatedSite = request.site
        heard_at = now + site.one_way_seconds
        if request.first_token_at is None:
            request.first_token_at = heard_at
        heard = (request.load, site.slots.headroom(), request.probe)
        self._events.at(heard_at, self._hear_begin, heard)

    def finished(self, request: SimRequest, now: float) -> None:
        """A site made the last token."""
        self._events.at(now + request.site.one_way_seconds, self._hear_end, request)

    def broke(self, request: SimRequest, made_tokens: int) -> None:
        """A site broke it off after so many tokens."""
        self._events.after(request.site.one_way_seconds, self._hear_break, (request, made_tokens))

    def _hear_end(self, request: SimRequest) -> None:
        load: Load = request.load
        load.breaker.succeed(request.probe)
        load.finished()
        self._release(request)
        if not request.breaks:
            self._guess.learn(((request.prompt_tokens, request.output_tokens),))
        request.produced_tokens = request.output_tokens
        self._end(request, Outcome.SERVED)

    def _hear_break(self, heard: tuple[SimRequest, int]) -> None:
        request, made_tokens = heard
        now = self._events.now
        site_id = request.view.site_id
        load: Load = request.load
        is_power = self.view.is_losing_power(site_id)
        request.is_power |= is_power
        if is_power:
            load.breaker.give_up(request.probe)
        else:
            load.breaker.break_stream(now, request.probe)
        request.excluded[site_id] = request.view.sequence
        self._release(request)
        request.breaks += 1
        request.produced_tokens += made_tokens
        if not request.produced_tokens:  # the client has nothing yet: another site, before new work
            request.is_cut = request.has_had_turn = True
            request.hold_until = now + self._settings.resume_wait_seconds
            if not self._try_place(request, is_resume=True):
                self._wait(request)
        elif request.produced_tokens >= request.output_tokens:
            self._end(request, Outcome.SERVED)
        elif not self._settings.resume or request.breaks > MAX_BREAKS:
            self._end(request, Outcome.BROKEN)
        else:
            request.resume_until = now + self._settings.resume_wait_seconds
            self._resume(request)

    def _resume(self, request: SimRequest) -> None:
        if not self._try_place(request, is_resume=True):
            self._wait(request)

    def _wait(self, request: SimRequest) -> None:
        now = self._events.now
        is_resume = request.is_resume or request.is_cut
        features = request.features
        until = request.resume_until if request.is_resume else request.hold_until
        if not is_resume:
            until = min(until, request.start_by)
            is_limited = not request.is_patient and request.start_by < math.inf
            if is_limited and now + self._expected_wait(features) > request.start_by:
                until = now
        if until <= now:
            self._give_up(request)
            return
        request.ticket = Ticket(
            model=features.model,
            tier=features.tier,
            tenant=features.tenant,
            tokens=features.prompt_tokens + features.expected_output_tokens,
            waits_since=now,
            expires_at=until,
            lane=Lane.RESUME if is_resume else Lane.RETURNING if request.has_had_turn else Lane.NEW,
            is_patient=request.is_patient,
            start_by=request.start_by,
            payload=request,
        )
        gives_way = self._queue.add(request.ticket)
        if gives_way is not None:
            self._give_up(gives_way.payload)
        if not self._is_pump_armed:
            self._arm()

    def _arm(self) -> None:
        self._is_pump_armed = bool(len(self._queue))
        if self._is_pump_armed:
            self._events.after(PATIENT_SECONDS if self._queue.has_patient else PUMP_SECONDS, self._tick)

    def _tick(self, _: None) -> None:
        self._pump()
        for ticket in self._queue.expire(self._events.now):
            self._give_up(ticket.payload)
        self._arm()

    def _pump(self) -> None:
        self._queue.serve(self._model, self._offer, self._events.now, self._stays_shut)

    def _stays_shut(self, ticket: Ticket) -> bool:
        """As `router.live.hold`; each answer that spares a decision counts as one."""
        request: SimRequest = ticket.payload
        if request.is_patient and stays_shut(
            self.view.views, self.policy, request.features, self._events.now
        ):
            self.decisions += 1
            return True
        return False

    def _offer(self, ticket: Ticket) -> Offer:
        request: SimRequest = ticket.payload
        is_resume = ticket.lane is Lane.RESUME
        offer = self._place(
            request, is_resume=is_resume, is_released=True, must_leave_room=ticket.must_leave_room
        )
        if offer is Offer.PLACED:
            request.ticket = None
        return offer

    def _expected_wait(self, features: RequestFeatures) -> float:
        return wait_seconds(
            self.view.views,
            ahead=self._queue.ahead(features.model, features.tier, features.tenant, self._events.now),
            prompt_tokens=features.prompt_tokens,
            output_tokens=features.expected_output_tokens,
        )

    def _release(self, request: SimRequest) -> None:
        """It is no longer at its site; whoever waits may take the place."""
        load: Load = request.load
        load.end()
        request.load = request.site = None
        if len(self._queue):
            self._pump()

    def _give_up(self, request: SimRequest) -> None:
        """No place in time."""
        request.ticket = None
        self._end(request, Outcome.BROKEN if request.is_resume else Outcome.SHED)

    def _end(self, request: SimRequest, outcome: Outcome) -> None:
        request.outcome = outcome
        self._record.close(request, self._events.now)
