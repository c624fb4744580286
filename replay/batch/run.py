"""Sends the requests of a batch and writes what became of each; `replay.batch.pace` decides.

As many workers as may be under way share one source. Each takes a request, keeps it until its outcome is
written, and waits meanwhile where all wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from random import Random

from gateway.upstream import UpstreamError, UpstreamPool
from gateway.usage import output_tokens, prompt_tokens
from replay.batch import records
from replay.batch.lines import BatchRequest, Tier
from replay.batch.pace import MAX_TRIES, UNREACHABLE, Answer, Pace, delay_seconds, judge
from replay.batch.records import Outcome
from replay.client import Endpoint
from replay.retries import RETRY_COUNT

MAX_ANSWER_BYTES = 64 << 20
CONNECT_TIMEOUT_SECONDS = 5.0
GRACE_SECONDS = 5.0
"""For what is under way once a stop was asked for."""
_NOBODY_THERE = frozenset({"connect", "connect_timeout"})


class KeyRefusedError(Exception):
    """The rest would be refused as this request was; the text says what the router said."""


class UnreachableError(Exception):
    """Nobody has ever answered; the text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """How to send."""

    endpoint: Endpoint
    tier: Tier
    concurrency: int
    within_seconds: float
    timeout_seconds: float
    """For one answer, waiting for wind at the router included."""
    api_key: str | None = None

    @property
    def path_prefix(self) -> str:
        """What comes before the lines' own urls, which begin where the API's root does."""
        return self.endpoint.root.removesuffix("/v1")


@dataclass(slots=True)
class Tally:
    """How a run stands, or ended."""

    completed: int = 0
    failed: int = 0
    """Those that expired left out."""
    expired: int = 0
    retries: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    waited_seconds: dict[str, float] = field(default_factory=dict)
    """While nothing was sent, by what the router said."""
    waiting_for: str = ""
    """That now; empty: nothing is waited for."""

    @property
    def done(self) -> int:
        """Written by this run."""
        return self.completed + self.failed + self.expired


