"""Streams of the Responses API that are asked for as chats: the events. Pure.

They are those of vLLM 0.32 (`SimpleStreamingEventProcessor`), but for the ids, which come of the chat's. The
chat may have been continued elsewhere: then larger pieces come, and of a call that had begun only the rest.

What is not understood ends the stream with a stated error, and nothing comes after an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.json_rules import MAX_COUNT
from router.policy.responses_shapes import Kind, item_shape, part_shape, response_shape, usage_shape
from router.policy.responses_tools import namespaces_of
from router.policy.stream_end import loss_of
from router.policy.stream_scan import is_abort

_NAMES = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "call": "fc"}


class _MalformedError(Exception):
    """Not what a chat's stream is; the text says what."""


class ResponsesOutlet:
    """Makes a chat's stream into one of the Responses API."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """`fields` is the request, which a chat can say."""
        self._response = response_shape(fields)
        self._namespaces = namespaces_of(fields.get("tools"))
        self._base = ""
        """What is the request's own in the chat's id; "" until it came."""
        self._splitter = EventSplitter()
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        """Those that are whole."""
        self._item: _Item | None = None
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._is_over = self.has_failed = False

    def whole(self, status: int, body: bytes) -> bytes:  # noqa: ARG002 -- it is the same in both
        """An error: vLLM's have one form in both APIs, but the limit has another name."""
        return body.replace(b"max_completion_tokens", b"max_output_tokens")

    def feed(self, data: bytes) -> bytes:
        """Whole events of the chat's stream, or comments → those of the answer."""
        if self._is_over:
            return b""
        out: list[bytes] = []
        try:
            # One event is the common case, and needs no splitting.
            is_one = data.startswith(b"data: {") and data.find(b"\n\n") == len(data) - 2
            events = [data] if is_one else self._splitter.feed(data)
            told = self._go_on_with_call(events, out) if len(events) > 1 else -1
            for event in events:
                self._take(event, told, out)
                if self._is_over:
                    break
        except (_MalformedError, EventTooLargeError) as error:
            self._lose(loss_of("stream_lost", str(error)), "stream_lost", None, out)
        return b"".join(out)

    def _take(self, event: bytes, told: int, out: list[bytes]) -> None:
        payload = data_of(event)
        if payload is None:
            out.append(event)
            return
        if payload[:1] != b"{" and payload.strip() == b"[DONE]":
            self._end(out)
            return
        chunk = _loads(payload)
        if chunk.get("error"):
            self._fail(chunk["error"], out)
            return
        if not self._base:
            self._begin(chunk, out)
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = _usage(usage)
        choice = _choice_of(chunk)
        if choice is None:
            return
        self._take_delta(_inner(choice, "delta"), told, out)
        finish = choice.get("finish_reason")
        if finish is not None:
            if type(finish) is not str or is_abort(finish) or finish == "error":
                raise _MalformedError("the engine gave up")
            self._finish = finish

    def _take_delta(self, delta: dict[str, Any], told: int, out: list[bytes]) -> None:
        """In vLLM's order; but a call under way goes on before what would end it."""
        item = self._item
        content = delta.get("content")
        if len(delta) == 1 and type(content) is str and item is not None and item.kind == "message":
            if content:
                self._write(item, content, out)
            return
        reasoning = _text(delta, "reasoning")
        if reasoning is None:
            reasoning = _text(delta, "reasoning_content")
        content = _text(delta, "content")
        calls = _calls(delta)
        calls.pop(told, None)
        if item is not None and item.call_index in calls:
            self._take_call(calls.pop(item.call_index), out)
        if reasoning is not None:
            self._write(self._opened("reasoning", out), reasoning, out)
        if content:
            self._write(self._opened("message", out), content, out)
        for pieces in calls.values():
            self._take_call(pieces, out)

    def _take_call(self, pieces: list[dict[str, Any]], out: list[bytes]) -> None:
        """Pieces of one tool call."""
        if pieces[0].get("function") is None:
            return
        item = self._opened("call", out, pieces[0])
        arguments = "".join(_text(_inner(piece, "function"), "arguments") or "" for piece in pieces)
        if arguments:
            self._write(item, arguments, out)

    def _go_on_with_call(self, events: list[bytes], out: list[bytes]) -> int:
        """What came of the call under way, before all else that came at once; returns its index, or -1.

        A stream that was continued tells text before calls, and the text may be from behind them.
        """
        item = self._item
        if item is None or item.kind != "call":
            return -1
        for event in events:
            payload = data_of(event)
            if payload is None or b'"tool_calls"' not in payload:
                continue
            choice = _choice_of(_loads(payload)) or {}
            pieces = _calls(_inner(choice, "delta")).get(item.call_index)
            if pieces:
                self._take_call(pieces, out)
        return item.call_index

    def _opened(self, kind: Kind, out: list[bytes], call: dict[str, Any] | None = None) -> _Item:
        """The item that a piece belongs to; where that is another one, the one before is whole."""
        item = self._item
        if item is not None and item.kind == kind and (call is None or item.call_index == call["index"]):
            return item
        self._close(out)
        index = len(self._items)
        item = self._item = _Item(kind, f"{self._base}_{index}", index, call)
        item.namespace, item.name = self._namespaces.get(item.name, (None, item.name))
        out.append(self._event("response.output_item.added", item=item.shape(None), output_index=index))
        if kind != "call":
            out.append(self._event("response.content_part.added", **item.place, part=part_shape(kind, None)))
        return item

    def _write(self, item: _Item, text: str, out: list[bytes]) -> None:
        item.pieces.append(text)
        out += (item.before, orjson.dumps(text), item.behind, b"%d}\n\n" % self._sequence)
        self._sequence += 1

    def _close(self, out: list[bytes]) -> None:
        """The end of the item under way."""
        item, self._item = self._item, None
        if item is None:
            return
        text, name = "".join(item.pieces), _NAMES[item.kind] + ".done"
        if item.kind == "call":
            out.append(self._event(name, **item.place, arguments=text, name=item.name))
        else:
            logprobs: dict[str, Any] = {"logprobs": []} if item.kind == "message" else {}
            out.append(self._event(name, **item.place, text=text, **logprobs))
            part = part_shape(item.kind, text)
            out.append(self._event("response.content_part.done", **item.place, part=part))
        whole = item.shape(text)
        self._items.append(whole)
        out.append(self._event("response.output_item.done", item=whole, output_index=item.output_index))

    def _begin(self, chunk: dict[str, Any], out: list[bytes]) -> None:
        chat_id, created, model = chunk.get("id"), chunk.get("created"), chunk.get("model")
        if type(chat_id) is not str or type(created) is not int or type(model) is not str:
            raise _MalformedError("a chunk without id, created or model")
        self._base = chat_id.removeprefix("chatcmpl-") or "0"
        self._response |= {"id": f"resp_{self._base}", "created_at": created, "model": model}
        response = orjson.Fragment(orjson.dumps(self._response))
        out.append(self._event("response.created", response=response))
        out.append(self._event("response.in_progress", response=response))

    def _end(self, out: list[bytes]) -> None:
        if self._finish is None:
            raise _MalformedError("it ended without a finish_reason")
        self._close(out)
        is_cut = self._finish == "length"
        self._response |= {
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._items,
            "status": "incomplete" if is_cut else "completed",
            "usage": self._usage,
        }
        self._is_over = True
        out.append(self._event("response.completed", response=self._response))

    def _fail(self, error: Any, out: list[bytes]) -> None:
        """An error of the engine's or the router's."""
        error = error if type(error) is dict else {"message": error}
        code, message, param = error.get("code"), error.get("message"), error.get("param")
        self._lose(
            message if type(message) is str else "The engine failed.",
            str(code) if type(code) in (str, int) else None,
            param if type(param) is str else None,
            out,
        )

    def _lose(self, message: str, code: str | None, param: str | None, out: list[bytes]) -> None:
        """`error` for OpenAI's SDK; `response.failed` for those that look for an end alone (Codex)."""
        self._is_over = self.has_failed = True
        out.append(self._event("error", code=code, message=message, param=param))
        if not self._base:
            return
        failure = {"code": "server_error", "message": message}
        self._response |= {"error": failure, "output": self._items, "status": "failed"}
        out.append(self._event("response.failed", response=self._response))

    def _event(self, name: str, /, **body: Any) -> bytes:
        body |= {"sequence_number": self._sequence, "type": name}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(body))


