"""An emulated engine's HTTP: vLLM's paths, all on the hot path of the server.

Real are status, shape and timing. `/version`, `/v1/models`, `system_fingerprint` and `/metrics` say that the
engine is emulated.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from gateway.api_paths import response_call
from gateway.errors import JSON_HEADERS
from gateway.server import ClientRequest, HotHandler
from site_agent.emulation import tokens
from site_agent.emulation.answer import FAKE_VERSION, Answer
from site_agent.emulation.as_chat import AS_CHAT, count_tokens_as_chat, missing_response
from site_agent.emulation.engine import QueueFullError, Sequence
from site_agent.emulation.generation import Job, StreamJob, WholeJob
from site_agent.emulation.metrics import CONTENT_TYPE
from site_agent.emulation.other_answers import MessagesAnswer, ResponsesAnswer
from site_agent.emulation.request import (
    GenerationRequest,
    Kind,
    ModelLimits,
    RequestError,
    chat_ids,
    check_model,
    parse_body,
    parse_generation,
    token_ids,
)

MAX_BODY_BYTES = 16 << 20
ANSWERS: dict[Kind, type[Answer]] = {"messages": MessagesAnswer, "responses": ResponsesAnswer}


class EngineBackend(Protocol):
    """The engine behind the API."""

    @property
    def is_ready(self) -> bool:
        """False while it starts."""

    def submit(self, sequence: Sequence) -> None:
        """Queue a request whose `owner` is its job; QueueFullError when too many wait."""

    def abandon(self, sequence: Sequence) -> None:
        """Nobody waits for it any more; does nothing if it has ended."""

    def metrics_page(self) -> bytes:
        """Prometheus text."""


class EngineApi:
    """The paths of one engine."""

    def __init__(self, backend: EngineBackend, limits: ModelLimits, *, started_at_unix_seconds: int) -> None:
        self._backend = backend
        self._limits = limits
        self._started = started_at_unix_seconds
        self._routes: dict[str, dict[str, HotHandler]] = {
            "/v1/chat/completions": {"POST": self._generating("chat")},
            "/v1/completions": {"POST": self._generating("completion")},
            "/v1/messages": {"POST": self._generating("messages")},
            "/v1/messages/count_tokens": {"POST": self._answering(self._count_tokens)},
            "/v1/responses": {"POST": self._generating("responses")},
            "/v1/models": {"GET": self._answering(self._models)},
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/version": {"GET": self._answering(lambda _: {"version": FAKE_VERSION})},
            "/tokenize": {"POST": self._answering(self._tokenize)},
            "/detokenize": {"POST": self._answering(self._detokenize)},
            "/metrics": {"GET": self._metrics},
        }

    def route(self, method: str, path: str) -> HotHandler:
        """Every request is answered here, also a wrong path or one that comes too early."""
        if not self._backend.is_ready:
            return _starting
        methods = self._routes.get(path)
        if methods is None:
            call = response_call(path)
            return _not_found if call is None else self._about_response
        return methods.get(method, _wrong_method)

    def _generating(self, kind: Kind) -> HotHandler:
        async def handle(request: ClientRequest) -> None:
            await self._generate(kind, request)

        return handle

    async def _about_response(self, request: ClientRequest) -> None:
        """Nothing is stored, as in vLLM unless it is told to."""
        call = response_call(request.path)
        assert call is not None
        if request.method != call.method:
            await _wrong_method(request)
            return
        error = missing_response(call.response_id)
        request.respond(error.status, JSON_HEADERS, error.body())

    async def _generate(self, kind: Kind, request: ClientRequest) -> None:
        try:
            _check_content_type(request)
            asked = parse_generation(kind, request.body, self._limits, AS_CHAT.get(kind))
        except RequestError as error:
            request.respond(error.status, JSON_HEADERS, error.body())
            return
        answer = self._answer(request, asked)
        job: Job = StreamJob(request, answer) if asked.stream else WholeJob(request, answer)
        sequence = Sequence(
            prompt_tokens=len(asked.prompt_ids),
            max_tokens=asked.max_tokens,
            owner=job,
            history=answer.tokens.history,
        )
        try:
            self._backend.submit(sequence)
        except QueueFullError as error:
            job.fail(RequestError(str(error), status=503, type="Service Unavailable"))
            return
        try:
            job.begin()
            await job.done
        finally:
            self._backend.abandon(sequence)

    def _answer(self, request: ClientRequest, asked: GenerationRequest) -> Answer:
        request_id = request.fields.get(b"x-request-id")
        return ANSWERS.get(asked.kind, Answer)(
            asked,
            request_id=uuid.uuid4().hex if request_id is None else request_id.decode("latin-1"),
            created=int(time.time()),
            model=self._limits.model,
        )

    async def _health(self, request: ClientRequest) -> None:
        request.respond(200, (), b"")

    async def _metrics(self, request: ClientRequest) -> None:
        request.respond(200, ((b"content-type", CONTENT_TYPE.encode()),), self._backend.metrics_page())

    def _answering(self, answer: Callable[[ClientRequest], dict[str, Any]]) -> HotHandler:
        async def handle(request: ClientRequest) -> None:
            try:
                body = orjson.dumps(answer(request))
            except RequestError as error:
                request.respond(error.status, JSON_HEADERS, error.body())
                return
            request.respond(200, JSON_HEADERS, body)

        return handle

    def _models(self, _request: ClientRequest) -> dict[str, Any]:
        card = {
            "id": self._limits.model,
            "object": "model",
            "created": self._started,
            "owned_by": "heron-emulation",
            "root": f"emulated:{self._limits.model}",
            "parent": None,
            "max_model_len": self._limits.max_model_len,
            "permission": [],
        }
        return {"object": "list", "data": [card]}

    def _tokenize(self, request: ClientRequest) -> dict[str, Any]:
        fields = self._fields(request)
        prompt = fields.get("prompt")
        if isinstance(prompt, str):
            self._limits.check_characters(len(prompt))
            ids = tokens.tokenize(prompt)
        else:
            ids = chat_ids(fields, self._limits)
        strings = [tokens.piece(token) for token in ids] if fields.get("return_token_strs") else None
        return {
            "count": len(ids),
            "max_model_len": self._limits.max_model_len,
            "tokens": ids,
            "token_strs": strings,
        }

    def _count_tokens(self, request: ClientRequest) -> dict[str, Any]:
        ids = chat_ids(count_tokens_as_chat(self._fields(request)), self._limits)
        return {"input_tokens": len(ids), "context_management": {"original_input_tokens": len(ids)}}

    def _detokenize(self, request: ClientRequest) -> dict[str, Any]:
        fields = self._fields(request)
        ids = fields.get("tokens")
        if not isinstance(ids, list):
            raise RequestError(
                "1 validation error:\n  tokens must be a list of token ids",
                param="tokens",
                type="Bad Request",
            )
        return {"prompt": tokens.detokenize(token_ids(ids, "tokens"))}

    def _fields(self, request: ClientRequest) -> dict[str, Any]:
        _check_content_type(request)
        fields = parse_body(request.body)
        check_model(fields, self._limits)
        return fields


def _check_content_type(request: ClientRequest) -> None:
    media_type = (request.fields.get(b"content-type") or b"").split(b";", 1)[0].strip().lower()
    if media_type != b"application/json":
        raise RequestError(
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
            type="Bad Request",
        )


async def _starting(request: ClientRequest) -> None:
    error = RequestError("The engine is starting.", status=503, type="Service Unavailable")
    request.respond(503, JSON_HEADERS, error.body())


async def _not_found(request: ClientRequest) -> None:
    error = RequestError("Not Found", status=404, type="Not Found")
    request.respond(404, JSON_HEADERS, error.body())


async def _wrong_method(request: ClientRequest) -> None:
    error = RequestError("Method Not Allowed", status=405, type="Method Not Allowed")
    request.respond(405, JSON_HEADERS, error.body())
