"""A site in plain asyncio: real sockets, the toy engine behind them, and a script of misbehaviours.

Each request to an inference path takes the next `Behaviour` of `script`, or `default` when it is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gateway.api_paths import DERENDER_PATH, RENDER_PATH
from support import toy_engine
from support.wait import until

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-heron-headroom: 40\r\nx-heron-instance: i-0\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"
INFERENCE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What one request meets. Everything left out is as it should be."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    close_at_once: bool = False
    """Before a byte of the answer; where there is a gate, once that is open."""
    hang: bool = False
    """No answer at all until the connection ends."""
    first_event: bytes | None = None
    """Comes instead of the stream, then `[DONE]` and the end."""
    events: int | None = None
    """So many events of the stream come, then `then`."""
    tokens_an_event: int = 1
    """More where an engine's server runs behind."""
    then: str = "cut"
    """cut | cut_in_event | error | abort | hang | comments | end"""
    cut_body_at: int | None = None
    """An answer in one piece, closed after so many bytes of its body."""
    gate: asyncio.Event | None = None
    """The stream's events after its first text wait for it, and an answer in one piece altogether."""
    delay_seconds: float = 0.0
    """How long an answer in one piece takes."""


OK = Behaviour()
POWER = Behaviour(status=503, headers={"x-heron-pushback": "power", "x-heron-retry-after-seconds": "1"})
BUSY = Behaviour(status=503)


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def fields(self) -> Any:
        return orjson.loads(self.raw)


