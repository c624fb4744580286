"""The control API of a site's fake hardware, on a loopback port of its own.

What a driver does with real hardware through process control and NVML, it does here; and tests script faults.
`GET /gpus/power` is asked ten times a second and hence answered on the hot path.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import JSON_HEADERS
from gateway.server import ClientRequest, HotHandler, HttpServer
from site_agent.emulation.gpu import ClockError
from site_agent.emulation.host import FakeHost, UnknownEngineError
from site_agent.emulation.running import EngineBusyError, Fault

MAX_BODY_BYTES = 64 * 1024


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StartBody(_Body):
    """Of `POST /engines/{id}/start`."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """None: the configured one; 0: a free one."""


class ClockBody(_Body):
    """Of `POST /gpus/clock`."""

    instance_id: str
    clock_mhz: int | None = None
    """None unlocks."""


class FaultBody(_Body):
    """Of `POST /engines/{id}/fault`; see `RunningEngine.fault`."""

    kind: Fault


FaultReason = Literal["unknown_engine", "port_in_use", "busy", "bad_clock"]


def create_app(host: FakeHost) -> FastAPI:
    """The application; errors are `{"error": {"message", "reason"}}`."""
    app = FastAPI(title="Heron: control of FAKE hardware", docs_url=None, redoc_url=None)

    @app.get("/host")
    async def describe() -> dict[str, Any]:
        return host.describe()

    @app.post("/engines/{instance_id}/start")
    async def start(instance_id: str, body: StartBody | None = None) -> dict[str, Any]:
        port = await host.start(instance_id, None if body is None else body.port)
        return {"fake": True, "port": port}

    @app.post("/engines/{instance_id}/stop")
    async def stop(instance_id: str) -> dict[str, Any]:
        await host.engine(instance_id).stop()
        return {"fake": True}

    @app.post("/engines/{instance_id}/fault")
    async def fault(instance_id: str, body: FaultBody) -> dict[str, Any]:
        await host.engine(instance_id).fault(body.kind)
        return {"fake": True}

    @app.post("/gpus/clock")
    async def set_clock(body: ClockBody) -> dict[str, Any]:
        host.set_clock(body.instance_id, body.clock_mhz)
        return {"fake": True}

    app.exception_handler(UnknownEngineError)(_handler(404, "unknown_engine"))
    app.exception_handler(EngineBusyError)(_handler(409, "busy"))
    app.exception_handler(OSError)(_handler(409, "port_in_use"))
    app.exception_handler(ClockError)(_handler(400, "bad_clock"))
    return app


def _handler(status: int, reason: FaultReason) -> Any:
    async def handle(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": {"message": str(error), "reason": reason}}, status_code=status)

    return handle


def create_server(host: FakeHost) -> HttpServer:
    """The server of the control API, not yet listening."""

    async def power(request: ClientRequest) -> None:
        body = {"fake": True, "power_watts": host.gpu_watts()}
        request.respond(200, JSON_HEADERS, orjson.dumps(body))

    def hot(method: str, path: str) -> HotHandler | None:
        return power if path == "/gpus/power" and method == "GET" else None

    return HttpServer(
        create_app(host),
        hot=hot,
        host=host.settings.host,
        port=host.settings.control_port,
        max_body_bytes=MAX_BODY_BYTES,
    )
