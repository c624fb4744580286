"""The straight path: a request that finds a site with room and a pooled connection, and whose answer comes.

Why: a task, two futures and a timer for each request cost as much as all decisions about it. So the first
attempt runs in the callbacks of the two connections; whatever is not straight (no room, no connection, a
refusal, a break) goes on in a task, by the forwarder's general path, from the verdict reached here.

Rule: the judgements are `Attempt`'s, the same for both paths; here is only who calls them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.pieces import Pieces, collect, joined
from gateway.upstream import STALE_SECONDS, UpstreamError, UpstreamResponse, is_stale
from gateway.upstream_connection import UpstreamConnection
from router.live.attempt import Attempt, Verdict, is_encoded, is_stream
from router.live.exchange import Exchange
from router.live.placement import Placement
from router.live.relay import InterruptedRelayError, first_ending, first_relay
from router.live.site_answers import note_headroom

TIMER_SECONDS = 5.0
"""A site with less time than this to begin its answer gets a timer; the others the watch's sweep."""


class Owner(Protocol):
    """What the straight path needs of the forwarder."""

    attempt: Attempt
    max_answer_bytes: int
    clock: Callable[[], float]
    """Loop time."""

    def reach(self, exchange: Exchange, verdict: Verdict) -> None:
        """The attempt is over; the exchange holds its placement still."""

    def go_on(self, exchange: Exchange, response: UpstreamResponse | None) -> None:
        """The attempt goes on in a task: from the response's head, or from the beginning."""

    def fail_inside(self, exchange: Exchange) -> None:
        """Something in here is wrong; called while the exception is handled."""


class Straight:
    """One request's first attempt; observes its response."""

    __slots__ = ("_exchange", "_owner", "_pieces", "_placement", "_response", "_sent_at", "_size", "_timer")

    def __init__(self, owner: Owner, exchange: Exchange, placement: Placement) -> None:
        self._owner = owner
        self._exchange = exchange
        self._placement = placement
        self._pieces: Pieces = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, connection: UpstreamConnection) -> None:
        """Begin."""
        exchange = self._exchange
        head, body, tail, timeout = self._owner.attempt.prepare(exchange, self._placement)
        self._sent_at = self._owner.clock()
        self._response = exchange.response = connection.exchange(head, body, self, tail)
        exchange.head_by = self._sent_at + timeout
        if timeout < TIMER_SECONDS:
            self._timer = asyncio.get_running_loop().call_later(timeout, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timer = None
        response = self._response
        if not response.is_head_complete:
            response.stop(UpstreamError("first_byte_timeout", f"{self._exchange.site_id}: no answer in time"))

    # the response's side
    def head_arrived(self) -> None:
        """Straight on for an answer that is one; refusals are read by a task."""
        response = self._response
        status = response.status
        try:
            if status != 200 and (
                status >= 500
                or status in (401, 403)
                or b"x-heron-pushback" in response.fields
                or (status == 404 and self._exchange.asks_elsewhere)
            ):
                self._leave()
                return
            if is_stream(response):
                if is_encoded(response):
                    self._leave()
                    return
                note_headroom(response, self._placement.load)
                exchange, owner = self._exchange, self._owner
                scanner = owner.attempt.scanner(exchange)
                response.hand_over(first_relay(exchange, response, scanner, owner.clock))
            else:
                note_headroom(response, self._placement.load)
                response.hand_over(self._collect)
        except Exception:  # noqa: BLE001 - told and counted by the owner
            self._owner.fail_inside(self._exchange)

    def answer_arrived(self, body: bytes) -> None:
        """The whole answer at once: the commonest end."""
        exchange, response, owner = self._exchange, self._response, self._owner
        try:
            if self._timer is not None:
                self._stop_timer()
            if is_stream(response):
                response.is_complete = False
                self.head_arrived()
                response.take(body)
                response.complete()
                return
            note_headroom(response, self._placement.load)
            if len(body) > owner.max_answer_bytes:
                error = UpstreamError("too_large", "the answer is too large")
                verdict = owner.attempt.broke_off(exchange, self._placement, error)
            else:
                verdict = owner.attempt.whole(exchange, self._placement, response, body)
            self._release()
            owner.reach(exchange, verdict)
        except Exception:  # noqa: BLE001 - told and counted by the owner
            owner.fail_inside(exchange)

    def _leave(self) -> None:
        """A task goes on from here."""
        self._stop_timer()
        self._response.leave_to_task()
        self._owner.go_on(self._exchange, self._response)

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._owner.max_answer_bytes:
            raise UpstreamError("too_large", "the answer is too large")
        collect(self._pieces, data)

    def body_ended(self, error: Exception | None) -> None:
        """The attempt is over."""
        exchange = self._exchange
        try:
            self._stop_timer()
            if is_stale(self._response, error) and self._owner.clock() - self._sent_at <= STALE_SECONDS:
                self._release()
                self._owner.go_on(exchange, None)
                return
            verdict = self._judge(error)
            self._release()
            self._owner.reach(exchange, verdict)
        except Exception:  # noqa: BLE001 - told and counted by the owner
            self._owner.fail_inside(exchange)

    def _judge(self, error: Exception | None) -> Verdict:
        exchange, placement, response = self._exchange, self._placement, self._response
        attempt = self._owner.attempt
        if not response.is_head_complete:
            assert error is not None
            return attempt.not_answered(exchange, placement, error)
        if exchange.scanner is not None:
            return attempt.after_stream(exchange, placement, first_ending(exchange.scanner, error))
        if error is None:
            return attempt.whole(exchange, placement, response, joined(self._pieces))
        if isinstance(error, (UpstreamError, InterruptedRelayError)):
            return attempt.broke_off(exchange, placement, error)
        raise error

    def _release(self) -> None:
        exchange = self._exchange
        exchange.response = None
        if not exchange.is_committed:
            exchange.scanner = None
        self._response.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
