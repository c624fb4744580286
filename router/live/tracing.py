"""OpenTelemetry spans of requests, where OpenTelemetry's own variables ask for them.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 heron router …

A request is a span, and in it are one for each time it waits for room and one for each site that was asked,
continuations of a broken stream too. Each site gets its own span as the parent, so what the engine there
exports (vLLM: `--otlp-traces-endpoint`) hangs below it; a client's `traceparent` is the parent of it all.
A thread of the SDK sends the spans, from a bounded queue; what does not fit is dropped. A collector that is
gone costs log lines, not requests.

Off, as it is without these variables, a request pays for looking whether it has a trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.headers import HeaderList

if TYPE_CHECKING:
    from router.live.spans import Spans

logger = logging.getLogger(__name__)

SERVICE_NAME = "heron-router"
TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def spans_of(environment: Mapping[str, str], clock: Callable[[], float]) -> Spans | None:
    """What the environment asks for; None: nothing, or what cannot be done, which the log says."""
    if not any(environment.get(name) for name in _ENDPOINTS) or _is_off(environment):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        logger.error(
            "no spans are sent: OTLP goes by http/protobuf here (port 4318 of most collectors), not by %r",
            protocol,
        )
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from router.live.spans import Spans
    except ImportError as error:
        logger.warning("no spans are sent: %s. Install it: pip install 'heron-router[tracing]'", error)
        return None
    is_named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if is_named else {"service.name": SERVICE_NAME})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider, clock)


def without_trace(headers: HeaderList) -> HeaderList:
    """The same less a client's trace context, in whose place each site gets its own."""
    return [header for header in headers if header[0] not in TRACE_HEADERS]


def _is_off(environment: Mapping[str, str]) -> bool:
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return is_disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
