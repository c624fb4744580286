"""One request being answered: the engine's steps give it tokens, it writes them to the client.

Rule: per token one hash step and one write. A job ends exactly once, by its last token, a fault, or the
client's leaving, and `done` says so.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from gateway.errors import JSON_HEADERS
from gateway.server import ClientRequest
from site_agent.emulation.answer import DONE, Answer, error_event
from site_agent.emulation.engine import EmulatedEngine, FinishReason, Sequence
from site_agent.emulation.request import RequestError

SSE_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class Job(Protocol):
    """What an engine's step loop sees of a request."""

    done: asyncio.Future[None]

    def begin(self) -> None:
        """The engine has taken the request."""

    def take_token(self, sequence: Sequence, engine: EmulatedEngine) -> None:
        """One token more; `sequence.finish_reason` is set when it is the last."""

    def end(self, reason: FinishReason) -> None:
        """The engine gives the request up and says so, as vLLM does at SIGTERM (`abort`)."""

    def fail(self, error: RequestError) -> None:
        """The engine refuses the request or fails it, and says so."""


class StreamJob:
    """An answer in server-sent events."""

    __slots__ = ("_answer", "_request", "done")

    def __init__(self, request: ClientRequest, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """vLLM's headers go out before the first token is there."""
        self._request.start(200, SSE_HEADERS)

    def take_token(self, sequence: Sequence, engine: EmulatedEngine) -> None:
        reason = sequence.finish_reason
        event = self._answer.token_event(reason)
        if reason is None:
            if not self._answer.tokens.is_stopped:
                self._request.write(event)
                return
            engine.finish(sequence, "stop", time.monotonic())
        self._close(event + self._answer.closing_events())

    def end(self, reason: FinishReason) -> None:
        self._close(self._answer.end_event(reason) + self._answer.closing_events())

    def fail(self, error: RequestError) -> None:
        if not self._request.started:
            self._request.start(200, SSE_HEADERS)  # vLLM refuses a stream inside a 200
        self._close(error_event(error.error()) + DONE)

    def _close(self, data: bytes) -> None:
        self._request.write(data)
        self._request.finish()
        if not self.done.done():
            self.done.set_result(None)


class WholeJob:
    """An answer in one body."""

    __slots__ = ("_answer", "_looks", "_request", "done")

    def __init__(self, request: ClientRequest, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self._looks = answer.looks_for_stops
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Nothing goes out before the answer is whole."""

    def take_token(self, sequence: Sequence, engine: EmulatedEngine) -> None:
        reason = sequence.finish_reason
        if self._looks:
            self._answer.tokens.take_text(is_last=reason is not None)
            if self._answer.tokens.is_stopped:
                engine.finish(sequence, "stop", time.monotonic())
                reason = "stop"
        if reason is not None:
            self._respond(200, self._answer.body(reason, sequence.output_tokens))

    def end(self, reason: FinishReason) -> None:
        """A stopping vLLM answers 200 with what it has (FACTS.md)."""
        self._respond(200, self._answer.body(reason, len(self._answer.tokens.ids)))

    def fail(self, error: RequestError) -> None:
        self._respond(error.status, error.body())

    def _respond(self, status: int, body: bytes) -> None:
        if not self._request.disconnected:
            self._request.respond(status, JSON_HEADERS, body)
        if not self.done.done():
            self.done.set_result(None)
