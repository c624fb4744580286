"""Sends one request and follows its answer to the end; every way to end has one outcome.

The stream is read in the socket's own callback (gateway.upstream), a few microseconds per token, so that one
core can drive thousands of tokens a second and the measured times are the server's. Times are taken with
`perf_counter`: uvloop's own clock has whole milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import orjson

from gateway.sse import EventTooLargeError
from gateway.upstream import Origin, UpstreamError, UpstreamPool, UpstreamResponse
from replay.answer import AnswerReader, StatedError, stated_error
from replay.outcome import Outcome, RequestResult, outcome_of_status, outcome_of_stream
from replay.prompts import PromptSource, corruption
from replay.retries import RETRY_COUNT, retry_delay_seconds
from replay.schedule import ScheduledRequest

MAX_ERROR_BYTES = 256 << 10
MAX_ANSWER_BYTES = 16 << 20
"""A whole answer that is not streamed."""

MAX_SITE_ID = 64

LeaveReason = Literal["client_cancelled", "grace", "stall"]
_ENDINGS: dict[LeaveReason, str] = {
    "client_cancelled": "left as scheduled",
    "grace": "no end within the grace period",
    "stall": "no byte within the stall time-out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the API is: an origin and the path of its root."""

    origin: Origin
    root: str
    """`/v1` for most; targets are appended."""

    @classmethod
    def parse(cls, base_url: str) -> Endpoint:
        """A base URL as OpenAI clients take it, `http://127.0.0.1:8000/v1`; without a path `/v1` is meant.

        Raises:
            ValueError: saying what is wrong with the URL.
        """
        parts = urlsplit(base_url)
        origin = Origin.parse(urlunsplit(parts._replace(path="")))
        path = parts.path.rstrip("/") or "/v1"
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError(f"{base_url!r}: the path must be plain ASCII")
        return cls(origin=origin, root=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How long a client waits. The defaults are longer than the router's own, which so ends things first."""

    connect_timeout_seconds: float = 5.0
    first_byte_timeout_seconds: float = 120.0
    stall_timeout_seconds: float = 120.0
    """Without a single byte, comments included."""
    request_timeout_seconds: float = 630.0
    """From sending to the end, retries too."""
    max_retries: int = 0
    """Of a request that was refused, as `replay.retries` says; the official client's default is 2."""


class ReplayClient:
    """What all requests of a run share."""

    def __init__(
        self,
        pool: UpstreamPool,
        endpoint: Endpoint,
        prompts: PromptSource,
        *,
        limits: ClientLimits,
        api_key: str | None = None,
        stream: bool = True,
        is_verifying: bool = False,
        on_gap: Callable[[float], None] | None = None,
    ) -> None:
        """`is_verifying`: the server is an emulated engine, check every word. `on_gap`: see AnswerReader."""
        self.pool = pool
        self.origin = endpoint.origin
        self.target = endpoint.root + prompts.target
        self.prompts = prompts
        self.limits = limits
        self.stream = stream
        self.is_verifying = is_verifying
        self.on_gap = on_gap
        self.rng = Random()
        """Of the clients' jitter; not part of the schedule, so no seed."""
        self.headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream" if stream else b"application/json"),
            (b"user-agent", b"heron-replay"),
        ]
        if api_key is not None:
            self.headers.append((b"authorization", b"Bearer " + api_key.encode("latin-1")))


