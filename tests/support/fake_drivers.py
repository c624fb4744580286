"""Drivers without processes: each engine is a small HTTP server in the test's own loop.

A request's `x-behaviour` header says how the engine treats it: `stream` (two events, then the end), `hold`
(one event, then nothing until `release` is set), `cut` (one event, then a cut), `keep_alive` (comments only),
`json`, `large` (2 MiB), `silent` (nothing until `release`), `cut_before` (a cut instead of an answer), `full`
(503), `full_in_stream`, `dead_in_stream` (200, then an error event), `refuse` (400), `fault` (500), `flood`
(64 MiB of events, as fast as they are taken), `responses` (as the Responses API, with a store).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import orjson

from gateway.client_request import ClientRequest, HotHandler
from gateway.server import HttpServer
from site_agent.drivers.interface import DriverError, EngineCapabilities, GpuReading, InstanceSpec

JSON = ((b"content-type", b"application/json"),)
STREAM = ((b"content-type", b"text/event-stream"),)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize", "/sleep")


FLOOD_EVENT = b"data: " + b"x" * 65_536 + b"\n\n"
FLOOD_EVENTS = 1024


class StubEngine:
    """One engine."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.running = 0
        self.seen: list[ClientRequest] = []
        self.cancelled = 0
        self.held: list[str] = []
        """Ids of the responses that it holds."""
        self.release = asyncio.Event()
        self.flooded = 0
        """Events of a flood that were taken."""
        self.server = HttpServer(hot=self._route)

    def _route(self, _method: str, path: str) -> HotHandler:
        return self._metrics if path == "/metrics" else self._serve

    async def _metrics(self, request: ClientRequest) -> None:
        page = f'vllm:num_requests_running{{engine="0"}} {self.running}\n'
        request.respond(200, ((b"content-type", b"text/plain"),), page.encode())

    async def _serve(self, request: ClientRequest) -> None:
        self.seen.append(request)
        self.running += 1
        try:
            await self._behave(request, (request.fields.get(b"x-behaviour") or b"json").decode())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _behave(self, request: ClientRequest, behaviour: str) -> None:
        answer = orjson.dumps({"instance": self.instance_id, "path": request.path})
        match behaviour:
            case "json":
                request.respond(200, JSON, answer)
            case "responses":
                self._respond(request)
            case "large":
                request.respond(200, JSON, b"x" * (2 << 20))
            case "full" | "fault" | "refuse":
                request.respond({"full": 503, "fault": 500, "refuse": 400}[behaviour], JSON, answer)
            case "flood":
                await self._flood(request)
            case "cut_before":
                request.abort()
            case "silent":
                await self.release.wait()
                request.respond(200, JSON, answer)
            case _:
                await self._stream(request, behaviour)

    def _respond(self, request: ClientRequest) -> None:
        """Create, continue, read or cancel a response; 404 for one that is not held here."""
        named = request.path.split("/")[3:4]
        fields = orjson.loads(request.body or b"{}")
        named += [fields["previous_response_id"]] if "previous_response_id" in fields else []
        if any(name not in self.held for name in named):
            request.respond(404, JSON, orjson.dumps({"error": {"message": "not found", "code": 404}}))
            return
        response_id = f"resp_{self.instance_id}x{len(self.held)}"
        if request.path == "/v1/responses":
            self.held.append(response_id)
        body = orjson.dumps({"id": response_id, "instance": self.instance_id})
        if fields.get("stream"):
            request.start(200, STREAM)
            request.write(b'event: response.created\ndata: {"response":' + body + b"}\n\n")
            request.finish()
        else:
            request.respond(200, JSON, body)

    async def _flood(self, request: ClientRequest) -> None:
        request.start(200, STREAM)
        may_write = asyncio.Event()
        may_write.set()
        request.on_pause, request.on_resume = may_write.clear, may_write.set
        for _ in range(FLOOD_EVENTS):
            await may_write.wait()
            request.write(FLOOD_EVENT)
            self.flooded += 1
            await asyncio.sleep(0)
        request.finish()

    async def _stream(self, request: ClientRequest, behaviour: str) -> None:
        request.start(200, STREAM)
        if behaviour in ("full_in_stream", "dead_in_stream"):
            code = 503 if behaviour == "full_in_stream" else 500
            request.write(b"data: " + orjson.dumps({"error": {"message": "no", "code": code}}) + b"\n\n")
        else:
            request.write(b": keep-alive\n\n" if behaviour == "keep_alive" else b'data: {"word": 1}\n\n')
        if behaviour in ("hold", "keep_alive"):
            await self.release.wait()
        if behaviour == "cut":
            request.abort()
            return
        request.write(b'data: {"word": 2}\n\ndata: [DONE]\n\n')
        request.finish()


