"""A request's OpenTelemetry spans. Imported only where they are asked for (`router.live.tracing`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fleet.request import ANONYMOUS
from gateway.headers import HeaderList
from router.live.exchange import Exchange
from router.live.lengths import output_tokens
from router.live.tracing import TRACE_HEADERS
from router.policy.body import Api

CLOSE_SECONDS = 2.0
"""For the last spans: a collector that is gone must not keep a router from ending."""
_OPERATIONS = {
    Api.CHAT: "chat",
    Api.COMPLETION: "text_completion",
    Api.RESPONSES: "chat",
    Api.MESSAGES: "chat",
}
"""As OpenTelemetry's conventions for generative AI call them; any other request is named by its path."""
_FAULTS = frozenset({"shed", "broken", "failed"})
"""Outcomes that are errors: not what a client did wrong, and not that it left."""
_GOOD_ENDS = frozenset({"done", "completed", "pushback", "not_here", "client_cancelled", "client_error"})
"""Of an attempt."""
_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """One request's spans; owned by whoever owns the request."""

    __slots__ = ("_context", "_nanoseconds", "_part", "_root", "_tracer")

    def __init__(
        self, tracer: Tracer, root: Span, context: Context, nanoseconds: Callable[[float], int]
    ) -> None:
        self._tracer = tracer
        self._root = root
        self._context = context
        """With the root in it."""
        self._nanoseconds = nanoseconds
        """Unix time of a loop time."""
        self._part: Span | None = None
        """The attempt, or the wait, that is under way."""

    @property
    def traceparent(self) -> str:
        """The request's own, as a header has it."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._context)
        return carrier["traceparent"]

    def begin_wait(self, now: float) -> None:
        """It waits for room from this loop time on."""
        self._begin("wait for room", SpanKind.INTERNAL, now, {})

    def begin_attempt(self, site_id: str, now: float, *, is_resume: bool = False) -> HeaderList:
        """A site is asked; returns the headers by which its spans become children of this one."""
        about = {"heron.site_id": site_id, "heron.is_resume": is_resume}
        part = self._begin(f"site {site_id}", SpanKind.CLIENT, now, about)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(part, self._context))
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items()]

    def asked(self, site_id: str, path: str, status: int, began: float, now: float) -> None:
        """A site was asked about token ids; status 0: no whole answer came."""
        context = self._context if self._part is None else set_span_in_context(self._part, self._context)
        about = {"heron.site_id": site_id, "url.path": path} | (
            {"http.response.status_code": status} if status else {}
        )
        at = self._nanoseconds(began)
        span = self._tracer.start_span(
            f"ask {path}", context, SpanKind.CLIENT, attributes=about, start_time=at
        )
        if not 0 < status < 500:
            _fail(span, str(status) if status else "failed")
        span.end(self._nanoseconds(now))

    def end_part(self, how: str, now: float) -> None:
        """The attempt, or the wait, is over; nothing where none is under way."""
        part, self._part = self._part, None
        if part is None:
            return
        part.set_attribute("heron.verdict", how)
        if how not in _GOOD_ENDS:
            _fail(part, how)
        part.end(self._nanoseconds(now))

    def end(self, exchange: Exchange, now: float) -> None:
        """The request is over, its outcome known."""
        self.end_part(exchange.outcome, now)
        root = self._root
        if root.is_recording():
            name, about = _described(exchange)
            root.update_name(name)
            root.set_attributes({key: value for key, value in about.items() if value is not None})
            if exchange.first_token_at is not None:
                root.add_event("first token", timestamp=self._nanoseconds(exchange.first_token_at))
            if exchange.outcome in _FAULTS:
                _fail(root, exchange.outcome)
        root.end(self._nanoseconds(now))

    def _begin(self, name: str, kind: SpanKind, now: float, about: dict[str, Any]) -> Span:
        self.end_part("done", now)
        at = self._nanoseconds(now)
        part = self._tracer.start_span(name, self._context, kind, attributes=about, start_time=at)
        self._part = part
        return part


class Spans:
    """One per process."""

    def __init__(self, provider: TracerProvider, clock: Callable[[], float]) -> None:
        """`provider` makes and sends them; `clock`: loop time."""
        self._provider = provider
        self._tracer = provider.get_tracer("heron.router")
        self._clock = clock

    def begin(self, headers: HeaderList, name: str, received_at: float) -> Trace:
        """A request came at this loop time, with these headers."""
        carrier = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in headers if key in TRACE_HEADERS
        }
        offset = time.time_ns() - int(self._clock() * 1e9)

        def nanoseconds(at: float) -> int:
            return offset + int(at * 1e9)

        parent = _PROPAGATOR.extract(carrier, Context())
        at = nanoseconds(received_at)
        root = self._tracer.start_span(name, parent, SpanKind.SERVER, start_time=at)
        return Trace(self._tracer, root, set_span_in_context(root, parent), nanoseconds)

    async def aclose(self) -> None:
        """Send what is left, as far as it is taken within `CLOSE_SECONDS`."""
        closing = threading.Thread(target=self._provider.shutdown, name="spans-close", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


def _described(exchange: Exchange) -> tuple[str, dict[str, Any]]:
    """A span's name and attributes, as far as they are known."""
    request, credential = exchange.request, exchange.credential
    operation = _OPERATIONS.get(exchange.api)
    first = exchange.first_token_at
    features: Any = getattr(exchange, "features", None)  # compiled, a body that was never read has set none
    name = f"{request.method} {request.path}" if operation is None else f"{operation} {exchange.model}"
    return name, {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.response.status_code": exchange.status or None,
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": exchange.model,
        "gen_ai.usage.output_tokens": output_tokens(exchange),
        "gen_ai.latency.time_to_first_token": None if first is None else first - exchange.received_at,
        "heron.request_id": exchange.request_id.decode("latin-1") or None,
        "heron.outcome": exchange.outcome,
        "heron.site_id": exchange.site_id or None,
        "heron.retries": exchange.retries,
        "heron.resumes": exchange.resumes,
        "heron.class": None if features is None else features.request_class,
        "heron.tier": None if features is None else features.tier,
        "heron.tenant": ANONYMOUS if credential is None else credential.tenant,
    }


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, kind))
