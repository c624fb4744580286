"""The site's only ingress: an allow-list of inference paths, the site token, admission, instances.

Rules: an engine's control path (`/sleep`, `/pause`, `/abort_requests`, …) is never reachable, whatever the
engine serves. A request comes in only if it fits under the cap now; else it is pushed back in one round trip.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable

import orjson

from gateway.api_paths import HEALTH_PATH, MODELS_PATH, PATHS, RESPONSES_PATH, response_call
from gateway.client_request import ClientRequest, HotHandler
from gateway.errors import JSON_HEADERS, error_body
from site_agent.admission import Admission
from site_agent.forwarding import Failed, Forwarder, Outcome
from site_agent.held_responses import NOT_ASKED, HeldResponses
from site_agent.slots import Ask, Pushback

REPORT_PATH = "/heron/v1/report"
MAX_AFFINITY_BYTES = 256
"""Of the key; what is longer has the same beginning."""
BYTES_PER_TOKEN = 4.0
"""Of a request's body, roughly, for English; a prompt of token ids takes more, and is then overestimated."""
MAX_TOKENS = 1e7
"""What a header may claim."""


class Ingress:
    """Handlers for `gateway.server.HttpServer`."""

    def __init__(
        self,
        *,
        admission: Admission,
        forwarder: Forwarder,
        site_token: str | None,
        engine_paths: Callable[[], tuple[str, ...]],
        models: Callable[[], bytes],
        report: Callable[[], bytes],
        count: Callable[[Outcome], None],
        count_pushback: Callable[[str], None],
        responses: HeldResponses,
    ) -> None:
        """`models` and `report` give the bodies of those two answers; `count…` are the metrics."""
        self._admission = admission
        self._forwarder = forwarder
        self._authorization = None if site_token is None else b"Bearer " + site_token.encode()
        self._engine_paths = engine_paths
        self._models = models
        self._report = report
        self._count = count
        self._count_pushback = count_pushback
        self._responses = responses

    def route(self, method: str, path: str) -> HotHandler:
        """The handler of a request; there is one for everything."""
        own = {REPORT_PATH: self._answer_report, MODELS_PATH: self._answer_models}.get(path)
        if path == HEALTH_PATH:
            return self._answer_health if method == "GET" else self._refuse_method
        if own is not None:
            return own if method == "GET" else self._refuse_method
        if path in PATHS:
            if path not in self._engine_paths():
                return self._refuse_path
            return self.forward if method == "POST" else self._refuse_method
        call = response_call(path)
        if call is not None and RESPONSES_PATH in self._engine_paths():
            return self.ask_about_response if method == call.method else self._refuse_method
        return self._refuse_path

    async def forward(self, request: ClientRequest) -> None:
        """Find an instance and pass the request on."""
        if not self._is_authorized(request):
            return
        if request.fields.get(b"content-encoding") not in (None, b"identity"):
            self._count("rejected")
            message = "A site takes no compressed bodies; the router undoes them."
            _respond_error(
                request, 415, message, code="unsupported_content_encoding", type="invalid_request_error"
            )
            return
        try:
            outcome = await self._forward(request)
        except asyncio.CancelledError:
            self._count("client_cancelled")
            raise
        self._count(outcome)

    async def _forward(self, request: ClientRequest) -> Outcome:
        ask = _ask(request)
        tried: dict[str, Failed] = {}
        holder = self._responses.holder_of_previous(request)
        is_referring = holder is not None
        if holder:  # first that one; where it says 404 the hint was wrong
            tried |= {
                one.instance_id: NOT_ASKED for one in self._admission.instances if one.instance_id != holder
            }
        while True:
            chosen = self._admission.choose(ask, tried)
            if isinstance(chosen, Pushback):
                return self._refuse(request, chosen, tried)
            result = await self._forwarder.attempt(request, chosen, ask, asks_elsewhere=is_referring)
            if not isinstance(result, Failed):
                return result
            if result.kind == "not_here" and holder:
                tried, holder = {}, None
            tried[chosen.instance_id] = result
            if result.kind == "timeout":  # the time is used up; another engine would not be faster
                _respond_error(request, 504, result.message, code="timeout")
                return "engine_error"
            if result.kind == "too_large":
                _respond_error(request, 502, result.message, code="answer_too_large")
                return "engine_error"

    def _refuse(self, request: ClientRequest, pushback: Pushback, tried: dict[str, Failed]) -> Outcome:
        """No instance is left: a pushback, unless engines failed where there was room."""
        failures = list(tried.values())
        missing = [failed for failed in failures if failed.kind == "not_here"]
        admitted = [one for one in self._admission.instances if one.is_admitted]
        if missing and all(one.instance_id in tried for one in admitted):
            request.respond(404, JSON_HEADERS, missing[-1].body)
            return "client_error"
        broken = [failed for failed in failures if failed.kind == "engine"]
        if broken and pushback.reason == "capacity":
            _respond_error(request, 502, broken[-1].message, code="engine_failed")
            return "engine_error"
        self._count_pushback(pushback.reason)
        seconds = pushback.retry_after_seconds
        headers = [
            *JSON_HEADERS,
            (b"x-heron-pushback", pushback.reason.encode()),
            (b"x-heron-retry-after-seconds", b"%.1f" % seconds),
            (b"retry-after", b"%d" % math.ceil(seconds)),
            (b"x-heron-headroom", b"%d" % self._admission.slots.headroom()),
        ]
        body = error_body(
            f"This site does not take the request now: {pushback.reason}.",
            type="server_error",
            code="pushback",
        )
        request.respond(503, headers, body)
        return "pushback"

    async def ask_about_response(self, request: ClientRequest) -> None:
        """`GET /v1/responses/{id}` and its cancel: to the engine that holds it, else to each in turn."""
        if not self._is_authorized(request):
            return
        try:
            outcome = await self._responses.answer(request, self._forwarder)
        except asyncio.CancelledError:
            self._count("client_cancelled")
            raise
        self._count(outcome)

    # The agent's own answers

    async def _answer_report(self, request: ClientRequest) -> None:
        if self._is_authorized(request):
            request.respond(200, JSON_HEADERS, self._report())

    async def _answer_models(self, request: ClientRequest) -> None:
        if self._is_authorized(request):
            request.respond(200, JSON_HEADERS, self._models())

    async def _answer_health(self, request: ClientRequest) -> None:
        slots = 0 if self._admission.is_closed else self._admission.slots.slots()
        request.respond(200 if slots else 503, JSON_HEADERS, orjson.dumps({"slots": slots}))

    async def _refuse_path(self, request: ClientRequest) -> None:
        self._count("rejected")
        _respond_error(
            request,
            404,
            f"There is nothing at {request.path[:200]}.",
            code="not_found",
            type="invalid_request_error",
        )

    async def _refuse_method(self, request: ClientRequest) -> None:
        self._count("rejected")
        _respond_error(
            request,
            405,
            f"{request.path} does not take {request.method}.",
            code="method_not_allowed",
            type="invalid_request_error",
        )

    def _is_authorized(self, request: ClientRequest) -> bool:
        """Whether the site token was shown; where not, the request is answered."""
        if self._authorization is None:
            return True
        if hmac.compare_digest(request.fields.get(b"authorization") or b"", self._authorization):
            return True
        self._count("rejected")
        _respond_error(
            request,
            401,
            "This is a site's ingress: show its site token as a bearer token.",
            code="invalid_site_token",
            type="authentication_error",
        )
        return False


def _ask(request: ClientRequest) -> Ask:
    """What admission needs to know, from headers and the body's size alone: the body is not read here."""
    fields = request.fields
    affinity = fields.get(b"x-heron-affinity")
    return Ask(
        is_resume=fields.get(b"x-heron-resume") == b"1",
        takes_slot=PATHS[request.path].takes_slot,
        affinity=None if affinity is None else affinity[:MAX_AFFINITY_BYTES],
        prompt_tokens=len(request.body) / BYTES_PER_TOKEN,
        output_tokens=_tokens(fields.get(b"x-heron-expected-output-tokens")),
        shows_first_token=request.body.rfind(b'"stream"') >= 0,  # of a long prompt twice as fast as `in`
    )


def _tokens(text: bytes | None) -> float | None:
    """A header's number; None where it is none."""
    try:
        value = float(text or b"")
    except ValueError:
        return None
    return value if 0 <= value <= MAX_TOKENS else None


def _respond_error(
    request: ClientRequest,
    status: int,
    message: str,
    *,
    code: str,
    type: str = "server_error",  # noqa: A002
) -> None:
    request.respond(status, JSON_HEADERS, error_body(message, type=type, code=code))