class StubSite:
    """Start it, announce it in a store, script it, look at what it saw."""

    def __init__(
        self,
        site_id: str,
        *,
        model: str = "m",
        token_ids: bool = True,
        parses_ids: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.site_id = site_id
        self.model = model
        self.token_ids = token_ids
        self.script: deque[Behaviour] = deque()
        self.default = OK
        self.detokenize_status = 200
        self.detokenize_statuses: deque[int] = deque()
        """Of the first questions, before that."""
        self.detokenize_gates: deque[asyncio.Event] = deque()
        """The answers to the first questions wait for them."""
        self.parses_ids = parses_ids
        self.derender_statuses: deque[int] = deque()
        """Of the first questions to its parsers; then they answer."""
        self.renders = parses_ids
        """It tells of grammars."""
        self.render_statuses: deque[int] = deque()
        """Of the first questions for its grammar; then it is told."""
        self.derender_gate: asyncio.Event | None = None
        """Its parsers' answers wait for it."""
        self.seen: list[Seen] = []
        self.reports_asked = 0
        self.running = 0
        self.disconnects = 0
        self.port = 0
        self.state = "serving"
        self.headroom: int | None = 40
        self.limit: int | None = None
        """It runs so many at once, says how many are left, and pushes further ones back."""
        self.most_running = 0
        self.pushed_back = 0
        self.model_fields: dict[str, Any] = {}
        """More of the model's report."""
        self.info_fields: dict[str, Any] = {}
        """More of the SiteInfo."""
        self.agent_id = f"agent-{site_id}"
        self.sequence = time.time_ns() // 1_000_000
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def inference(self) -> list[Seen]:
        """Requests that were not questions about it."""
        return [one for one in self.seen if one.path in INFERENCE]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a killed process: the port refuses, connections are cut."""
        self.stop_listening()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop_listening(self) -> None:
        """The port refuses, connections go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Cut every open connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def report(self, **changes: Any) -> bytes:
        """The next SiteReport."""
        self.sequence += 1
        model: dict[str, Any] = {"model": self.model, "ready_instances": 1, "max_concurrency": 40}
        if self.limit is not None:
            model |= {"max_concurrency": self.limit, "running_requests": self.running}
            model["headroom_requests"] = self.limit - self.running if self.state == "serving" else 0
        elif self.headroom is not None:
            model["headroom_requests"] = self.headroom
        model |= self.model_fields
        return orjson.dumps(
            {
                "schema_version": "1.0",
                "agent_id": self.agent_id,
                "sequence": self.sequence,
                "site_id": self.site_id,
                "observed_at_unix_seconds": time.time(),
                "ingress_url": self.url,
                "state": self.state,
                "models": [model],
                **changes,
            }
        )

    def info(self) -> bytes:
        """The SiteInfo."""
        self.sequence += 1
        return orjson.dumps(
            {
                "schema_version": "1.0",
                "agent_id": self.agent_id,
                "sequence": self.sequence,
                "site_id": self.site_id,
                "farm_id": "farm",
                "region": "local",
                "ingress_url": self.url,
                "gpu_model": "none",
                "gpu_count": 0,
                "server_idle_watts": 100.0,
                "overhead_ratio": 1.1,
                "ride_through_seconds": 5.0,
                "ride_through_joules": 1000.0,
                "safe_floor_watts": 0.0,
                "max_site_watts": 1000.0,
                "capabilities": {
                    "token_ids": self.token_ids,
                    "max_model_len": toy_engine.MAX_MODEL_LEN,
                    **({"paths": self._paths()} if self.parses_ids else {}),
                },
                **self.info_fields,
            }
        )

    def _paths(self) -> list[str]:
        return [*INFERENCE, "/detokenize", DERENDER_PATH, *([RENDER_PATH] if self.renders else [])]

    async def announce(self, store: Any, **changes: Any) -> None:
        """Publish a report, as an agent does every second."""
        await store.publish_site_report(self.site_id, self.report(**changes), time.time())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            self.disconnects += 1
        except asyncio.CancelledError:
            return  # Python 3.11's streams log a cancelled handler as an error
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1].partition("?")[0]
        self.seen.append(Seen(path, headers, raw))
        if path == "/heron/v1/report":
            self.reports_asked += 1
            self._whole(writer, 200, self.report())
            return True
        if path == "/detokenize":
            if self.detokenize_gates:
                await self.detokenize_gates.popleft().wait()
            statuses = self.detokenize_statuses
            status = statuses.popleft() if statuses else self.detokenize_status
            self._whole(writer, status, toy_engine.detokenize(raw) if status == 200 else b"{}")
            return True
        if path == DERENDER_PATH and self.parses_ids:
            if self.derender_gate is not None:
                await self.derender_gate.wait()
            statuses = self.derender_statuses
            status = statuses.popleft() if statuses else 200
            self._whole(writer, status, toy_engine.derender(raw) if status == 200 else b"{}")
            return True
        if path == RENDER_PATH and self.renders:
            status = self.render_statuses.popleft() if self.render_statuses else 200
            self._whole(writer, status, toy_engine.render(raw) if status == 200 else b"{}")
            return True
        if path not in INFERENCE or not raw:  # a stranger that knew this port's last owner
            self._whole(writer, 404, b"{}")
            return True
        if self.limit is not None and (self.running >= self.limit or self.state != "serving"):
            self.pushed_back += 1
            self._whole(writer, 503, b"{}", {"x-heron-pushback": "capacity"})
            return True
        behaviour = self.script.popleft() if self.script else self.default
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        watch = asyncio.create_task(_end_of(reader))
        self._tasks.add(watch)
        answer = asyncio.create_task(self._answer(writer, behaviour, path, raw))
        self._tasks.add(answer)
        try:
            await asyncio.wait({watch, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.disconnects += 1
                return False
            return await answer
        finally:
            self.running -= 1
            for one in (watch, answer):
                one.cancel()
                self._tasks.discard(one)
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await one

    async def _answer(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes
    ) -> bool:
        """Answer one request; False when the connection is over."""
        if behaviour.hang:
            await asyncio.Event().wait()
        if behaviour.close_at_once:
            if behaviour.gate is not None:
                await behaviour.gate.wait()
            writer.transport.abort()
            return False
        if behaviour.status != 200:
            body = behaviour.body or b'{"error": {"message": "as scripted", "type": "x", "code": null}}'
            self._whole(writer, behaviour.status, body, behaviour.headers)
            return True
        fields = orjson.loads(raw)
        if fields.get("stream") is not True:
            if behaviour.gate is not None:
                await behaviour.gate.wait()
            if behaviour.delay_seconds:
                await asyncio.sleep(behaviour.delay_seconds)
            return self._in_one_piece(writer, behaviour, path, raw, fields)
        writer.write(STREAM_HEAD)
        return await self._stream(writer, behaviour, path, raw)

    def _in_one_piece(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes, fields: Any
    ) -> bool:
        body = behaviour.body if behaviour.body is not None else whole_answer(path, raw, fields)
        if behaviour.cut_body_at is None:
            headers = behaviour.headers
            if self.limit is not None:
                headers = {"x-heron-headroom": str(self.limit - self.running), **headers}
            self._whole(writer, 200, body, headers)
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body[: behaviour.cut_body_at])
        writer.close()
        return False

    async def _stream(
        self, writer: asyncio.StreamWriter, behaviour: Behaviour, path: str, raw: bytes
    ) -> bool:
        events = toy_engine.answer(path, raw, tokens_an_event=behaviour.tokens_an_event)
        if behaviour.first_event is not None:
            events = [behaviour.first_event, DONE]
        is_whole = behaviour.events is None
        has_text = False
        for event in events if is_whole else events[: behaviour.events]:
            await _chunk(writer, event)
            if behaviour.gate is not None and (has_text := has_text or _has_text(event)):
                await behaviour.gate.wait()
        if is_whole:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        return await self._then(writer, behaviour.then, events[behaviour.events or 0])

    async def _then(self, writer: asyncio.StreamWriter, then: str, event: bytes) -> bool:
        if then == "cut_in_event":
            await _chunk(writer, event[: len(event) // 2])
        elif then == "error":
            await _chunk(writer, b'data: {"error": {"message": "EngineDead", "code": 500}}\n\n')
            await _chunk(writer, DONE + b"")
        elif then == "abort":
            value = orjson.loads(event.removeprefix(b"data: "))
            value["choices"][0]["finish_reason"] = "abort"
            await _chunk(writer, b"data: " + orjson.dumps(value) + b"\n\n" + DONE)
        elif then == "comments":
            while True:
                await _chunk(writer, b": keep-alive\n\n")
                await asyncio.sleep(0.05)
        elif then == "hang":
            await asyncio.Event().wait()
        if then in ("error", "abort", "end"):
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        await writer.drain()
        writer.close()
        return False

    def _whole(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed; reads nothing of the next request."""
    await until(lambda: reader.at_eof() or reader.exception() is not None, seconds=120, what="the end")


def _has_text(event: bytes) -> bool:
    choices = orjson.loads(event.removeprefix(b"data: "))["choices"]
    return any(choice.get("text") or choice.get("delta", {}).get("content") for choice in choices)


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


def whole_answer(path: str, raw: bytes, fields: Any) -> bytes:
    """The toy's answer in one piece."""
    if path == "/v1/embeddings":
        item = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return orjson.dumps({"object": "list", "data": [item], "model": "m", "usage": usage})
    streamed = orjson.dumps({**fields, "stream": True, "stream_options": {"include_usage": True}})
    events = toy_engine.answer(path, streamed)
    values = [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    is_chat = path == "/v1/chat/completions"
    text = "".join(
        choice["delta"].get("content", "") if is_chat else choice["text"]
        for value in values
        for choice in value["choices"]
    )
    choice: dict[str, Any] = {"index": 0, "finish_reason": values[-2]["choices"][0]["finish_reason"]}
    choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return orjson.dumps(
        {
            "id": values[0]["id"],
            "object": "chat.completion" if is_chat else "text_completion",
            "created": 7,
            "model": fields["model"],
            "choices": [choice],
            "usage": values[-1]["usage"],
        }
    )


def stop_after(events: int, then: str = "cut", base: Behaviour = OK) -> Behaviour:
    """A stream that breaks after so many events."""
    return replace(base, events=events, then=then)