class FakeEngines:
    """EngineDriver. Faults are set by the test, per instance."""

    def __init__(self) -> None:
        self.engines: dict[str, StubEngine] = {}
        self.starts: Counter[str] = Counter()
        self.stops: list[tuple[str, bool]] = []
        self.unhealthy: set[str] = set()
        self.not_ready: set[str] = set()
        self.silent: set[str] = set()
        """They take a probe and answer nothing."""
        self.probes: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        """Of probes, begun and ended."""
        self.exits: dict[str, str] = {}
        self.start_faults: dict[str, DriverError] = {}
        self.stop_faults: list[DriverError] = []
        self.grace_seconds = 0.0
        """A stop without `kill` takes so long, or until one with."""
        self.killed: dict[str, asyncio.Event] = {}
        self.is_closed = False

    async def open(self) -> None:
        """Nothing is shared."""

    async def start(self, spec: InstanceSpec) -> str:
        self.starts[spec.instance_id] += 1
        if (fault := self.start_faults.get(spec.instance_id)) is not None:
            raise fault
        self.exits.pop(spec.instance_id, None)
        engine = StubEngine(spec.instance_id)
        await engine.server.start()
        self.engines[spec.instance_id] = engine
        return f"http://127.0.0.1:{engine.server.port}"

    async def stop(self, instance_id: str, *, kill: bool = False) -> None:
        if self.stop_faults:
            raise self.stop_faults.pop()
        self.stops.append((instance_id, kill))
        killed = self.killed.setdefault(instance_id, asyncio.Event())
        if kill:
            killed.set()
        elif self.grace_seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.grace_seconds):
                    await killed.wait()
        self.killed.pop(instance_id, None)
        engine = self.engines.pop(instance_id, None)
        if engine is not None:
            await engine.server.stop(0)

    async def is_ready(self, instance_id: str) -> bool:
        self.probes[instance_id] += 1
        while instance_id in self.silent:  # noqa: ASYNC110 -- a set that tests change
            await asyncio.sleep(0.01)
        self.answers[instance_id] += 1
        return instance_id in self.engines and instance_id not in self.unhealthy | self.not_ready

    def exit_reason(self, instance_id: str) -> str | None:
        return self.exits.get(instance_id)

    def capabilities(self) -> EngineCapabilities:
        return EngineCapabilities(paths=PATHS, token_ids=True, max_model_len=2048)

    async def crash(self, instance_id: str, reason: str = "killed") -> None:
        """It ends by itself."""
        self.exits[instance_id] = reason
        await self.engines.pop(instance_id).server.stop(0)

    async def aclose(self, *, kill: bool = False) -> None:
        for instance_id in list(self.engines):
            await self.stop(instance_id, kill=True)
        self.is_closed = True


class FakeGpus:
    """GpuDriver: the test sets the watts."""

    is_fake = True
    is_none = False
    can_set_clock = True
    spare_gpus = 0
    problems: tuple[str, ...] = ()

    def __init__(self, watts: float | None = 840.0) -> None:
        self.watts = watts
        self.clocks: dict[str, int | None] = {}
        self.faults: list[DriverError] = []
        self.set_fault: DriverError | None = None
        """Of every order of a clock."""
        self.is_closed = False

    async def power_watts(self) -> float | None:
        return self.watts

    async def readings(self) -> tuple[GpuReading, ...]:
        return ()

    async def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        if self.faults:
            raise self.faults.pop()
        if self.set_fault is not None:
            raise self.set_fault
        self.clocks[instance_id] = clock_mhz

    async def aclose(self) -> None:
        self.is_closed = True


def specs(count: int) -> list[InstanceSpec]:
    """Instances `i0`, `i1`, …"""
    return [
        InstanceSpec(instance_id=f"i{index}", index=index, port=0, model="m", gpu_indices=(index,))
        for index in range(count)
    ]
