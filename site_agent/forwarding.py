"""One request to one instance, and what becomes of it.

Rules: another instance is tried only before the first byte has gone to the router. After it, whatever breaks
closes the connection without the final chunk, and the router resumes the stream elsewhere (DESIGN §5). The
flight is closed and the engine's connection given back or cut in `finally`, whatever the exit.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import orjson

from gateway.api_paths import RESPONSES_PATH
from gateway.client_request import ClientRequest
from gateway.headers import request_headers, response_headers
from gateway.sse import data_of
from gateway.upstream import UpstreamError, UpstreamErrorKind, UpstreamPool, UpstreamResponse
from site_agent.admission import Admission, Flight
from site_agent.instance import Instance
from site_agent.request_energy import Bill, RequestEnergy
from site_agent.slots import Ask

logger = logging.getLogger(__name__)

Outcome = Literal[
    "completed", "client_error", "engine_error", "broken", "client_cancelled", "pushback", "rejected"
]
"""How a request ended here; label of `heron_site_requests_total`."""

ERROR_EVENT = b'data: {"error"'
STREAM = re.compile(rb'"stream"\s*:\s*true')
"""In a body: the answer is to come in pieces."""
DROPPED_HEADERS = frozenset({b"authorization"})
"""The site token ends here."""
EVENT_STREAM = b"text/event-stream"


FailureKind = Literal["engine", "overloaded", "interrupted", "not_here", "timeout", "too_large"]
"""After all but the last two another instance may do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Nothing has reached the router yet."""

    kind: FailureKind
    message: str
    body: bytes = b""
    """The engine's own words, where it is `not_here`."""


_FAILURES: dict[UpstreamErrorKind, FailureKind] = {
    "first_byte_timeout": "timeout",
    "too_large": "too_large",
}
"""Whatever else goes wrong with a connection is the engine's fault."""


