"""The public surface: hot inference paths by an allow-list, and the FastAPI application for everything else.

Rule: what is not listed does not exist. vLLM's control paths (`/sleep`, `/pause`, …) can never be reached
through a router.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gateway.api_paths import PUBLIC_PATHS, RESPONSES_PATH, Api, allowed_methods, response_call
from gateway.cors import CorsPolicy
from gateway.errors import anthropic_body, error_body, speaks_anthropic
from gateway.server import ClientRequest, HotHandler, HotRoute
from router.live.forward import Forwarder
from router.live.response_calls import ResponseCalls
from router.policy.snapshot import Snapshot


def hot_route(forwarder: Forwarder, calls: ResponseCalls, cors: CorsPolicy | None) -> HotRoute:
    """(method, path) → the handler of an inference path."""
    handlers: dict[str, HotHandler] = {
        path: forwarder.handler(rule.api) for path, rule in PUBLIC_PATHS.items()
    }
    about_response = forwarder.handler(Api.RESPONSES, calls.run)

    def answer_options(request: ClientRequest) -> None:
        _answer_options(request, cors)

    def route(method: str, path: str) -> HotHandler | None:
        if method == "POST" and (handler := handlers.get(path)) is not None:
            return handler
        if method == "OPTIONS" and (allowed_methods(path) or path == "*"):
            return answer_options
        if path.startswith(RESPONSES_PATH):
            call = response_call(path)
            return about_response if call is not None and call.method == method else None
        return None

    return route


def _answer_options(request: ClientRequest, cors: CorsPolicy | None) -> None:
    """What a path takes; a browser's preflight is answered here and reaches no site."""
    allowed = (*(allowed_methods(request.path) or ("GET", "POST")), "OPTIONS")
    headers = [(b"allow", ", ".join(allowed).encode())]
    if cors is not None:
        headers += cors.preflight(request.headers, allowed)
    request.respond(200, headers, b"")


def create_app(snapshot: Callable[[], Snapshot]) -> FastAPI:
    """Everything that is not hot."""
    app = FastAPI(
        title="Heron",
        description="OpenAI-compatible inference on wind power.",
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/v1/models")
    @app.head("/v1/models", include_in_schema=False)
    async def list_models() -> JSONResponse:
        """The models of all sites together."""
        models = snapshot().models
        return JSONResponse({"object": "list", "data": [_model(name, snapshot()) for name in sorted(models)]})

    @app.get("/v1/models/{model:path}")
    @app.head("/v1/models/{model:path}", include_in_schema=False)
    async def read_model(model: str) -> Response:
        """One model; 404 with the list where no site has it."""
        models = snapshot().models
        if model in models:
            return JSONResponse(_model(model, snapshot()))
        listed = ", ".join(sorted(models)[:100]) or "none"
        message = f"The model {model!r} does not exist here. Models: {listed}."
        return _error(404, message, code="model_not_found", param="model")

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def read_health() -> Response:
        """As vLLM answers it; what operators ask is on the operations port."""
        return Response(status_code=200)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        """Unknown paths and methods, in the shape of the path's API."""
        path, method = request.url.path, request.method
        spelled = request.scope["raw_path"].decode("ascii", "replace")  # `%2f` is no slash in a listed path
        allowed = ", ".join(allowed_methods(spelled))
        if allowed:
            message = f"{method} is not allowed at {path}: use {allowed}."
            response = _error(405, message, code="method_not_allowed", path=path)
            response.headers["allow"] = f"{allowed}, OPTIONS"
            return response
        message = f"There is nothing at {method} {path[:200]}."
        return _error(error.status_code, message, code="not_found", path=path)

    return app


def _error(status: int, message: str, *, code: str, param: str | None = None, path: str = "") -> Response:
    body = error_body(message, type="invalid_request_error", code=code, param=param)
    if speaks_anthropic(path):
        body = anthropic_body(status, body)
    return Response(body, status_code=status, media_type="application/json")


def _model(name: str, snapshot: Snapshot) -> dict[str, Any]:
    """OpenAI's model object; `created` is not known: 0. `max_model_len` is the least of all sites."""
    lengths = [view.max_model_len for view in snapshot.models[name] if view.max_model_len is not None]
    model: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "heron"}
    if lengths:
        model["max_model_len"] = min(lengths)
    return model
