"""A small OpenAI server on a real socket that behaves, per request, as a test says; answers word by word.

It shares nothing with the gateway, so that the load generator is not judged by its own HTTP code. The words
are those of the emulated engine.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from site_agent.emulation import tokens

Body = dict[str, Any]


class OpenAIStub:
    """`choose` names the behaviour for a request's body; see `_BEHAVIOURS` and `_STATUS`."""

    def __init__(self, choose: Callable[[Body], str]) -> None:
        self._choose = choose
        self.url = ""
        self.bodies: list[Body] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.behaviours: Counter[str] = Counter()
        self.hanging = asyncio.Event()
        """Set once a request hangs."""
        self.clients_gone = 0
        """Connections that the client closed while a request was unanswered."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.clients_gone += 1
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        if lines[0].startswith("GET"):  # health and the like: yes, and no more
            self.headers.append(headers)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
            return True
        behaviour = self._choose(body)
        self.paths.append(lines[0].split()[1])
        self.headers.append(headers)
        self.bodies.append(body)
        self.behaviours[behaviour] += 1
        if behaviour in _STATUS:
            _write_error(writer, _STATUS[behaviour])
        elif behaviour == "hang":
            await self._hang(reader)
        elif behaviour == "cut_before_head":
            return False
        elif not body.get("stream"):
            _write_whole(writer, body)
        else:
            return await self._stream(reader, writer, body, behaviour)
        await writer.drain()
        return True

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Body, behaviour: str
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
            b"x-heron-site: north\r\n\r\n"
        )
        for piece in _pieces(body, behaviour):
            if piece == HANG:
                await self._hang(reader)
            elif piece == CUT:
                return False
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Until the client goes."""
        self.hanging.set()
        await reader.readexactly(1)


HANG, CUT = b"<hang>", b"<cut>"
_STATUS = {"status_503": 503, "status_429": 429, "status_400": 400, "status_500": 500}


def _pieces(body: Body, behaviour: str) -> list[bytes]:
    """The stream's pieces as one behaviour has them."""
    words = _words(body)
    is_chat = "messages" in body
    tokens_ = [_token(body, text) for text in words]
    role = [_event(_chunk(body, {"role": "assistant", "content": ""}))] if is_chat else []
    finish = _event(_chunk(body, {}, "length"))
    usage = _event({"object": "chat.completion.chunk", "choices": [], "usage": _usage(body)})
    done = b"data: [DONE]\n\n"
    half = max(1, len(tokens_) // 2)
    begun = role + tokens_[:half]
    whole = [*role, *tokens_, finish, usage, done]
    lost = _error_event("power_lost")
    return {
        "complete": whole,
        "bytewise": [bytes([byte]) for byte in b"".join(whole)],
        "commented": [b": keep-alive\n\n", *whole],
        "windows": [piece.replace(b"\n", b"\r\n") for piece in whole],
        "cut_after_done": [*whole, CUT],
        "cut": [*begun, CUT],
        "cut_in_event": [*begun, tokens_[half - 1][:20], CUT],
        "truncated": begun,
        "without_done": [*role, *tokens_, finish, usage],
        "without_finish": [*begun, done],
        "abort": [*begun, _event(_chunk(body, {}, "abort")), done],
        "broken": [*begun, lost, done],
        "broken_before_text": [b": keep-alive\n\n", lost, done],
        "engine_died": [*begun, _error_event(500), done],
        "overloaded": [_error_event(503), done],
        "failed_first": [_error_event("invalid_request"), done],
        "stalled": [*begun, HANG],
        "token_lost": [*role, *tokens_[:half], *tokens_[half + 1 :], finish, done],
        "token_repeated": [*role, *tokens_[:half], *tokens_[half - 1 :], finish, done],
        "token_foreign": [*role, _token(body, "zzzz"), *tokens_[1:], finish, done],
        "wrong_usage": [
            *(*role, *tokens_, finish),
            _event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
            done,
        ],
        "text_after_done": [*whole, tokens_[0]],
        "garbage": [*begun, b"data: {not json\n\n", *tokens_[half:], finish, done],
    }[behaviour]


def _words(body: Body) -> list[str]:
    count = int(body["max_tokens"])
    ids = tokens.tokenize_chat(body["messages"]) if "messages" in body else body["prompt"]
    return [tokens.piece(token) for token in tokens.generate(ids, count)]


def _usage(body: Body) -> dict[str, int]:
    if "messages" in body:
        prompt = sum(len(message["content"].split()) for message in body["messages"])
    else:
        prompt = len(body["prompt"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": body["max_tokens"],
        "total_tokens": prompt + body["max_tokens"],
    }


def _token(body: Body, text: str) -> bytes:
    return _event(_chunk(body, {"content": text}))


def _chunk(body: Body, delta: dict[str, str], finish_reason: str | None = None) -> Body:
    choice: Body = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
    if "messages" in body:
        return {"id": "chatcmpl-1", "model": body["model"], "choices": [{**choice, "delta": delta}]}
    text = delta.get("content", "")
    return {"id": "cmpl-1", "model": body["model"], "choices": [{**choice, "text": text}], "usage": None}


def _event(value: Body) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _error_event(code: str | int) -> bytes:
    return _event({"error": {"message": "stated", "type": "server_error", "code": code}})


def _write_error(writer: asyncio.StreamWriter, status: int) -> None:
    body = json.dumps({"error": {"message": "stated", "type": "server_error", "code": f"c{status}"}}).encode()
    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


def _write_whole(writer: asyncio.StreamWriter, body: Body) -> None:
    message = {"role": "assistant", "content": "".join(_words(body))}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    answer = json.dumps({"id": "chatcmpl-1", "choices": [choice], "usage": _usage(body)}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))


@asynccontextmanager
async def serving(choose: Callable[[Body], str]) -> AsyncIterator[OpenAIStub]:
    """The stub on a free port; every connection is gone when the block ends."""
    stub = OpenAIStub(choose)
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(asyncio.CancelledError):
            await stub.handle(reader, writer)
        connections.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
