"""Continues a stream whose site broke it off after the client had begun to read (DESIGN §5, Resume).

One loop: plan (pure) → refuse, finish by itself, or wait for room → ask the new site how far the text lags
the ids → continue there → until the stream is whole or the time is up. A resume goes before new work; while
it waits, SSE comments keep the client alive. It ends with a stated error at worst, never in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial

from gateway.upstream import UpstreamError, UpstreamPool, UpstreamResponse
from router.config import RouterConfig
from router.live.answers import end_broken
from router.live.attempt import is_encoded, is_stream
from router.live.energy import note_continuation, note_first_part
from router.live.exchange import Exchange
from router.live.fleet_view import FleetView
from router.live.hold import Dispatcher, NoRoomError
from router.live.metrics import RouterMetrics
from router.live.placement import Placement
from router.live.relay import InterruptedRelayError, relay_continuation, relay_parsed
from router.live.request_head import site_head
from router.live.resume_state import Resume
from router.live.site_answers import (
    RefusedError,
    error_status,
    is_gone,
    note_headroom,
    note_pushback,
    read_refusal,
)
from router.live.site_questions import SiteQuestions
from router.policy.continuation import ClientStream, Continuation
from router.policy.dispatch import FOREVER, has_other_site
from router.policy.parsed_continuation import ParsedContinuation
from router.policy.parser_talk import ParsersDisagreeError
from router.policy.resume_plan import (
    Continue,
    Finish,
    Refuse,
    ResumePlan,
    ends_inside_a_character,
    has_use_for_ids,
    needs_parser,
    owed_text,
    plan_resume,
    with_grammar,
)
from router.policy.snapshot import ModelView
from router.policy.stream_end import LossCode
from router.policy.stream_scan import ChatStreamScanner
from router.policy.told_search import ToldSearch

logger = logging.getLogger(__name__)

MAX_FRUITLESS_RESUMES = 16
"""Sites that took a stream and broke it again without a single token."""


class Step(Enum):
    """How one try at one site went."""

    DONE = "done"
    AGAIN = "again"
    """It broke or was refused there: wait for the next place."""


class Resumer:
    """One per process; the forwarder's other half."""

    def __init__(
        self,
        *,
        config: RouterConfig,
        view: FleetView,
        dispatcher: Dispatcher,
        pool: UpstreamPool,
        metrics: RouterMetrics,
        authorization: bytes | None,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._view = view
        self._dispatcher = dispatcher
        self._pool = pool
        self._metrics = metrics
        self._authorization = authorization
        self._clock = clock
        self._questions = SiteQuestions(pool=pool, authorization=authorization, clock=clock)

    async def run(self, exchange: Exchange, broken: Placement) -> None:
        """See a stream through that `broken`'s site cut; sets the outcome."""
        scanner = exchange.scanner
        note_first_part(self._metrics.energy, self._view.snapshot, exchange)
        exchange.scanner = None
        self._note_break(exchange, broken)
        is_chat = isinstance(scanner, ChatStreamScanner)
        if not is_chat or exchange.resumability is None or exchange.was_told_broken:
            self._lose(exchange, exchange.api.value, is_power=self._view.is_losing_power(exchange.site_id))
            return
        resume = Resume(exchange, scanner.record, broken.view.max_model_len)
        resume.until = self._clock() + self._config.resume_wait_seconds
        resume.has_broken()
        while True:
            resume.is_power |= self._view.is_losing_power(exchange.site_id)
            plan = self._plan(resume, None)
            if isinstance(plan, Finish):
                client = ClientStream(resume.request, resume.record)
                exchange.request.write(client.close(plan.finish_reason))
                self._metrics.count_resume("none", "exact")
                exchange.resumes += 1
                exchange.complete()
                return
            if isinstance(plan, Refuse):
                self._lose(exchange, plan.reason, is_power=resume.is_power)
                return
            placement = await self._place(resume)
            if placement is None:
                return
            exchange.placement = placement
            step = await self._continue_at(resume, placement)
            if exchange.trace is not None and step is Step.AGAIN:
                exchange.trace.end_part("cut", self._clock())
            exchange.placement = None
            self._dispatcher.release(placement)
            if step is Step.DONE:
                return
            if resume.fruitless > MAX_FRUITLESS_RESUMES:
                self._lose(exchange, "every site that took it broke it again", is_power=resume.is_power)
                return

    async def _place(self, resume: Resume) -> Placement | None:
        """A place at some site, or None: there was none in time and the client was told."""
        exchange = resume.exchange
        if needs_parser(resume.request, resume.record):
            for view in self._views(exchange):
                if not view.parses_ids or not (view.renders or not resume.request.resumability.grammar):
                    exchange.excluded[view.site_id] = FOREVER
        placement = self._place_with_ids(resume) or self._dispatcher.try_place(exchange, is_resume=True)
        if placement is not None:
            return placement
        try:
            return await self._dispatcher.wait(exchange, until=resume.until, is_resume=True)
        except NoRoomError as error:
            is_power = resume.is_power or error.shortage == "no_power"
            self._lose(exchange, "no site had room in time", is_power=is_power)
            return None

    def _place_with_ids(self, resume: Resume) -> Placement | None:
        """A place at a site that takes ids, where ids are better than text and another site would not."""
        if resume.by_text or not has_use_for_ids(resume.request, resume.record):
            return None
        exchange = resume.exchange
        views = self._views(exchange)
        without = {view.site_id: view.sequence for view in views if not view.token_ids}
        if not without:
            return None
        excluded = exchange.excluded
        exchange.excluded = {**without, **excluded}
        try:
            return self._dispatcher.try_place(exchange, is_resume=True)
        finally:
            exchange.excluded = excluded

    def _views(self, exchange: Exchange) -> Sequence[ModelView]:
        return self._view.snapshot.models.get(exchange.features.model, ())

    def _plan(self, resume: Resume, view: ModelView | None) -> ResumePlan:
        """What to do at one site; None: at the best one that there may be."""
        views = self._views(resume.exchange) if view is None else (view,)
        return plan_resume(
            resume.request,
            resume.record,
            site_takes_ids=view is None or view.token_ids,
            site_parses_ids=any(one.parses_ids for one in views),
            site_renders=any(one.renders for one in views),
            first_max_model_len=resume.first_max_model_len,
            max_model_len=resume.first_max_model_len if view is None else view.max_model_len,
            by_text=resume.by_text,
        )

    async def _continue_at(self, resume: Resume, placement: Placement) -> Step:
        """Try one site."""
        view = placement.view
        plan = self._plan(resume, view)
        if not isinstance(plan, Continue):  # by ids it could go on, but not there
            return self._not_there(resume, view)
        owed = ""
        try:
            if plan.needs_grammar:
                by_grammar = await self._by_grammar(resume, placement)
                if by_grammar is None:
                    return self._not_there(resume, view)
                plan = by_grammar
            if plan.detokenize is not None:
                whole = await self._questions.text(resume.exchange, placement, plan.detokenize)
                sent = resume.record.sent_text
                is_inside = whole is not None and ends_inside_a_character(whole)
                if is_inside and resume.may_take_back(sent):
                    resume.record.take_back_last_id()
                    resume.ids_taken_back += 1
                    return await self._continue_at(resume, placement)
                owed_or_none = None
                if whole is not None and not is_inside:
                    owed_or_none = owed_text(whole, sent, holds_back=bool(plan.stop))
                if owed_or_none is None:
                    resume.by_text = True
                    return await self._continue_at(resume, placement)
                owed = owed_or_none
            return await self._stream_from(resume, placement, plan, owed)
        except (UpstreamError, InterruptedRelayError) as error:
            return self._failed(resume, placement, error.kind)
        except TimeoutError:
            return self._failed(resume, placement, "first_byte_timeout")
        except RefusedError as error:
            return self._refused(resume, placement, error)
        except ParsersDisagreeError as error:
            return self._not_parsed(resume, placement, error)

    async def _by_grammar(self, resume: Resume, placement: Placement) -> Continue | None:
        """The plan by that site's grammar, from where none has begun; None: it has none, or does not say."""
        exchange, record = resume.exchange, resume.record
        if record.ids:
            search = ToldSearch(resume.request, record)
            await self._questions.shorten(exchange, placement, search)
            record.shorten_last_event(search.count)
        plan = self._plan(resume, placement.view)
        grammar = await self._questions.grammar(exchange, placement, resume.request.raw)
        if not isinstance(plan, Continue) or grammar is None:
            return None
        if not grammar and resume.request.resumability.grammar == "answer":
            return None
        return with_grammar(plan, grammar)

    def _not_there(self, resume: Resume, view: ModelView) -> Step:
        resume.exchange.exclude_until_newer(view.site_id, view.sequence)
        resume.fruitless += 1
        return Step.AGAIN

    async def _stream_from(self, resume: Resume, placement: Placement, plan: Continue, owed: str) -> Step:
        exchange, before = resume.exchange, resume.record.output_tokens
        response = await self._send(
            resume, placement, plan.path, plan.body, timeout_seconds=self._config.first_byte_timeout_seconds
        )
        try:
            note_headroom(response, placement.load)
            if not is_stream(response):
                await read_refusal(response)
                raise RefusedError.from_response(response)
            if is_encoded(response):
                return self._failed(resume, placement, "encoded_stream")
            continuation: Continuation | ParsedContinuation
            failure = None
            if plan.method == "parsed":
                continuation = ParsedContinuation(resume.request, resume.record, plan)
                ask = partial(self._questions.meaning, exchange, placement)
                ending, failure = await relay_parsed(exchange, response, continuation, ask, self._clock)
            else:
                continuation = Continuation(resume.request, resume.record, plan)
                ending = await relay_continuation(exchange, response, continuation, owed, self._clock())
        finally:
            energy, snapshot = self._metrics.energy, self._view.snapshot
            note_continuation(energy, snapshot, exchange, placement.entry.site_id, resume.record, before)
            exchange.response = None
            response.close()
        exchange.scanner = None  # its silence is none of the next site's
        if isinstance(continuation, Continuation) and continuation.stop_search is not None:
            await self._questions.count(exchange, placement, continuation.stop_search)
            exchange.request.write(continuation.end(continuation.stop_search.count))
        if ending != "complete":
            resume.has_broken()
        has_got_on = ending == "complete" or resume.record.output_tokens > before
        if has_got_on:
            resume.fruitless = 0
            resume.until = self._clock() + self._config.resume_wait_seconds
        if continuation.tokens or ending == "complete":
            exchange.resumes += 1
            self._metrics.count_resume(plan.method, plan.fidelity.value)
        if ending == "complete":
            placement.entry.breaker.succeed(placement.probe)
            placement.entry.results["answered"] += 1
            placement.load.finished()
            exchange.blame(self._clock())
            exchange.complete()
            return Step.DONE
        if failure is not None and not is_gone(failure):
            return self._not_parsed(resume, placement, failure)
        if ending == "error_event" and error_status(continuation.error) == 503 and not continuation.tokens:
            return self._pushed_back(resume, placement, "capacity", None)
        exchange.cut_reason = ending
        if ending == "other_output":
            placement.entry.breaker.succeed(placement.probe)
            placement.entry.results["answered"] += 1
            self._lose(exchange, "its continuation has reasoning or a tool call", is_power=resume.is_power)
            return Step.DONE
        resume.fruitless += 0 if has_got_on else 1
        self._note_break(exchange, placement)
        return Step.AGAIN

    async def _send(
        self, resume: Resume, placement: Placement, path: str, body: bytes, *, timeout_seconds: float
    ) -> UpstreamResponse:
        exchange = resume.exchange
        now = self._clock()
        origin, site_id, trace = placement.entry.origin, placement.entry.site_id, exchange.trace
        head = site_head(  # a client's deadline was met when the stream began
            origin.host_header,
            path,
            exchange.shared_head,
            len(body),
            authorization=self._authorization,
            is_resume=True,
            more=() if trace is None else trace.begin_attempt(site_id, now, is_resume=True),
        )
        response = await self._pool.exchange(origin, head, body, first_byte_timeout_seconds=timeout_seconds)
        exchange.response = response
        return response

    def _not_parsed(self, resume: Resume, placement: Placement, failure: BaseException) -> Step:
        """The site's parsers do not go on from what the client has; the ids it gave were well."""
        exchange, site = resume.exchange, placement.entry
        resume.fruitless += 1
        site.breaker.succeed(placement.probe)
        about = {**exchange.about, "site_id": site.site_id}
        trace = None if isinstance(failure, (ParsersDisagreeError, RefusedError, ValueError)) else failure
        logger.warning("parsers do not continue a stream: %r", failure, exc_info=trace, extra=about)
        self._metrics.count_resume("none", "not_parsed")
        exchange.exclude(site.site_id)
        exchange.is_between_sites = True
        exchange.wrote_at = self._clock()
        return Step.AGAIN

    def _refused(self, resume: Resume, placement: Placement, error: RefusedError) -> Step:
        """The site answered, and did not continue."""
        if error.status == 503:
            return self._pushed_back(resume, placement, error.pushback, error.retry_after)
        if 400 <= error.status < 500 and error.status not in (401, 403, 404):
            exchange, site = resume.exchange, placement.entry
            site.breaker.succeed(placement.probe)
            exchange.exclude(site.site_id)
            resume.fruitless += 1
            if has_other_site(self._views(exchange), exchange.excluded):
                self._metrics.count_resume("none", f"status_{error.status}")
                return Step.AGAIN
            self._lose(exchange, f"site {site.site_id} said {error.status}", is_power=resume.is_power)
            return Step.DONE
        return self._failed(resume, placement, f"status_{error.status}")

    def _pushed_back(
        self, resume: Resume, placement: Placement, reason: str, retry_after: bytes | None
    ) -> Step:
        note_pushback(placement, reason, retry_after, self._clock())
        if self._clock() < resume.until:
            return Step.AGAIN
        self._lose(resume.exchange, "no site had room in time", is_power=resume.is_power)
        return Step.DONE

    def _failed(self, resume: Resume, placement: Placement, kind: str) -> Step:
        site = placement.entry
        resume.fruitless += 1
        resume.exchange.exclude_until_newer(site.site_id, placement.view.sequence)
        if self._view.is_losing_power(site.site_id):
            site.results["broken"] += 1
            return Step.AGAIN
        site.results["failed"] += 1
        if kind.startswith("status_5"):
            resume.exchange.suspect(placement)
        else:
            site.breaker.fail(self._clock(), placement.probe)
        self._metrics.count_resume("none", kind)
        return Step.AGAIN

    def _note_break(self, exchange: Exchange, placement: Placement) -> None:
        """A site cut the stream: it is asked again once it has reported anew."""
        site = placement.entry
        site.results["broken"] += 1
        exchange.is_between_sites = True
        exchange.wrote_at = self._clock()
        exchange.exclude_until_newer(site.site_id, placement.view.sequence)
        if not self._view.is_losing_power(site.site_id):
            if exchange.cut_reason == "error_event":
                exchange.suspect(placement)
            else:
                site.breaker.break_stream(self._clock(), placement.probe)
        self._view.note_break(site.site_id, exchange.cut_reason)

    def _lose(self, exchange: Exchange, detail: str, *, is_power: bool) -> None:
        """End it with the stated error that names the cause."""
        code: LossCode = "power_lost" if is_power else "stream_lost"
        self._metrics.count_resume("none", code)
        about = {**exchange.about, "code": code, "site_id": exchange.site_id}
        logger.warning("a stream ends broken: %s", detail, extra=about)
        end_broken(exchange, code, detail)
