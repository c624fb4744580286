"""The operators' port of an agent: /metrics, /healthz, /readyz. Never the public one."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from site_agent import metrics


def create_app(
    *, site_id: str, registry: CollectorRegistry, why_not_ready: Callable[[], str | None]
) -> FastAPI:
    """`why_not_ready` says what is missing, None when the agent does its work (a dark site is ready)."""
    app = FastAPI(title=f"Heron site agent {site_id}", docs_url=None, redoc_url=None)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(metrics.render(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def read_health() -> JSONResponse:
        return JSONResponse({"status": "alive", "site_id": site_id})

    @app.get("/readyz")
    async def read_readiness() -> JSONResponse:
        reason = why_not_ready()
        if reason is None:
            return JSONResponse({"status": "ready", "site_id": site_id})
        return JSONResponse({"status": "not ready", "site_id": site_id, "reason": reason}, status_code=503)

    return app