class _Item:
    """One item of the answer, while it is written."""

    __slots__ = (
        "before",
        "behind",
        "call_id",
        "call_index",
        "item_id",
        "kind",
        "name",
        "namespace",
        "output_index",
        "pieces",
        "place",
    )

    def __init__(self, kind: Kind, base: str, output_index: int, call: dict[str, Any] | None) -> None:
        self.kind = kind
        self.output_index = output_index
        self.item_id = f"{_PREFIXES[kind]}_{base}"
        self.pieces: list[str] = []
        self.name, self.call_id, self.call_index = "", "", -1
        self.namespace: str | None = None
        if call is not None:
            name, call_id = _text(call["function"], "name"), _text(call, "id")
            if name is None:
                raise _MalformedError("a tool call without a name")
            self.name, self.call_index = name, call["index"]
            self.call_id = call_id or f"call_{base}"
        self.place: dict[str, Any] = {"item_id": self.item_id, "output_index": output_index}
        if kind != "call":
            self.place["content_index"] = 0
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        name = _NAMES[kind] + ".delta"
        self.before = b'event: %b\ndata: {"delta":' % name.encode()
        behind = orjson.dumps({**self.place, **logprobs, "type": name})
        self.behind = b',%b,"sequence_number":' % behind[1:-1]

    def shape(self, text: str | None) -> dict[str, Any]:
        """As clients see it; `text` is None until it is whole."""
        return item_shape(
            self.kind, self.item_id, text, call_id=self.call_id, name=self.name, namespace=self.namespace
        )


