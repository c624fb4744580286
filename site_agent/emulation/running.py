"""One engine of the fake host: its life, its port, its timer, and its GPUs' load.

The asyncio shell around `engine.EmulatedEngine`: it wakes up when a step ends and hands out the tokens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

from gateway.server import HttpServer
from site_agent.emulation.config import EngineSettings, HostSettings
from site_agent.emulation.engine import EmulatedEngine, FinishReason, Sequence
from site_agent.emulation.gpu import FakeGpus
from site_agent.emulation.http import MAX_BODY_BYTES, EngineApi
from site_agent.emulation.metrics import MetricsPage
from site_agent.emulation.request import ModelLimits, RequestError

logger = logging.getLogger(__name__)

EngineState = Literal["stopped", "starting", "ready", "crashed"]
Fault = Literal["stall", "unstall", "crash", "abort", "error"]

TICK_SECONDS = 0.001
"""The event loop's timers are as coarse as this: a step that ends within it has ended."""
ABORT_GRACE_SECONDS = 1.0
"""For the last events after a scripted SIGTERM to leave."""


class EngineBusyError(Exception):
    """A start of an engine that runs, or a fault of one that does not."""


class RunningEngine:
    """One engine: stopped until told to start."""

    def __init__(self, settings: EngineSettings, host: HostSettings, gpus: FakeGpus) -> None:
        self.settings = settings
        self.gpus = gpus
        self.state: EngineState = "stopped"
        self.exit_reason: str | None = None
        """Why it is "crashed"."""
        self.port: int | None = None
        self._host = host
        self._limits = ModelLimits(model=host.model, max_model_len=host.profile_of(settings).max_model_len)
        self._engine = self._new_engine()
        self._page = MetricsPage(self._engine, host.model)
        self._server: HttpServer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ready_timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.state == "ready"

    @property
    def has_gpus(self) -> bool:
        """Whether it holds its GPUs: no other engine can start on them."""
        return self.state in ("starting", "ready")

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._engine.running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._engine.waiting)

    async def start(self, port: int | None = None) -> int:
        """Listen (answering 503 until `start_seconds` are over); the port.

        Raises:
            EngineBusyError: it is not stopped.
            OSError: the port cannot be had.
        """
        async with self._lock:
            if self.state in ("starting", "ready"):
                raise EngineBusyError(f"engine {self.settings.instance_id} is {self.state} already")
            self._engine = self._new_engine()
            self._page = MetricsPage(self._engine, self._host.model)
            api = EngineApi(self, self._limits, started_at_unix_seconds=int(time.time()))
            server = HttpServer(
                hot=api.route,
                host=self._host.host,
                port=self.settings.port if port is None else port,
                max_body_bytes=MAX_BODY_BYTES,
            )
            await server.start()
            self._server = server
            self.port = server.port
            self.state = "starting"
            self.exit_reason = None
            self._show_load()
            loop = asyncio.get_running_loop()
            self._ready_timer = loop.call_later(self._host.start_seconds, self._become_ready)
            return server.port

    async def stop(self) -> None:
        """Cut every connection without a final chunk, refuse the port. Idempotent."""
        async with self._lock:
            await self._go("stopped", None)

    async def fault(self, kind: Fault) -> None:
        """A scripted fault, for tests and scenarios.

        `stall`/`unstall`: no progress, connections stay. `crash`: as by SIGKILL. `abort`: as by SIGTERM, the
        streams end with `finish_reason: "abort"` and `[DONE]`. `error`: all requests fail in-band, the
        engine goes on.

        Raises:
            EngineBusyError: the engine is not ready.
        """
        async with self._lock:
            if self.state != "ready":
                raise EngineBusyError(f"engine {self.settings.instance_id} is {self.state}, not ready")
            logger.warning("scripted fault", extra={"instance_id": self.settings.instance_id, "fault": kind})
            if kind == "stall":
                self._engine.stall()
            elif kind == "unstall":
                self._engine.unstall(time.monotonic())
                self._arm()
            elif kind == "crash":
                await self._go("crashed", "killed (scripted fault)")
            elif kind == "abort":
                await self._end_all("abort")
            else:
                self._fail_all()
            self._show_load()

    def follow_clock(self) -> None:
        """Take the GPUs' clock; counts from the next step on."""
        self._engine.clock_mhz = self.gpus.clock_mhz(time.monotonic())

    # the API's side
    def submit(self, sequence: Sequence) -> None:
        """See `http.EngineBackend`."""
        self._engine.submit(sequence, time.monotonic())
        if self._timer is None:
            self._arm()
            self._show_load()

    def abandon(self, sequence: Sequence) -> None:
        """See `http.EngineBackend`."""
        if sequence.finish_reason is None:
            self._engine.finish(sequence, "abort", time.monotonic())
            self._show_load()

    def metrics_page(self) -> bytes:
        """See `http.EngineBackend`."""
        return self._page.render()

    # the step loop
    def _arm(self) -> None:
        ends_at = self._engine.step_ends_at
        if ends_at is not None and self._timer is None:
            delay = max(0.0, ends_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        engine = self._engine
        now = time.monotonic()
        while engine.step_ends_at is not None and engine.step_ends_at <= now + TICK_SECONDS:
            for sequence in engine.complete_step():
                sequence.owner.take_token(sequence, engine)
            engine.begin_step(now)
        self._show_load()
        self._arm()

    def _show_load(self) -> None:
        now, running = time.monotonic(), self.running
        if self.state in ("stopped", "crashed"):
            self.gpus.set_load("stopped", 0, now)
        else:
            ratio = self._engine.prefill_ratio
            self.gpus.set_load("running" if running else "idle", running, now, prefill_ratio=ratio)

    # its life
    def _new_engine(self) -> EmulatedEngine:
        host = self._host
        engine = EmulatedEngine(
            host.profile_of(self.settings),
            max_concurrency=self.settings.max_concurrency or host.max_concurrency,
            kv_tokens=host.kv_tokens,
            prefill_chunk_tokens=host.prefill_chunk_tokens,
            max_waiting=host.max_waiting,
        )
        engine.clock_mhz = self.gpus.clock_mhz(time.monotonic())
        return engine

    def _become_ready(self) -> None:
        self._ready_timer = None
        self.state = "ready"
        self._show_load()

    async def _go(self, state: Literal["stopped", "crashed"], reason: str | None) -> None:
        """Be gone: first what must happen at once, then the waiting."""
        if self.state == "stopped":
            return
        self.state = state
        self.exit_reason = reason
        for timer in (self._timer, self._ready_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._ready_timer = None
        self._engine.stall()
        for sequence in (*self._engine.running, *self._engine.waiting):
            self._engine.finish(sequence, "abort", time.monotonic())
        self._show_load()
        server, self._server = self._server, None
        self.port = None
        if server is not None:
            server.abort_connections()
            await server.stop(0.0)

    async def _end_all(self, reason: FinishReason) -> None:
        server = self._server
        assert server is not None
        self.state = "crashed"
        server.stop_accepting()
        for sequence in (*self._engine.running, *self._engine.waiting):
            self._engine.finish(sequence, reason, time.monotonic())
            sequence.owner.end(reason)
        await server.stop(ABORT_GRACE_SECONDS)
        await self._go("crashed", "terminated (scripted fault)")

    def _fail_all(self) -> None:
        for sequence in (*self._engine.running, *self._engine.waiting):
            self._engine.finish(sequence, "error", time.monotonic())
            sequence.owner.fail(RequestError("Internal server error", status=500, type="InternalServerError"))
