"""The feed's HTTP surface: the direct stream (DESIGN §4), the latest readings, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.errors import error_body
from power_feed.hub import Hub, TooManySubscribersError

ErrorType = Literal["invalid_request_error", "server_error"]

AGENT_HEADER = "x-heron-site-agent"
"""`1` where the site's agent asks. Nobody proves it: who may reach the port is the network's to say."""
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class FeedView(Protocol):
    """What the surface shows."""

    hub: Hub
    site_ids: tuple[str, ...]

    def unready_reasons(self) -> list[str]:
        """Why a load balancer should not use it; empty: ready."""

    def exposition(self) -> bytes:
        """The metrics page."""


def create_app(feed: FeedView) -> FastAPI:
    """The application over one running feed."""
    app = FastAPI(title="Heron power feed", docs_url="/docs", redoc_url=None)

    @app.get("/v1/power")
    async def all_latest() -> Response:
        """The latest reading of every site that has one."""
        known = [reading for site in feed.site_ids if (reading := feed.hub.newest(site)) is not None]
        return Response(b'{"readings":[' + b",".join(known) + b"]}", media_type="application/json")

    @app.get("/v1/power/{site_id}")
    async def latest(site_id: str) -> Response:
        """A site's latest PowerReading."""
        if site_id not in feed.site_ids:
            return _unknown_site(site_id, feed.site_ids)
        reading = feed.hub.newest(site_id)
        if reading is None:
            message = f"Nothing was measured for site {site_id} yet: check its source in the feed's log."
            return _error(503, message, "server_error", "no_measurement")
        return Response(reading, media_type="application/json")

    @app.get("/v1/power/{site_id}/stream")
    async def stream(site_id: str, request: Request) -> Response:
        """A site's PowerReadings as server-sent events, newest first thing, then as they are made. With
        `x-heron-site-agent: 1` the reader is the site's agent: the site then counts as hearing its grants.
        """
        if site_id not in feed.site_ids:
            return _unknown_site(site_id, feed.site_ids)
        try:
            is_agent = request.headers.get(AGENT_HEADER) == "1"
            events = _events(feed.hub, site_id, is_agent=is_agent)
            await anext(events)
        except TooManySubscribersError as error:
            return _error(503, str(error), "server_error", "too_many_streams")
        return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM_HEADERS)

    @app.get("/healthz")
    async def health() -> Response:
        """200 while the process can answer at all."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        """200 once every site has a reading; Redis is not needed."""
        reasons = feed.unready_reasons()
        status = "not ready" if reasons else "ready"
        return JSONResponse({"status": status, "reasons": reasons}, status_code=503 if reasons else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(feed.exposition(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _events(hub: Hub, site_id: str, *, is_agent: bool) -> AsyncIterator[bytes]:
    """First nothing, once subscribed (so that a refusal is raised in time); then each reading as an event.

    It must have been started when it is dropped, or its `finally` would never run.
    """
    subscription = hub.subscribe(site_id, is_agent=is_agent)
    try:
        yield b""
        while (reading := await subscription.next()) is not None:
            yield b"data: " + reading + b"\n\n"
    finally:
        hub.unsubscribe(site_id, subscription)


def _unknown_site(site_id: str, known: tuple[str, ...]) -> Response:
    names = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    message = f"This feed has no site {site_id[:64]!r}; it feeds {names}."
    return _error(404, message, "invalid_request_error", "site_not_found")


def _error(status: int, message: str, kind: ErrorType, code: str) -> Response:
    return Response(error_body(message, type=kind, code=code), status, media_type="application/json")
