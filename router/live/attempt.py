"""One attempt at one site: send the request, and see its answer through.

Nothing is promised to the client before the first event that is not an error, or before an answer in one
piece is whole; until then the verdict may be that another site should try.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from gateway.errors import error_body
from gateway.upstream import UpstreamError, UpstreamPool, UpstreamResponse
from gateway.usage import output_tokens, total_tokens
from router.config import RouterConfig
from router.live.answers import answer, pass_on, site_error
from router.live.exchange import Exchange
from router.live.fleet_view import FleetView
from router.live.placement import Placement
from router.live.relay import InterruptedRelayError, relay_first
from router.live.request_head import site_head
from router.live.site_answers import (
    error_status,
    is_aborted,
    is_message_aborted,
    note_headroom,
    note_pushback,
    read_refusal,
)
from router.policy.body import LEARNT_APIS, Api, splice_token_ids
from router.policy.dispatch import FOREVER
from router.policy.event_scan import StreamScanner, scanner_for
from router.policy.resumable import can_continue

logger = logging.getLogger(__name__)

CUT_KINDS = frozenset({"closed", "aborted", "no_finish", "ended"})
"""A request that the site had and dropped. A site that stops one instance drops many at once and is well; one
that is dead refuses the next connection."""

NO_CHAT = frozenset({200, 400, 404, 405, 422})
"""What a site may say in one piece to a chat that was made of another request: that it is none of its own."""
EVENT_STREAM = b"text/event-stream"


class Verdict(Enum):
    """How one attempt at one site went."""

    DONE = "done"
    PUSHED_BACK = "pushback"
    FAILED = "failed"
    CUT = "cut"
    BROKEN_STREAM = "broken_stream"
    NOT_HERE = "not_here"


def is_stream(response: UpstreamResponse) -> bool:
    """Whether the answer is a stream of events."""
    content_type = response.fields.get(b"content-type")
    return response.status == 200 and content_type is not None and content_type.startswith(EVENT_STREAM)


def is_encoded(response: UpstreamResponse) -> bool:
    """Whether the answer is compressed."""
    return response.fields.get(b"content-encoding", b"identity") != b"identity"


class Attempt:
    """How requests are sent to sites. One per process."""

    def __init__(
        self,
        *,
        config: RouterConfig,
        view: FleetView,
        pool: UpstreamPool,
        authorization: bytes | None,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._view = view
        self._pool = pool
        self._authorization = authorization
        self._clock = clock

    def prepare(
        self, exchange: Exchange, placement: Placement
    ) -> tuple[bytes, bytes | memoryview, bytes, float]:
        """Head, body and the body's tail for this site, and the seconds that it has to begin its answer."""
        body, site = exchange.body, placement.entry
        exchange.site_id = site.site_id
        verdict = exchange.resumability
        raw: bytes | memoryview = exchange.request.body
        tail = b""
        can_resume = verdict is not None and can_continue(verdict, placement.view)
        has_ids = can_resume and placement.view.token_ids and verdict is not None and not verdict.by_text_only
        exchange.mode = "ids" if has_ids else "text" if can_resume else "plain"
        exchange.cuts_ids = has_ids and not body.asks_token_ids
        if exchange.cuts_ids:
            raw, tail = splice_token_ids(exchange.request.body)
        now = self._clock()
        left = exchange.deadline_at - now
        trace = exchange.trace
        head = site_head(
            site.origin.host_header,
            exchange.target,
            exchange.shared_head,
            len(raw) + len(tail),
            deadline_seconds_left=left if exchange.features.deadline_seconds is not None else None,
            authorization=self._authorization,
            is_resume=exchange.is_cut,
            more=() if trace is None else trace.begin_attempt(site.site_id, now, is_resume=exchange.is_cut),
        )
        timeout = min(left, self._config.first_byte_timeout_seconds) if body.stream else left
        return head, raw, tail, max(0.001, timeout)

    async def send(self, exchange: Exchange, placement: Placement) -> Verdict:
        """Send the request to one site and see its answer through."""
        head, raw, tail, timeout = self.prepare(exchange, placement)
        try:
            response = await self._pool.exchange(
                placement.entry.origin,
                head,
                raw,
                tail=tail,
                first_byte_timeout_seconds=timeout,
                sent=exchange.wait_for,
            )
        except (UpstreamError, InterruptedRelayError) as error:
            exchange.response = None
            return self.not_answered(exchange, placement, error)
        return await self.see_through(exchange, placement, response)

    def not_answered(self, exchange: Exchange, placement: Placement, error: Exception) -> Verdict:
        """The site did not begin to answer.

        Raises:
            Exception: `error` is not about the site.
        """
        if not isinstance(error, (UpstreamError, InterruptedRelayError)):
            raise error
        if error.kind == "deadline" or self._clock() >= exchange.deadline_at:
            # the request's own time is over: no fault of the site
            answer(exchange, *site_error("deadline", placement.entry.site_id))
            return Verdict.DONE
        return self._failed(exchange, placement, error.kind)

    async def see_through(
        self, exchange: Exchange, placement: Placement, response: UpstreamResponse
    ) -> Verdict:
        """The head is there: judge it and pass the answer on."""
        try:
            note_headroom(response, placement.load)
            status = response.status
            if status == 503 or (status >= 400 and response.fields.get(b"x-heron-pushback") is not None):
                return await self._pushed_back(exchange, placement, response)
            if status >= 500 or status in (401, 403):
                return await self._refused(exchange, placement, response)
            if status == 404 and exchange.asks_elsewhere:
                return await self._not_here(exchange, placement, response)
            if is_stream(response):
                if is_encoded(response):
                    return self._failed(exchange, placement, "encoded_stream")  # nobody asked for one
                ending = await relay_first(exchange, response, self.scanner(exchange), self._clock)
                return self.after_stream(exchange, placement, ending)
            try:
                data = await response.read(self._config.max_answer_bytes)
            except (UpstreamError, InterruptedRelayError) as error:
                return self.broke_off(exchange, placement, error)
            return self.whole(exchange, placement, response, data)
        finally:
            exchange.response = None
            exchange.scanner = None if not exchange.is_committed else exchange.scanner
            response.close()

    def scanner(self, exchange: Exchange) -> StreamScanner:
        """For the answer to the request as it was sent last."""
        return scanner_for(exchange.api, exchange.mode, cut=exchange.cuts_ids, choices=exchange.body.choices)

    def whole(
        self, exchange: Exchange, placement: Placement, response: UpstreamResponse, data: bytes
    ) -> Verdict:
        """An answer in one piece, held back until it was whole."""
        if response.status == 200 and (
            is_message_aborted(data)
            if exchange.api is Api.MESSAGES
            else is_aborted(data, exchange.body.choices)
        ):
            return self._failed(exchange, placement, "aborted")
        self._answered(placement)
        if exchange.as_it_came is not None and response.status in NO_CHAT:
            return self._not_as_chat(exchange, response.status, data)
        if response.status == 200:
            exchange.blame(self._clock())
        if exchange.taken_tokens is not None:
            exchange.used_tokens = total_tokens(data, exchange.features.prompt_tokens)
        if response.status == 200 and exchange.api in LEARNT_APIS:
            exchange.output_tokens = output_tokens(data)
        if exchange.on_opening is not None and response.status == 200:
            exchange.on_opening(data)
        pass_on(exchange, response, data)
        return Verdict.DONE

    def broke_off(
        self, exchange: Exchange, placement: Placement, error: UpstreamError | InterruptedRelayError
    ) -> Verdict:
        """An answer in one piece that did not come whole."""
        if isinstance(error, UpstreamError) and error.kind != "too_large":
            return self._failed(exchange, placement, error.kind)
        if isinstance(error, UpstreamError):
            placement.entry.breaker.succeed(placement.probe)
        answer(exchange, *site_error(error.kind, exchange.site_id))
        return Verdict.DONE

    def after_stream(self, exchange: Exchange, placement: Placement, ending: str) -> Verdict:
        """A stream is over: whole, broken before the client saw anything, or broken after."""
        if ending == "ended" and exchange.api is Api.OTHER:
            ending = "complete"
        if exchange.is_committed:
            if ending == "complete":
                self._answered(placement)
                exchange.complete()
                return Verdict.DONE
            exchange.cut_reason = ending
            return Verdict.BROKEN_STREAM
        if ending == "deadline":
            # the request's own time is over: no fault of the site
            answer(exchange, *site_error("deadline", exchange.site_id))
            return Verdict.DONE
        if ending == "error_event":
            error = exchange.scanner.error
            status = error_status(error)
            if status == 503:
                note_pushback(placement, "capacity", None, self._clock())
                exchange.exclude_until_newer(placement.entry.site_id, placement.view.sequence)
                return Verdict.PUSHED_BACK
            if 400 <= status < 500:
                self._answered(placement)
                body = error_body(
                    str(error.get("message", "")),
                    type=str(error.get("type") or "invalid_request_error"),
                    code=None if error.get("code") is None else str(error["code"]),
                    param=None if error.get("param") is None else str(error["param"]),
                )
                if exchange.as_it_came is not None and status in NO_CHAT:
                    return self._not_as_chat(exchange, status, body)
                answer(exchange, status, body)
                return Verdict.DONE
        return self._failed(exchange, placement, ending)

    def _not_as_chat(self, exchange: Exchange, status: int, body: bytes) -> Verdict:
        """The chat that was made of a request is refused: the next is asked for what the client sent."""
        exchange.ask_as_it_came()
        exchange.hold_until = self._clock() + self._config.hold_seconds
        exchange.last_error = (status, body)
        return Verdict.NOT_HERE

    async def _not_here(
        self, exchange: Exchange, placement: Placement, response: UpstreamResponse
    ) -> Verdict:
        """What the request names is not at this site: no fault of it."""
        data = await read_refusal(response)
        placement.entry.breaker.succeed(placement.probe)
        placement.entry.results["answered"] += 1
        exchange.last_error = (404, data)
        exchange.excluded[placement.entry.site_id] = FOREVER
        return Verdict.NOT_HERE

    def _answered(self, placement: Placement) -> None:
        placement.entry.breaker.succeed(placement.probe)
        placement.entry.results["answered"] += 1
        placement.load.finished()

    async def _pushed_back(
        self, exchange: Exchange, placement: Placement, response: UpstreamResponse
    ) -> Verdict:
        reason = response.fields.get(b"x-heron-pushback") or b"capacity"
        after = response.fields.get(b"x-heron-retry-after-seconds") or response.fields.get(b"retry-after")
        note_pushback(placement, reason.decode("latin-1"), after, self._clock())
        exchange.exclude_until_newer(placement.entry.site_id, placement.view.sequence)
        await read_refusal(response)
        return Verdict.PUSHED_BACK

    async def _refused(self, exchange: Exchange, placement: Placement, response: UpstreamResponse) -> Verdict:
        """A 5xx is the site's fault or the request's; a 401 or 403 the fleet's: the site does not take this
        router's token."""
        is_token = response.status in (401, 403)
        kind = "site_token" if is_token else f"status_{response.status}"
        data = await read_refusal(response)
        is_json = data.startswith(b"{")
        is_error = response.status == 500 or is_json
        verdict = self._failed(exchange, placement, kind, is_fault=not is_token, is_error=is_error)
        if is_json and not is_token:
            exchange.last_error = (response.status, data)
        if is_token:
            logger.error(
                "a site refuses this router's token: set the same [fleet] site_token on both",
                extra={**exchange.about, "site_id": placement.entry.site_id},
            )
        return verdict

    def _failed(
        self,
        exchange: Exchange,
        placement: Placement,
        kind: str,
        *,
        is_fault: bool = True,
        is_error: bool = False,
    ) -> Verdict:
        """The site did not answer; a site without power is not at fault. `is_error`: it said so itself."""
        site = placement.entry
        exchange.last_error = site_error(kind, site.site_id)
        exchange.cut_reason = kind
        if self._view.is_losing_power(site.site_id):
            site.results["broken"] += 1
            exchange.exclude_until_newer(site.site_id, placement.view.sequence)
            return Verdict.CUT
        site.results["failed"] += 1
        if not is_fault:
            site.breaker.succeed(placement.probe)
        elif is_error or kind == "error_event":
            exchange.suspect(placement)
        elif kind in CUT_KINDS or _had_answered(exchange):
            # it answered, and may do so to others: what broke may be this request's own
            site.breaker.break_stream(self._clock(), placement.probe)
        else:
            site.breaker.fail(self._clock(), placement.probe)
        exchange.exclude(site.site_id)
        return Verdict.FAILED


def _had_answered(exchange: Exchange) -> bool:
    """Whether an event came before what ended it."""
    return exchange.scanner is not None and exchange.scanner.events > 0
