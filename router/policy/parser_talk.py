"""What is said to a site's parsers, and what they say. Pure.

They are asked by `/v1/chat/completions/derender` of vLLM 0.32, streaming: each question has ids and the state
that the last answer gave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from router.policy.parsed_output import ParsedOutput, missing_text
from router.policy.stream_record import StreamRecord

_DERENDER_FIELDS = (
    "model",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "reasoning_effort",
    "skip_special_tokens",
    "spaces_between_special_tokens",
)
"""What parsers read of a request; of its messages they count the tool calls."""


MAX_REPLAYED_EVENTS = 1024
"""Of a longer answer the ids so far are given to the parsers as one piece: each question replays them all."""


class ParsersDisagreeError(Exception):
    """The new site's parsers say something else than the client was sent."""


@dataclass(slots=True)
class Output:
    """Reasoning, text and tool calls, as a client or a parser has them."""

    reasoning: str = ""
    reasoning_names: tuple[str, ...] = ()
    content: str = ""
    calls: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    """Id, name and arguments by index."""

    @classmethod
    def sent(cls, record: StreamRecord) -> Output:
        """What the client has."""
        parsed = record.parsed
        if parsed is None:
            return cls(content=record.sent_text)
        calls = {index: (call.call_id, call.name, call.arguments) for index, call in parsed.calls.items()}
        return cls(parsed.reasoning, parsed.reasoning_names, record.sent_text, calls)

    @property
    def has_any(self) -> bool:
        """Whether a client would see anything of it."""
        return bool(self.reasoning or self.content or self.calls)

    def tells(self, other: Output) -> bool:
        """Whether it says the same; of calls, whose ids are made anew each time, names and arguments."""
        calls = [{index: call[1:] for index, call in one.calls.items()} for one in (self, other)]
        is_same_text = (self.reasoning, self.content) == (other.reasoning, other.content)
        return is_same_text and calls[0] == calls[1]

    def copy(self) -> Output:
        """Another one of the same."""
        return replace(self, calls=dict(self.calls))

    def add(self, delta: dict[str, Any]) -> None:
        """What a delta says more.

        Raises:
            ValueError: it makes no sense.
        """
        more = ParsedOutput()
        text = delta.get("content")
        if not more.add(delta) or not isinstance(text, str | None):
            raise ValueError("a delta that makes no sense")
        self.content += text or ""
        self.reasoning += more.reasoning
        self.reasoning_names = more.reasoning_names or self.reasoning_names
        for index, call in more.calls.items():
            call_id, name, arguments = self.calls.get(index, ("", "", ""))
            self.calls[index] = call_id or call.call_id, name + call.name, arguments + call.arguments

    def beyond(self, sent: Output) -> Output:
        """What a client with `sent` lacks; a call whose name has not come is none yet.

        Raises:
            ParsersDisagreeError: they are not of one answer.
        """
        lacks = Output(
            reasoning=_missing(sent.reasoning, self.reasoning, "reasoning"),
            content=_missing(sent.content, self.content, "text"),
        )
        for index, (call_id, name, arguments) in self.calls.items():
            more = _missing(sent.calls.get(index, ("", "", ""))[2], arguments, f"tool call {index}")
            if index in sent.calls:
                lacks.calls |= {index: ("", "", more)} if more else {}
            elif name:
                lacks.calls[index] = call_id, name, more
        return lacks

    def check_begins(self, sent: Output) -> None:
        """Raise ParsersDisagreeError where this cannot be what was sent, or less of it."""
        self.beyond(sent)
        if sent.reasoning and not self.reasoning:
            raise ParsersDisagreeError("no reasoning is seen there")

    def check_is_all(self, sent: Output) -> None:
        """Raise ParsersDisagreeError where a client with `sent` has more, or a call before another is not."""
        calls = {index: arguments for index, (_, _, arguments) in self.calls.items()}
        is_less = any(calls.get(index, "") < arguments for index, (_, _, arguments) in sent.calls.items())
        is_less |= len(self.reasoning) < len(sent.reasoning) or len(self.content) < len(sent.content)
        if is_less or sorted(calls) != list(range(len(calls))):
            raise ParsersDisagreeError("less is seen there than was sent")


def _missing(sent: str, whole: str, what: str) -> str:
    missing = missing_text(sent, whole)
    if missing is None:
        raise ParsersDisagreeError(f"the {what} so far is another one there")
    return missing


def replayed(record: StreamRecord, events: list[int]) -> dict[str, Any]:
    """The state behind the first events of a stream, by how many ids each has: parsers replay them."""
    calls = {} if record.parsed is None else record.parsed.calls
    return {
        "output_token_ids": orjson.loads(b"[%b]" % record.listed_ids)[: sum(events)],
        "output_chunk_lens": events,
        "role_sent": True,
        "tools_streamed": bool(calls),
        "last_tool_call_ids": [
            calls[index].call_id if index in calls else "" for index in range(max(calls, default=-1) + 1)
        ],
    }


def question(
    *, model: bytes, chat_request: bytes, prompt_ids: bytes, ids: bytes, state: Any, finish: str | None = None
) -> bytes:
    """The body that asks what `ids` (`1,2,3`) mean behind `state`; `model` and `chat_request` are JSON."""
    return (
        b'{"stream":true,"model":%b,"generate_chunk":{"request_id":"heron","choices":[{"index":0,'
        b'"token_ids":[%b],"finish_reason":%b}]},"stream_state":%b,"chat_request":%b,'
        b'"prompt_token_ids":[%b]}'
    ) % (model, ids, orjson.dumps(finish), orjson.dumps(state), chat_request, prompt_ids)


def read_answer(answer: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """(delta, state) of an answer.

    Raises:
        ValueError: it has none.
    """
    value = orjson.loads(answer)
    state = value.get("stream_state") if isinstance(value, dict) else None
    chunk = value.get("chunk") if isinstance(value, dict) else None
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(state, dict) or not isinstance(choices, list):
        raise ValueError("neither chunk nor state")  # noqa: TRY004 -- the site's fault, as broken JSON is
    delta = choices[0].get("delta") if choices and isinstance(choices[0], dict) else {}
    return (delta if isinstance(delta, dict) else {}), state


def chat_request_of(fields: dict[str, Any]) -> dict[str, Any]:
    """The client's request as far as parsers look at it: the messages may be long, and are sent each time."""
    kept = {name: fields[name] for name in _DERENDER_FIELDS if name in fields}
    messages = fields.get("messages")
    calls = [
        {"role": "assistant", "content": "", "tool_calls": message["tool_calls"]}
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict) and message.get("tool_calls")
    ]
    return kept | {"messages": [*calls, {"role": "user", "content": ""}], "stream": True}
