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

from gateway.errors import error_body
from gateway.server import HotHandler, HotRoute
from router.live.forward import Forwarder
from router.policy.body import Api
from router.policy.snapshot import Snapshot

HOT_PATHS: dict[str, Api] = {
    "/v1/chat/completions": Api.CHAT,
    "/v1/completions": Api.COMPLETION,
    "/v1/responses": Api.RESPONSES,
    "/v1/messages": Api.MESSAGES,
    "/v1/messages/count_tokens": Api.OTHER,
    "/v1/embeddings": Api.OTHER,
    "/v1/rerank": Api.OTHER,
    "/v2/rerank": Api.OTHER,
    "/rerank": Api.OTHER,
    "/v1/score": Api.OTHER,
    "/score": Api.OTHER,
    "/pooling": Api.OTHER,
    "/classify": Api.OTHER,
    "/tokenize": Api.OTHER,
    "/detokenize": Api.OTHER,
    "/v1/audio/speech": Api.OTHER,
}
"""Path → how it is read. All take a JSON object with a `model`."""


def hot_route(forwarder: Forwarder) -> HotRoute:
    """(method, path) → the handler of an inference path."""
    handlers: dict[str, HotHandler] = {path: forwarder.handler(api) for path, api in HOT_PATHS.items()}

    def route(method: str, path: str) -> HotHandler | None:
        return handlers.get(path) if method == "POST" else None

    return route


def create_app(snapshot: Callable[[], Snapshot]) -> FastAPI:
    """Everything that is not hot."""
    app = FastAPI(
        title="Heron",
        description="OpenAI-compatible inference on wind power.",
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/v1/models")
    async def list_models() -> JSONResponse:
        """The models of all sites together."""
        models = snapshot().models
        return JSONResponse({"object": "list", "data": [_model(name, snapshot()) for name in sorted(models)]})

    @app.get("/v1/models/{model:path}")
    async def read_model(model: str) -> Response:
        """One model; 404 with the list where no site has it."""
        models = snapshot().models
        if model in models:
            return JSONResponse(_model(model, snapshot()))
        listed = ", ".join(sorted(models)[:100]) or "none"
        message = f"The model {model!r} does not exist here. Models: {listed}."
        return _error(404, message, code="model_not_found", param="model")

    @app.get("/health")
    async def read_health() -> Response:
        """As vLLM answers it; what operators ask is on the operations port."""
        return Response(status_code=200)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        """Unknown paths and methods, in OpenAI's shape."""
        path, method = request.url.path, request.method
        if path in HOT_PATHS or error.status_code == 405:
            allowed = "POST" if path in HOT_PATHS else "GET"
            message = f"{method} is not allowed at {path}: use {allowed}."
            response = _error(405, message, code="method_not_allowed")
            response.headers["allow"] = allowed
            return response
        return _error(error.status_code, f"There is nothing at {method} {path}.", code="not_found")

    return app


def _error(status: int, message: str, *, code: str, param: str | None = None) -> Response:
    body = error_body(message, type="invalid_request_error", code=code, param=param)
    return Response(body, status_code=status, media_type="application/json")


def _model(name: str, snapshot: Snapshot) -> dict[str, Any]:
    """OpenAI's model object; `created` is not known: 0. `max_model_len` is the least of all sites."""
    lengths = [view.max_model_len for view in snapshot.models[name] if view.max_model_len is not None]
    model: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "heron"}
    if lengths:
        model["max_model_len"] = min(lengths)
    return model
