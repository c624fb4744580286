"""A site that answers what a real vLLM 0.32 answered: the bodies in `recorded/`, byte for byte.

They are of the CPU build with a tiny random model. Such a model writes no arguments that are JSON, so in the
recordings with `tool` in their name the arguments, the finish reason and the token count were put in by hand.
Response ids are new for each answer, and the site knows which it has given out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from support import toy_engine
from support.stub_site import StubSite, whole_answer

RECORDED = Path(__file__).parent / "recorded"
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


def recorded(name: str) -> bytes:
    """One recording."""
    return (RECORDED / name).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it arrived, byte for byte."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def fields(self) -> Any:
        return orjson.loads(self.raw)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes back."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    """A stream's events after the first wait for it."""


class RecordedSite(StubSite):
    """As `StubSite`, for every path; `paths` is what its SiteInfo says that it serves (empty: nothing)."""

    def __init__(self, site_id: str, *, paths: tuple[str, ...] = (), model: str = "tiny") -> None:
        super().__init__(site_id, model=model)
        self.paths = paths
        self.asked: list[Asked] = []
        self.held: set[str] = set()
        """Ids of responses that it has."""
        self.override: Callable[[Asked], Reply | None] = lambda _asked: None
        self.gate: asyncio.Event | None = None
        self._numbers = itertools.count(1)

    def info(self) -> bytes:
        info = orjson.loads(super().info())
        info["capabilities"] |= {"paths": list(self.paths), "keeps_responses": True}
        return orjson.dumps(info)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = first.split(" ")
        asked = Asked(method=method, target=target, headers=headers, raw=raw)
        if asked.path == "/heron/v1/report":
            self._whole(writer, 200, self.report())
            return True
        self.asked.append(asked)
        await self._send(writer, self.override(asked) or self.reply(asked))
        return True

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        head = f"HTTP/1.1 {reply.status} X\r\ncontent-type: {reply.content_type}\r\n{more}"
        if reply.content_type != EVENTS:
            writer.write(f"{head}content-length: {len(reply.body)}\r\n\r\n".encode() + reply.body)
            return
        writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        for event in reply.body.split(b"\n\n")[:-1]:
            writer.write(b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event))
            await writer.drain()
            if reply.gate is not None:
                await reply.gate.wait()
        writer.write(b"0\r\n\r\n")

    def reply(self, asked: Asked) -> Reply:
        """As vLLM."""
        if asked.path.startswith("/v1/responses"):
            return self._responses(asked)
        if asked.path == "/v1/messages/count_tokens":
            return Reply(body=recorded("count_tokens.json"))
        if "multipart" in asked.headers.get("content-type", ""):
            return Reply(body=b'{"text":"hello","usage":{"type":"duration","seconds":1}}')
        fields = asked.fields
        is_stream = fields.get("stream") is True
        kind = "sse" if is_stream else "json"
        content_type = EVENTS if is_stream else JSON
        if asked.path == "/v1/messages":
            name = "messages_tool" if fields.get("tools") else "messages"
            return Reply(content_type=content_type, body=recorded(f"{name}.{kind}"))
        if asked.path == "/v1/chat/completions":
            if fields.get("tools"):
                return Reply(content_type=content_type, body=recorded(f"chat_tool.{kind}"))
            if fields.get("response_format"):
                return Reply(body=recorded("chat_schema.json"))
            if not is_stream:
                return Reply(body=whole_answer(asked.path, asked.raw, fields))
            return Reply(content_type=EVENTS, body=b"".join(toy_engine.answer(asked.path, asked.raw)))
        if asked.path == "/v1/embeddings":
            return Reply(body=whole_answer(asked.path, asked.raw, fields))
        return Reply(body=orjson.dumps({"answers": asked.path}))

    def _responses(self, asked: Asked) -> Reply:
        response_id, _, action = asked.path.removeprefix("/v1/responses").strip("/").partition("/")
        if response_id:
            if response_id not in self.held:
                return _missing(response_id)
            name = "responses_bg_cancel.json" if action else "responses_get.json"
            return Reply(body=_with_id(recorded(name), response_id))
        fields = asked.fields
        previous = fields.get("previous_response_id")
        if previous and previous not in self.held:
            return _missing(previous)
        response_id = f"resp_{self.site_id}{next(self._numbers):08d}"
        self.held.add(response_id)
        if fields.get("stream"):
            body = _with_id(recorded("responses.sse"), response_id)
            return Reply(content_type=EVENTS, body=body, gate=self.gate)
        name = "responses.json"
        if fields.get("background"):
            name = "responses_bg.json"
        elif fields.get("tools"):
            name = "responses_tool.json"
        elif fields.get("text"):
            name = "responses_schema.json"
        return Reply(body=_with_id(recorded(name), response_id))


def _missing(response_id: str) -> Reply:
    body = recorded("responses_404.json").replace(b"resp_nothing", response_id.encode())
    return Reply(status=404, body=body)


def _with_id(body: bytes, response_id: str) -> bytes:
    """The recording with its response's id, wherever it stands, replaced."""
    start = body.index(b"resp_")
    return body.replace(body[start : body.index(b'"', start)], response_id.encode())
