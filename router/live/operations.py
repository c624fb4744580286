"""The operator's surface, on its own port: health, metrics, ledger, and the fleet as this router sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from router.live.events import EventRing
from router.live.state_metrics import RouterState
from router.policy.snapshot import SiteView


def create_operations_app(
    *,
    state: RouterState,
    registry: CollectorRegistry,
    events: EventRing,
    readiness: Callable[[], str | None],
    about: Callable[[], dict[str, Any]],
) -> FastAPI:
    """`readiness` returns None when ready, else why not; `about` describes this router."""
    app = FastAPI(title="Heron router operations", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    def read_metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def read_health() -> JSONResponse:
        """The process lives and its loop turns."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def read_readiness() -> JSONResponse:
        """Whether clients should be sent here."""
        reason = readiness()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)

    @app.get("/heron/v1/ledger")
    async def read_ledger() -> JSONResponse:
        """Every request since the start, by how it ended."""
        return JSONResponse(state.ledger.totals())

    @app.get("/heron/v1/fleet")
    async def read_fleet() -> JSONResponse:
        """The snapshot, and what happened lately."""
        return JSONResponse({**fleet_page(state), "router": about(), "events": events.recent()})

    return app


def fleet_page(state: RouterState) -> dict[str, Any]:
    """What a console shows; None where something is unknown."""
    now = state.clock()
    sites = [_site(state, site, now) for _, site in sorted(state.view.snapshot.sites.items())]
    return {
        "unix_seconds": time.time(),
        "ledger": state.ledger.totals(),
        "held_requests": state.dispatcher.held,
        "store_up": state.reader.is_store_up,
        "sites": sites,
    }


def _site(state: RouterState, site: SiteView, now: float) -> dict[str, Any]:
    entry = state.view.registry.entries[site.site_id]
    kept = state.view.records(site.site_id)
    wind = None if kept is None or kept.power is None else kept.power
    return {
        "site_id": site.site_id,
        "state": site.state,
        "region": site.region,
        "ingress_url": site.ingress_url,
        "age_seconds": now - site.arrived_at,
        "clock_skew_seconds": None if kept is None else kept.skew_seconds,
        "drain_seconds_left": site.drain_seconds_left,
        "breaker": entry.breaker.state,
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
        "in_flight_requests": entry.in_flight,
        "requests": entry.requests,
        "results": entry.results,
        "pushbacks": entry.pushbacks,
        "models": [
            {
                "model": view.model,
                "freshness": view.freshness(now).name.lower(),
                "ready_instances": view.ready_instances,
                "headroom_requests": view.headroom_requests,
                "capacity_requests": view.capacity_requests,
                "waiting_requests": view.waiting_requests,
                "in_flight_requests": state.view.registry.loads[view.model][site.site_id].in_flight,
            }
            for view in site.models
        ],
    }
