"""A collector as far as OTLP over HTTP goes: takes what is posted to `/v1/traces` and reads it by
OpenTelemetry's own protobuf classes. It keeps spans and shows them to the test; real ones store them.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.server import HttpServer


@dataclass
class Seen:
    """One span, as it arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    is_error: bool
    about: dict[str, Any]
    events: list[str]
    service: str = field(default="", compare=False)

    @classmethod
    def of(cls, span: Span, service: str) -> Seen:
        return cls(
            name=span.name,
            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            is_error=span.status.code == Status.STATUS_CODE_ERROR,
            about={one.key: _value(one.value) for one in span.attributes},
            events=[event.name for event in span.events],
            service=service,
        )


class OtlpReceiver:
    """`spans` in the order in which they came."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.port = 0
        app = FastAPI()

        @app.post("/v1/traces")
        async def take(request: Request) -> Response:
            body = await request.body()
            if request.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {one.key: _value(one.value) for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [Seen.of(span, names["service.name"]) for span in scope.spans]
            return Response(
                ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf"
            )

        self._server = HttpServer(app, host="127.0.0.1", port=0)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def roots(self) -> list[Seen]:
        """The router's requests, not their parts."""
        return [span for span in self.spans if (span.kind, span.service) == ("SERVER", "heron-router")]

    def parts_of(self, root: Seen) -> list[Seen]:
        """What it was made of, in order of time."""
        parts = [span for span in self.spans if span.parent_id == root.span_id]
        return sorted(parts, key=lambda span: span.start_ns)


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    """For as long as the block lasts."""
    receiver = OtlpReceiver()
    await receiver._server.start()
    receiver.port = receiver._server.port
    try:
        yield receiver
    finally:
        await receiver._server.stop(0.5)


@contextmanager
def otlp_receiver_thread() -> Iterator[OtlpReceiver]:
    """The same for a test that has no event loop of its own."""
    started: Future[OtlpReceiver] = Future()
    over = asyncio.Event()

    async def run() -> None:
        async with otlp_receiver() as receiver:
            started.set_result(receiver)
            await over.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="otlp receiver")
    thread.start()
    try:
        yield started.result(timeout=10)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