class Exchange:
    """One request in flight. `run` it once; `leave` ends it early from outside."""

    __slots__ = (
        "_answer",
        "_client",
        "_left",
        "_limit",
        "_loop",
        "_refusal",
        "_request",
        "_retries",
        "_sent_at",
        "_site",
        "_stall",
        "_status",
        "_touched_at",
    )

    def __init__(self, client: ReplayClient, request: ScheduledRequest) -> None:
        self._client = client
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._answer = AnswerReader(on_gap=client.on_gap, is_collecting=client.is_verifying)
        self._left: LeaveReason | None = None
        self._limit: asyncio.Timeout | None = None
        self._sent_at = self._touched_at = 0.0
        self._stall: asyncio.TimerHandle | None = None
        self._status: int | None = None
        self._refusal: tuple[bytes | None, bytes | None] = (None, None)
        """`retry-after` and `x-should-retry` of an answer that is an error."""
        self._retries = 0
        self._site: str | None = None

    def leave(self, reason: LeaveReason) -> None:
        """Close the connection now, as a client does that goes away."""
        if self._left is None:
            self._left = reason
            if self._limit is not None:
                self._limit.reschedule(self._loop.time())

    async def run(self) -> RequestResult:
        """Send, read, and tell how it ended. Raises nothing but CancelledError."""
        body = self._client.prompts.body(self._request, stream=self._client.stream)
        self._sent_at = self._touched_at = perf_counter()
        verdict: tuple[Outcome, str] | None = None
        ending: str | None = None
        try:
            async with asyncio.timeout(self._client.limits.request_timeout_seconds) as limit:
                self._limit = limit
                if self._left is not None:  # before this task had its first turn
                    limit.reschedule(self._loop.time())
                try:
                    verdict = await self._try(body)
                finally:
                    self._limit = None
        except TimeoutError:
            ending = _ENDINGS[self._left] if self._left is not None else "request time-out"
        except UpstreamError as error:
            ending = f"connection: {error.kind}"
            if error.kind in ("connect", "connect_timeout"):  # never accepted, so it cannot be lost
                verdict = ("failed", ending)
        except EventTooLargeError:
            ending = "an event beyond the size limit"
        if verdict is None and self._status not in (None, 200):  # left while reading what the error says
            verdict = outcome_of_status(self._status, StatedError(code="", message="", is_first=True))
        if verdict is None:
            verdict = outcome_of_stream(self._answer, ending)
            if verdict[0] == "lost" and self._left == "client_cancelled":
                verdict = ("client_cancelled", ending or "")
        return self._result(*verdict)

    async def _try(self, body: bytes) -> tuple[Outcome, str] | None:
        """Send until it is no longer refused, or no longer worth it."""
        while True:
            self._status, self._refusal = None, (None, None)
            fault: UpstreamError | None = None
            verdict: tuple[Outcome, str] | None = None
            try:
                verdict = await self._exchange(body)
            except UpstreamError as error:
                fault = error
            delay = None
            if self._status != 200 and self._left is None:
                retry_after, should_retry = self._refusal
                delay = retry_delay_seconds(
                    self._status,
                    retry_after=retry_after,
                    should_retry=should_retry,
                    taken=self._retries,
                    max_retries=self._client.limits.max_retries,
                    rng=self._client.rng,
                )
            if delay is None:
                if fault is not None:
                    raise fault
                return verdict
            self._retries += 1
            await asyncio.sleep(delay)

    async def _exchange(self, body: bytes) -> tuple[Outcome, str] | None:
        """Send and read to the end of the body; None when the answer itself tells the outcome."""
        client, loop = self._client, self._loop
        cancel = None
        if self._request.cancel_after_seconds is not None:
            cancel = loop.call_later(self._request.cancel_after_seconds, self.leave, "client_cancelled")
        response: UpstreamResponse | None = None
        try:
            response = await client.pool.send(
                client.origin,
                "POST",
                client.target,
                (*client.headers, (RETRY_COUNT, b"%d" % self._retries)) if self._retries else client.headers,
                body,
                first_byte_timeout_seconds=client.limits.first_byte_timeout_seconds,
            )
            return await self._read(response)
        finally:
            if self._stall is not None:
                self._stall.cancel()
            if cancel is not None:
                cancel.cancel()
            if response is not None:
                response.close()

    async def _read(self, response: UpstreamResponse) -> tuple[Outcome, str] | None:
        self._status = response.status
        self._touched_at = perf_counter()
        self._stall = self._loop.call_later(self._client.limits.stall_timeout_seconds, self._check_stall)
        site = response.fields.get(b"x-heron-site")
        self._site = None if site is None else site.decode("latin-1")[:MAX_SITE_ID]
        if response.status != 200:
            self._refusal = (response.fields.get(b"retry-after"), response.fields.get(b"x-should-retry"))
            return outcome_of_status(response.status, await _read_error(response))
        if self._client.stream:
            await response.relay(self._on_data)
        else:
            whole = await response.read(MAX_ANSWER_BYTES)
            self._answer.take_whole(whole, perf_counter())
        return None

    def _on_data(self, data: bytes) -> None:
        self._touched_at = now = perf_counter()
        self._answer.feed(data, now)

    def _check_stall(self) -> None:
        """One timer a request, set anew when it fires early: nothing per token."""
        left = self._touched_at + self._client.limits.stall_timeout_seconds - perf_counter()
        if left <= 0:
            self.leave("stall")
        else:
            self._stall = self._loop.call_later(left, self._check_stall)

    def _result(self, outcome: Outcome, reason: str) -> RequestResult:
        answer, request = self._answer, self._request
        prompt_tokens, output_tokens = answer.usage or (None, None)
        first = answer.first_token_at
        return RequestResult(
            outcome=outcome,
            reason=reason,
            wanted_prompt_tokens=request.prompt_tokens,
            wanted_output_tokens=request.output_tokens,
            e2e_seconds=perf_counter() - self._sent_at,
            ttft_seconds=None if first is None else first - self._sent_at,
            status=self._status,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            token_events=answer.token_events,
            site_id=self._site,
            retries=self._retries,
            corruption=self._corruption(is_complete=outcome == "completed"),
        )

    def _corruption(self, *, is_complete: bool) -> str | None:
        answer, request, prompts = self._answer, self._request, self._client.prompts
        if answer.fault is not None:
            return answer.fault
        if self._client.is_verifying and (is_complete or answer.token_events):
            fault = corruption(prompts.expected_text(request), answer.text, is_complete=is_complete)
            if fault is not None:
                return fault
        wanted = (request.prompt_tokens, request.output_tokens)
        if is_complete and prompts.is_exact and answer.usage not in (None, wanted):
            return f"usage {answer.usage} instead of {wanted} (prompt, output tokens)"
        return None


async def _read_error(response: UpstreamResponse) -> StatedError:
    """The error of an answer whose status says that it is one; cut short or not JSON, the status remains."""
    try:
        value = orjson.loads(await response.read(MAX_ERROR_BYTES))
    except (UpstreamError, orjson.JSONDecodeError):
        value = None
    return stated_error(value, is_first=True)