class _FirstEventError(Exception):
    """The engine said 200 and then, as its first event, that it cannot."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Forwarder:
    """Sends requests to engines."""

    def __init__(
        self,
        *,
        admission: Admission,
        upstream: UpstreamPool,
        request_timeout_seconds: float,
        max_answer_bytes: int,
        engine_api_key: str | None = None,
        note_opening: Callable[[str, bytes], None] = lambda _instance_id, _opening: None,
        bills: RequestEnergy | None = None,
    ) -> None:
        """`engine_api_key` is shown to the engines. `note_opening` gets, of each answer of the
        Responses API, instance id and first bytes. `bills` hands out the site's energy to the requests.
        """
        self._note_opening = note_opening
        self._bills = RequestEnergy() if bills is None else bills
        self._admission = admission
        self._upstream = upstream
        self._request_timeout_seconds = request_timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._added = (
            () if engine_api_key is None else ((b"authorization", b"Bearer " + engine_api_key.encode()),)
        )

    async def attempt(
        self, request: ClientRequest, instance: Instance, ask: Ask, *, asks_elsewhere: bool = False
    ) -> Outcome | Failed:
        """Try one instance; a `Failed` leaves the request unanswered.

        `asks_elsewhere`: it names what one instance holds, and a 404 is no answer yet.

        Raises:
            CancelledError: the router has gone.
        """
        task = asyncio.current_task()
        assert task is not None
        assert instance.origin is not None
        flight = self._admission.open(instance, task.cancel, ask)
        is_whole = ask.takes_slot and not (ask.shows_first_token and STREAM.search(request.body))
        bill = self._bills.open(ask.prompt_tokens if ask.takes_slot else 0.0, is_whole=is_whole)
        response: UpstreamResponse | None = None
        try:
            response = await self._upstream.send(
                instance.origin,
                request.method,
                _target(request),
                [*request_headers(request.headers, DROPPED_HEADERS), *self._added],
                request.body,
                first_byte_timeout_seconds=self._timeout_seconds(request),
            )
            flight.is_answered = is_whole or not ask.shows_first_token
            if response.status == 404 and asks_elsewhere:
                body = await response.read(self._max_answer_bytes)
                return Failed(kind="not_here", message=f"not at {instance.instance_id}", body=body)
            return await self._answer(request, response, flight, bill)
        except UpstreamError as error:
            _tell(request, instance, str(error))
            if request.started:
                request.abort()
                return "broken"
            return Failed(kind=_FAILURES.get(error.kind, "engine"), message=str(error))
        except _FirstEventError as error:
            if error.failed.kind == "engine":
                _tell(request, instance, error.failed.message)
            return error.failed
        except asyncio.CancelledError:
            if not flight.is_broken or request.is_disconnected:
                raise
            task.uncancel()
            if request.started:
                request.abort()
                return "broken"
            return Failed(kind="interrupted", message=f"{instance.instance_id} is being stopped")
        finally:
            request.on_pause = request.on_resume = None
            self._bills.close(bill)
            if response is not None:
                response.close()
            self._admission.close(flight)

    async def _answer(
        self, request: ClientRequest, response: UpstreamResponse, flight: Flight, bill: Bill
    ) -> Outcome | Failed:
        if response.status == 503:
            return Failed(kind="overloaded", message=f"{flight.instance.instance_id} is at its limit")
        if response.status == 200 and (response.fields.get(b"content-type") or b"").startswith(EVENT_STREAM):
            await self._stream(request, response, flight, bill)
            return "completed"
        body = await response.read(self._max_answer_bytes)
        if response.status == 200 and flight.ticket.takes_slot:
            bill.take_body(body)
        if request.path == RESPONSES_PATH and response.status == 200:
            self._note_opening(flight.instance.instance_id, body)
        request.respond(response.status, self._headers(response, flight), body)
        if response.status < 400:
            return "completed"
        return "client_error" if response.status < 500 else "engine_error"

    async def _stream(
        self, request: ClientRequest, response: UpstreamResponse, flight: Flight, bill: Bill
    ) -> None:
        """Pass pieces on as they come. The head waits for the first, which may be an error after all."""
        request.on_pause, request.on_resume = response.pause, response.resume

        def on_data(data: bytes) -> None:
            if not request.started:
                _check_first_event(data, flight.instance.instance_id)
                if request.path == RESPONSES_PATH:
                    self._note_opening(flight.instance.instance_id, data)
                flight.is_answered = True
                self._admission.slots.begin_decode(flight.ticket)
                request.start(200, self._headers(response, flight))
            bill.take_piece(data)
            request.write(data)

        await response.relay(on_data)
        if not request.started:
            request.start(200, self._headers(response, flight))
        request.finish()

    def _headers(self, response: UpstreamResponse, flight: Flight) -> list[tuple[bytes, bytes]]:
        headers = response_headers(response.headers)
        headers.append((b"x-heron-headroom", b"%d" % self._admission.slots.headroom()))
        headers.append((b"x-heron-instance", flight.instance.instance_id.encode()))
        return headers

    def _timeout_seconds(self, request: ClientRequest) -> float:
        """Until the first byte; the router's deadline, where it states one, may shorten it."""
        try:
            deadline = float(request.fields.get(b"x-heron-deadline-seconds") or b"inf")
        except ValueError:
            return self._request_timeout_seconds
        # A NaN fails both comparisons.
        return deadline if 0 < deadline < self._request_timeout_seconds else self._request_timeout_seconds


def _tell(request: ClientRequest, instance: Instance, message: str) -> None:
    """In the log: which request an engine did not answer, and why."""
    extra = {**request.about, "instance": instance.instance_id, "is_begun": request.started}
    logger.warning("an engine failed a request: %s", message, extra=extra)


def _target(request: ClientRequest) -> str:
    return f"{request.path}?{request.query.decode('ascii', 'replace')}" if request.query else request.path


def _check_first_event(data: bytes, instance_id: str) -> None:
    """Raise where an engine's first event is an error that another instance may not have.

    vLLM answers an overload in a stream with status 200 and `{"error": {…, "code": 503}}` (FACTS.md). Client
    errors (4xx) pass.
    """
    if not data.startswith(ERROR_EVENT):
        return
    try:
        error = orjson.loads(data_of(data.partition(b"\n\n")[0] + b"\n\n") or b"")["error"]
        code, message = error.get("code"), str(error.get("message"))[:400]
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        return  # whatever it is, the router reads it
    if isinstance(code, int) and 400 <= code < 500:
        return
    kind: FailureKind = "overloaded" if code == 503 else "engine"
    raise _FirstEventError(Failed(kind=kind, message=f"{instance_id}: {message}"))