class BatchRun:
    """One run; `run` is called once."""

    def __init__(
        self,
        plan: BatchPlan,
        source: Iterator[BatchRequest | None],
        write: Callable[[Outcome], None],
        *,
        rng: Random,
        on_change: Callable[[Tally], None] | None = None,
    ) -> None:
        """`source` gives None where others should have a turn. `on_change` is called when something is."""
        self.tally = Tally()
        self._plan = plan
        self._source = source
        self._write = write
        self._rng = rng
        self._on_change = on_change
        self._pace = Pace(plan.concurrency, rng)
        self._pool = UpstreamPool(
            connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS, max_idle_per_origin=plan.concurrency
        )
        self._headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"user-agent", b"heron-batch"),
        ]
        if plan.api_key is not None:
            self._headers.append((b"authorization", b"Bearer " + plan.api_key.encode("ascii")))
        self._unfinished: dict[str, BatchRequest] = {}
        self._changed = asyncio.Event()
        self._is_stopping = False

    async def run(self, stop: asyncio.Event, urgent: asyncio.Event) -> Tally:
        """Send all of it, until the time is over, or `stop` is set: then nothing more is sent, and what is
        under way has GRACE_SECONDS, or until `urgent`. What is not done then is left for another run.

        Raises:
            KeyRefusedError, UnreachableError: nothing more is sent.
            OSError, BatchFileError: of the files; nothing more is sent.
        """
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        workers = [asyncio.create_task(self._work()) for _ in range(self._plan.concurrency)]
        watching = asyncio.create_task(self._watch(stop, urgent, workers))
        try:
            _, late = await asyncio.wait(
                workers, timeout=self._plan.within_seconds, return_when=asyncio.FIRST_EXCEPTION
            )
        finally:
            for task in (watching, *workers):
                task.cancel()
            await asyncio.gather(watching, *workers, return_exceptions=True)
            await self._pool.aclose()
            self._pace.close(loop.time())
            self.tally.seconds = loop.time() - started_at
            self._tell()
        for worker in workers:
            if not worker.cancelled() and (fault := worker.exception()) is not None:
                raise fault
        if late and not self._is_stopping:
            self._expire()
        return self.tally

    async def _watch(
        self, stop: asyncio.Event, urgent: asyncio.Event, workers: list[asyncio.Task[None]]
    ) -> None:
        await stop.wait()
        self._is_stopping = True
        self._wake()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await urgent.wait()
        except TimeoutError:
            pass
        for worker in workers:
            worker.cancel()

    async def _work(self) -> None:
        for request in self._source:
            if self._is_stopping:
                return
            if request is None:
                await asyncio.sleep(0)
                continue
            self._unfinished[request.custom_id] = request
            outcome = await self._outcome(request)
            if outcome is None:
                return
            self._finish(request, outcome)

    def _finish(self, request: BatchRequest, outcome: Outcome) -> None:
        self._write(outcome)
        del self._unfinished[request.custom_id]
        if outcome.is_good:
            self.tally.completed += 1
        else:
            self.tally.failed += 1
        self._tell()

    def _expire(self) -> None:
        """All that is left, in the order in which it was taken."""
        for request in chain(self._unfinished.values(), self._source):
            if request is not None:
                self._write(records.expired(request.custom_id, self._rng))
                self.tally.expired += 1
                self._tell()

    async def _outcome(self, request: BatchRequest) -> Outcome | None:
        """Send until that is settled; None: a stop came first."""
        body = request.payload(self._plan.tier)
        failures = tries = 0
        while await self._turn():
            sent_at = self._now()
            answer, fault = await self._try(request, body, tries)
            tries += 1
            if answer is None:
                assert fault is not None
                if fault.kind in _NOBODY_THERE:
                    self._nobody_there(fault, sent_at)
                    continue
                self._pace.reached()
                failures += 1
                if fault.kind == "too_large" or failures >= MAX_TRIES:
                    return self._broken(request, fault)
            else:
                self._pace.reached()
                verdict = judge(answer, failures=failures, names_tier=request.names_tier)
                if verdict == "final":
                    return self._answered(request, answer)
                if verdict == "stop":
                    raise KeyRefusedError(_refusal(answer))
                if verdict == "pause":
                    self._pace.refused(
                        self._now(),
                        sent_at=sent_at,
                        reason=answer.code,
                        retry_after_seconds=answer.retry_after_seconds,
                    )
                    self._tell()
                    continue
                failures += 1
            await asyncio.sleep(delay_seconds(failures - 1, self._rng))
        return None

    async def _turn(self) -> bool:
        """Wait until one more may be sent; False: none will be."""
        while not self._is_stopping:
            paused = self._pace.paused_seconds(self._now())
            if not paused and self._pace.has_room(self.tally.in_flight):
                return True
            try:
                async with asyncio.timeout(paused or None):
                    await self._changed.wait()
            except TimeoutError:
                self._tell()
        return False

    async def _try(
        self, request: BatchRequest, body: bytes, tries: int
    ) -> tuple[Answer | None, UpstreamError | None]:
        """Send once. What came back, or what was wrong with the connection."""
        self.tally.in_flight += 1
        self.tally.retries += tries > 0
        self._tell()
        response = None
        seconds = self._plan.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                response = await self._pool.send(
                    self._plan.endpoint.origin,
                    "POST",
                    self._plan.path_prefix + request.url,
                    (*self._headers, (RETRY_COUNT, b"%d" % tries)) if tries else self._headers,
                    body,
                    first_byte_timeout_seconds=seconds,
                )
                content = await response.read(MAX_ANSWER_BYTES)
        except UpstreamError as error:
            return None, error
        except TimeoutError:
            return None, UpstreamError("first_byte_timeout", f"no whole answer within {seconds:g} s")
        else:
            fields = response.fields
            return Answer(
                status=response.status,
                body=content,
                request_id=fields.get(b"x-request-id", b"").decode("latin-1"),
                retry_after=fields.get(b"retry-after"),
                should_retry=fields.get(b"x-should-retry"),
            ), None
        finally:
            if response is not None:
                response.close()
            self.tally.in_flight -= 1
            self._wake()

    def _nobody_there(self, fault: UpstreamError, sent_at: float) -> None:
        self._pace.refused(self._now(), sent_at=sent_at, reason=UNREACHABLE, retry_after_seconds=None)
        self._tell()
        if self._pace.is_hopeless:
            raise UnreachableError(f"{fault}: is --base-url right, and does the router run?")

    def _answered(self, request: BatchRequest, answer: Answer) -> Outcome:
        outcome = records.answered(
            request.custom_id, answer.status, answer.request_id, answer.body, self._rng
        )
        if outcome.is_good:
            self._pace.succeeded()
            self.tally.prompt_tokens += prompt_tokens(answer.body) or 0
            self.tally.output_tokens += output_tokens(answer.body) or 0
        return outcome

    def _broken(self, request: BatchRequest, fault: UpstreamError) -> Outcome:
        codes = {"too_large": records.TOO_LARGE, "first_byte_timeout": records.TIMED_OUT}
        code = codes.get(fault.kind, records.CONNECTION_ERROR)
        return records.failed(request.custom_id, code, str(fault), self._rng)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _wake(self) -> None:
        """Whoever waits for a turn looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self) -> None:
        now = self._now()
        self.tally.waited_seconds = self._pace.waited_seconds
        self.tally.waiting_for = self._pace.pause_reason if self._pace.paused_seconds(now) else ""
        if self._on_change is not None:
            self._on_change(self.tally)


def _refusal(answer: Answer) -> str:
    """What a key was told, for whoever has to give another one."""
    said = records.stated_message(answer.body)
    return f"the router refuses the key ({answer.status} {answer.code}): {said}"
