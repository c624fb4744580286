"""The operator's surface, on its own port: console, health, metrics, ledger, the fleet as it is seen here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from router.live.asked_hosts import AskedHosts
from router.live.console import Console
from router.live.console_pages import console_routes
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.ledger import Ledger
from router.live.policy_switch import PolicySwitch
from router.live.site_counts import SiteCounts, no_counts
from router.live.site_records import SiteRecords
from router.policy.parameters import PolicyParameterError
from router.policy.snapshot import SiteView

OPERATIONS_STOP_SECONDS = 1.0
"""For what an operator has just asked, when the router ends."""
MAX_ORDER_BYTES = 64 << 10
"""Of a body that somebody sends here; a policy and its parameters are a few hundred."""


class RefusedError(Exception):
    """An order that is not taken, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Surface(Protocol):
    """What this page asks: a router that is one process answers of itself, a parent for its workers."""

    async def metrics_page(self) -> bytes:
        """Prometheus text format."""

    async def ledger_totals(self) -> dict[str, int]:
        """`Ledger.totals`."""

    async def fleet_page(self) -> dict[str, Any]:
        """`fleet_page`."""

    async def policy_page(self) -> dict[str, Any]:
        """`PolicySwitch.page`, and how many workers follow it."""


def create_operations_app(
    *,
    surface: Surface,
    events: EventRing,
    readiness: Callable[[], str | None],
    about: Callable[[], dict[str, Any]],
    policy: PolicySwitch,
    console: Console,
    names: Collection[str] = (),
) -> FastAPI:
    """`readiness` returns None when ready, else why not; `about` describes this router; `names`: under which
    it answers, beside those of `router.live.asked_hosts`."""
    app = FastAPI(title="Heron router operations", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(AskedHosts, names=names)
    app.include_router(console_routes(console))

    @app.get("/metrics")
    async def read_metrics() -> Response:
        """Prometheus text format."""
        return Response(await surface.metrics_page(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def read_health() -> JSONResponse:
        """The process lives and its loop turns."""
        return JSONResponse({"status": "ok"})

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def read_readiness() -> JSONResponse:
        """Whether clients should be sent here."""
        reason = readiness()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)

    @app.get("/heron/v1/ledger")
    async def read_ledger() -> JSONResponse:
        """Every request since the start, by how it ended."""
        return JSONResponse(await surface.ledger_totals())

    @app.get("/heron/v1/policy")
    async def read_policy() -> JSONResponse:
        """The policy that routes, and its parameters."""
        return JSONResponse(await surface.policy_page())

    @app.put("/heron/v1/policy")
    async def switch_policy(request: Request) -> JSONResponse:
        """Another one from now on: `{"policy": "heron", "parameters": {}}`. For programs, not for pages."""
        try:
            policy.switch(await _order(request))
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=error.status)
        except PolicyParameterError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(await surface.policy_page())

    @app.get("/heron/v1/fleet")
    async def read_fleet() -> JSONResponse:
        """The snapshot, and what happened lately."""
        page = await surface.fleet_page()
        return JSONResponse({**page, "router": about(), "events": events.recent()})

    return app


async def _order(request: Request) -> bytes:
    """The body of a request that changes something.

    Raises:
        RefusedError: it comes from a page in a browser, or is too large.
    """
    if "origin" in request.headers:  # a browser sends it with every PUT, by whatever name it came
        raise RefusedError(403, "pages in browsers may not change anything here")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_ORDER_BYTES:
            raise RefusedError(413, f"the body is larger than {MAX_ORDER_BYTES} bytes")
    return bytes(body)


def fleet_page(
    view: FleetView,
    *,
    counts: Mapping[str, SiteCounts],
    ledger: Ledger,
    held: int,
    is_store_up: bool | None,
    now: float,
) -> dict[str, Any]:
    """What a console shows; None where something is unknown."""
    return {
        "unix_seconds": time.time(),
        "ledger": ledger.totals(),
        "held_requests": held,
        "store_up": is_store_up,
        "sites": [
            _site(site, view.records(site_id), counts.get(site_id) or no_counts(), now)
            for site_id, site in sorted(view.snapshot.sites.items())
        ],
    }


def _site(site: SiteView, kept: SiteRecords | None, counts: SiteCounts, now: float) -> dict[str, Any]:
    wind = None if kept is None or kept.power is None else kept.power
    return {
        "site_id": site.site_id,
        "state": site.state,
        "cordon": None
        if site.cordon is None
        else {"reason": site.cordon.reason, "since_unix_seconds": site.cordon.since_unix_seconds},
        "region": site.region,
        "ingress_url": site.ingress_url,
        "age_seconds": now - site.arrived_at,
        "clock_skew_seconds": None if kept is None else kept.skew_seconds,
        "drain_seconds_left": site.drain_seconds_left,
        "breaker": counts["breaker"],
        "cap_watts": site.cap_watts,
        "draw_watts": site.draw_watts,
        "headroom_watts": site.headroom_watts,
        "wind": None
        if wind is None
        else {
            "available_power_watts": wind.available_power_watts,
            "granted_power_watts": wind.granted_power_watts,
            "nameplate_capacity_watts": wind.nameplate_capacity_watts,
            "quality": wind.quality,
            "source": wind.source,
        },
        "in_flight_requests": counts["in_flight"],
        "requests": counts["requests"],
        "results": counts["results"],
        "pushbacks": counts["pushbacks"],
        "models": [
            {
                "model": view.model,
                "freshness": view.freshness(now).name.lower(),
                "ready_instances": view.ready_instances,
                "headroom_requests": view.headroom_requests,
                "capacity_requests": view.capacity_requests,
                "waiting_requests": view.waiting_requests,
                "in_flight_requests": counts["models"].get(view.model, 0),
            }
            for view in site.models
        ],
    }
