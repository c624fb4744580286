"""`GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`: to the site whose engine holds the response.

Engines keep responses in their own memory. The site that was seen with the id is asked first, then, since
another router may have seen it, every site that answers this API, in turn. A 404 from all of them is a 404;
if one of those could not be asked, nobody knows, and that is a 503. What another tenant is known to have made
is not found; of a response that another router answered with, nobody here knows whose it is.

Rule: what one of these may cost is bounded: it counts among its key's requests at once, and no site gets the
body that a client sent with it, for engines read none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from fleet.request import ANONYMOUS
from gateway.api_paths import RESPONSES_PATH, Api, response_call
from gateway.errors import JSON_HEADERS, error_body
from gateway.headers import HeaderList
from gateway.upstream import UpstreamError, UpstreamPool, UpstreamResponse
from router.config import RouterConfig
from router.live.answers import answer, end_broken, site_answer_headers, site_error
from router.live.attempt import is_encoded, is_stream
from router.live.exchange import Exchange
from router.live.fleet_view import FleetView
from router.live.relay import InterruptedRelayError, relay_first
from router.live.request_head import RequestHead
from router.live.response_homes import SiteHomes
from router.live.site_answers import read_refusal
from router.live.tracing import without_trace
from router.policy.event_scan import EventStreamScanner

MAX_SITES_ASKED = 64
"""For one id; a fleet with more sites that keep responses needs a router that has seen the id."""
RETRY_AFTER_SECONDS = 5


class _Result(Enum):
    ANSWERED = "answered"
    NOT_THERE = "not_there"
    UNKNOWN = "unknown"
    """The site did not say."""


class ResponseCalls:
    """One per process."""

    def __init__(
        self,
        *,
        config: RouterConfig,
        view: FleetView,
        homes: SiteHomes,
        pool: UpstreamPool,
        site_token: str | None,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._view = view
        self._homes = homes.homes
        self._pool = pool
        self._authorization = f"Bearer {site_token}".encode() if site_token else None
        self._clock = clock
        self._rng = rng

    async def run(self, exchange: Exchange) -> None:
        """Answer one such request; its owner is `Forwarder.serve`."""
        request = exchange.request
        head = RequestHead(request, self._rng)
        exchange.request_id = head.request_id
        if request.query:
            exchange.target = f"{request.path}?{request.query.decode('ascii')}"
        call = response_call(request.path)
        assert call is not None
        home = self._homes.find(call.response_id, self._clock())
        tenant = ANONYMOUS if exchange.credential is None else exchange.credential.tenant
        if self._homes.is_of_another(call.response_id, tenant):
            self._refuse_not_found(exchange, call.response_id)
            return
        is_unknown = False
        for site_id in self._sites(home):
            result = await self._ask(exchange, site_id, head.passed_on)
            if result is _Result.ANSWERED:
                self._homes.learn(call.response_id, site_id, self._clock())
                return
            if result is _Result.NOT_THERE and site_id == home:
                self._homes.forget(call.response_id)
            is_unknown |= result is _Result.UNKNOWN
        exchange.site_id = ""
        if is_unknown:
            self._refuse_unknown(exchange)
            return
        self._refuse_not_found(exchange, call.response_id)

    def _refuse_not_found(self, exchange: Exchange, response_id: str) -> None:
        message = f"Response with id '{response_id}' not found."
        body = error_body(message, type="invalid_request_error", param="response_id", code="not_found")
        answer(exchange, 404, body)

    def _sites(self, home: str | None) -> list[str]:
        """Whom to ask, in order. A dark site has no engine, and so no responses any more."""
        sites = [
            site_id
            for site_id, site in sorted(self._view.snapshot.sites.items())
            if site.state != "dark" and RESPONSES_PATH not in site.lacks
        ]
        sites.sort(key=lambda site_id: site_id != home)
        return sites[:MAX_SITES_ASKED]

    async def _ask(self, exchange: Exchange, site_id: str, passed_on: HeaderList) -> _Result:
        entry = self._view.registry.entries.get(site_id)
        left = exchange.deadline_at - self._clock()
        if entry is None or left <= 0:
            return _Result.UNKNOWN
        exchange.site_id = site_id
        headers = [*passed_on, (b"x-request-id", exchange.request_id)]
        if exchange.trace is not None:
            headers = [*without_trace(headers), *exchange.trace.begin_attempt(site_id, self._clock())]
        if self._authorization is not None:
            headers.append((b"authorization", self._authorization))
        try:
            response = await self._pool.send(
                entry.origin,
                exchange.request.method,
                exchange.target,
                headers,
                b"",
                first_byte_timeout_seconds=min(left, self._config.first_byte_timeout_seconds),
            )
        except UpstreamError:
            return _Result.UNKNOWN
        exchange.response = response
        try:
            return await self._pass_on(exchange, response)
        except UpstreamError:
            return _Result.UNKNOWN
        except InterruptedRelayError as error:
            answer(exchange, *site_error(error.kind, site_id))
            return _Result.ANSWERED
        finally:
            exchange.response = exchange.scanner = None
            response.close()

    async def _pass_on(self, exchange: Exchange, response: UpstreamResponse) -> _Result:
        status = response.status
        if status in (401, 403, 404) or status >= 500 or b"x-heron-pushback" in response.fields:
            await read_refusal(response)
            return _Result.NOT_THERE if status == 404 else _Result.UNKNOWN
        if is_stream(response) and not is_encoded(response):
            ending = await relay_first(exchange, response, EventStreamScanner(Api.RESPONSES), self._clock)
            if not exchange.is_committed:
                return _Result.UNKNOWN
            if ending == "complete":
                exchange.outcome = "completed"
                exchange.request.finish()
            else:
                end_broken(exchange, "stream_lost", ending)
            return _Result.ANSWERED
        data = await response.read(self._config.max_answer_bytes)
        answer(exchange, status, data, site_answer_headers(response.headers))
        return _Result.ANSWERED

    def _refuse_unknown(self, exchange: Exchange) -> None:
        message = "A site that may hold this response cannot be asked now."
        headers = [*JSON_HEADERS, (b"retry-after", b"%d" % RETRY_AFTER_SECONDS)]
        body = error_body(message, type="server_error", code="response_unavailable")
        answer(exchange, 503, body, headers)