# ---- reading a chat's chunks ----


def _loads(payload: bytes) -> dict[str, Any]:
    try:
        return _object(orjson.loads(payload), "chunk")
    except orjson.JSONDecodeError:
        raise _MalformedError("a chunk that is not JSON") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _MalformedError(f"a {what} that is no object")
    return value


def _inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return {} if inner is None else _object(inner, name)


def _choice_of(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) > 1:
        raise _MalformedError("a chunk without choices")
    if not choices:
        return None
    choice = _object(choices[0], "choice")
    if choice.get("index", 0) != 0:
        raise _MalformedError("a choice that nobody asked for")
    return choice


def _text(value: dict[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is not None and type(text) is not str:
        raise _MalformedError(f"{name} that is no text")
    return text


def _calls(delta: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """A delta's pieces of tool calls, by index."""
    calls: dict[int, list[dict[str, Any]]] = {}
    pieces = delta.get("tool_calls")
    if pieces is None:
        return calls
    if type(pieces) is not list:
        raise _MalformedError("tool_calls that are no list")
    for piece in pieces:
        index = _object(piece, "tool call").get("index")
        if type(index) is not int or index < 0:
            raise _MalformedError("a tool call without index")
        _inner(piece, "function")
        calls.setdefault(index, []).append(piece)
    return calls


def _usage(usage: Any) -> dict[str, Any]:
    usage = _object(usage, "usage")
    of_prompt, of_output = _inner(usage, "prompt_tokens_details"), _inner(usage, "completion_tokens_details")
    return usage_shape(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        cached=_count(of_prompt, "cached_tokens"),
        cache_write=_count(of_prompt, "created_cache_tokens"),
        reasoning=_count(of_output, "reasoning_tokens"),
    )


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise _MalformedError(f"{name} that is no number")
    return value
