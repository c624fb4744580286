"""Continues a chat of which reasoning or tool calls were sent, or in which a tool may be called. Pure.

The new site goes on by token ids (`/v1/completions`), and its own parsers say what all the ids so far mean
(`/v1/chat/completions/derender`, vLLM 0.32 with `--enable-scale-out`): so it works for every model that the
engine has parsers for, and nothing here knows a model's markup. What the client lacks of that is sent.

Used as: `feed` the site's stream; while `question` is not None, ask it and give the answer to `note`; both
return what goes to the client. Ids count as sent once the parsers have told them: a stream that breaks goes
on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.continuation import DONE, ClientStream
from router.policy.parsed_output import ParsedOutput, missing_text
from router.policy.resume_plan import Continue, ResumableRequest
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import Ending, is_abort

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


class ParsedContinuation:
    """One site's continuation of a stream."""

    def __init__(self, request: ResumableRequest, record: StreamRecord, plan: Continue) -> None:
        self.record = record
        self._plan = plan
        self._client = ClientStream(request, record)
        self._splitter = EventSplitter()
        fields = orjson.loads(request.raw)
        self._chat_request = orjson.dumps(_chat_request(fields))
        self._model = orjson.dumps(fields.get("model"))
        self._keeps_stop = fields.get("include_stop_str_in_output") is True
        self._so_far = bytes(record.ids).rstrip(b", ")
        """Ids from before, until the parsers have been told of them."""
        self._fresh: list[int] = []
        """Ids that came and that no parser was asked about."""
        self._last: list[int] = []
        """The token that ended the answer, which is no text."""
        self._step: Literal["check", "ids", "end"] = "ids"
        """What the question under way is about."""
        self._asked: list[int] = []
        """Its ids."""
        self._tokens_here = 0
        self._finish: str | None = None
        self._stop_reason: Any = None
        self._is_done = False
        self._sent = _Output.sent(record)
        self._said = _Output()
        self._state: dict[str, Any] | None = None
        events = record.ids_by_event
        self._is_replayed = 0 < len(events) <= MAX_REPLAYED_EVENTS
        self._must_check = self._is_replayed
        if self._is_replayed:
            self._replayed = {
                "output_token_ids": orjson.loads(b"[%b]" % self._so_far),
                "output_chunk_lens": events,
                "role_sent": True,
                "tools_streamed": bool(self._sent.calls),
                "last_tool_call_ids": _call_ids(record),
            }
        self.events = 0
        """Events with data: what a stall is measured by."""
        self.tokens = 0
        """Answers of the parsers with ids that are new: whether it got anywhere."""
        self.ending: Ending | None = None
        self.error: Any = None

    @property
    def is_over(self) -> bool:
        """As `ChatStreamScanner.is_over`."""
        return self.ending is not None

    @property
    def is_told(self) -> bool:
        """The client has all of the answer, but for what only the site's own end brings."""
        return self.record.finish_reason is not None

    @property
    def has_finished(self) -> bool:
        """The site has said all that it will: nothing is gained by waiting for more ids."""
        return self._finish is not None or self.ending is not None

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the site's answer; returns what goes to the client at once (an end, or nothing)."""
        if self.is_over:
            return b""
        try:
            events = self._splitter.feed(data)
        except EventTooLargeError:
            self.ending = "malformed"
            return b""
        for event in events:
            self._take(event)
            if self.is_over:
                return b""
        return self._end()

    def _take(self, event: bytes) -> None:
        payload = data_of(event)
        if payload is None:
            return
        self.events += 1
        if payload.strip() == b"[DONE]":
            self._is_done = True
            if self._finish is None:
                self.ending = "no_finish"
            return
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self.ending = "malformed"
            return
        if value.get("error"):
            self.error = value["error"]
            self.ending = "error_event"
            return
        choices = value.get("choices")
        if isinstance(choices, list) and choices:
            self._take_choice(choices[0])

    def _take_choice(self, choice: Any) -> None:
        ids = choice.get("token_ids") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or choice.get("index", 0) != 0 or self._finish is not None:
            self.ending = "malformed"
            return
        finish = choice.get("finish_reason")
        if is_abort(finish):
            self.ending = "aborted"
            return
        if isinstance(ids, list) and all(isinstance(one, int) and one >= 0 for one in ids):
            self._fresh += ids
        elif choice.get("text"):  # text without ids: nobody can tell what it means
            self.ending = "malformed"
            return
        if finish is None:
            return
        self._finish, self._stop_reason = str(finish), choice.get("stop_reason")
        if finish == "stop" and ids and not self._keeps_stop:
            self._last = [self._fresh.pop()]

    @property
    def question(self) -> bytes | None:
        """The body for `/v1/chat/completions/derender`; None: there is nothing to ask. The next comes after
        its `note`.

        The parsers replay the events from before as they came, since a parser may say another thing of many
        ids at once; but first they are asked about all of those at once, to see that they are the same.
        """
        has_more = bool(self._fresh) or (self._finish is not None and not self.is_told)
        if not has_more or self.ending is not None:
            return None
        if self._must_check:
            self._step, self._asked = "check", []
        else:
            # The end is told by itself: some parsers give the last pieces only after it.
            self._step = "ids" if self._fresh or self._so_far else "end"
            self._asked, self._fresh = self._fresh, []
        raw = b",".join(filter(None, (self._so_far, orjson.dumps(self._asked)[1:-1])))
        finish = orjson.dumps(self._finish) if self._step == "end" else b"null"
        return (
            b'{"stream":true,"model":%b,"generate_chunk":{"request_id":"heron","choices":[{"index":0,'
            b'"token_ids":[%b],"finish_reason":%b}]},"stream_state":%b,"chat_request":%b,'
            b'"prompt_token_ids":[%b]}'
        ) % (
            self._model,
            raw,
            finish,
            orjson.dumps(self._state),
            self._chat_request,
            self.record.prompt_ids or b"",
        )

    def note(self, answer: bytes) -> bytes:
        """The parsers' answer to `question`; returns what the client lacks.

        Raises:
            ValueError: it is not what such an answer is.
            ParsersDisagreeError: it does not go on from what the client has.
        """
        delta, state = _read(answer)
        self._said.add(delta)
        if self._step == "check":
            self._said.check_begins(self._sent)
            self._must_check = False
            self._so_far, self._state, self._said = b"", self._replayed, self._sent.copy()
            return b""
        lacks = self._said.beyond(self._sent)
        is_end = self._step == "end"
        if is_end:
            self._said.check_is_all(self._sent)
        # From here on nothing is raised: what is noted as sent is sent.
        self._state = state
        _pin_call_ids(state, self.record)
        ids, self._so_far = self._last if is_end else self._asked, b""
        if ids:
            self.record.add_ids(orjson.dumps(ids)[1:-1])
            self.tokens += 1
            self._tokens_here += len(ids)
        out = self._tell(lacks, ids)
        if not is_end:
            return out
        finish = self._finish
        assert finish is not None
        if finish == "stop" and self._sent.calls:
            finish = "tool_calls"
        return out + self._client.chunk("", finish=finish, stop_reason=self._stop_reason) + self._end()

    def _tell(self, lacks: _Output, ids: list[int]) -> bytes:
        """Events of what the client lacks: reasoning, text with the ids, tool calls."""
        out = b""
        if lacks.reasoning:
            parsed = self.record.parsed
            names = (parsed.reasoning_names if parsed is not None else ()) or self._said.reasoning_names
            out += self._client.delta(dict.fromkeys(names, lacks.reasoning))
        out += self._client.chunk(lacks.content, ids=ids)
        pieces = []
        for index, (call_id, name, arguments) in sorted(lacks.calls.items()):
            if index in self._sent.calls:
                pieces.append({"index": index, "function": {"arguments": arguments}})
            else:
                start = {"name": name, "arguments": arguments}
                pieces.append({"index": index, "id": call_id, "type": "function", "function": start})
        if pieces:
            out += self._client.delta({"tool_calls": pieces})
        self._sent = _Output.sent(self.record)
        return out

    def _end(self) -> bytes:
        """Usage and terminal event, once the site has ended its stream and the client has all of it."""
        if not self._is_done or not self.is_told or self.ending is not None:
            return b""
        self.ending = "complete"
        tokens = self._plan.tokens_before + self._tokens_here
        return self._client.usage(self.record.prompt_tokens, tokens) + DONE


@dataclass(slots=True)
class _Output:
    """Reasoning, text and tool calls, as a client or a parser has them."""

    reasoning: str = ""
    reasoning_names: tuple[str, ...] = ()
    content: str = ""
    calls: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    """Id, name and arguments by index."""

    @classmethod
    def sent(cls, record: StreamRecord) -> _Output:
        """What the client has."""
        parsed = record.parsed
        if parsed is None:
            return cls(content=record.sent_text)
        calls = {index: (call.call_id, call.name, call.arguments) for index, call in parsed.calls.items()}
        return cls(parsed.reasoning, parsed.reasoning_names, record.sent_text, calls)

    def copy(self) -> _Output:
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

    def beyond(self, sent: _Output) -> _Output:
        """What a client with `sent` lacks; a call whose name has not come is none yet.

        Raises:
            ParsersDisagreeError: they are not of one answer.
        """
        lacks = _Output(
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

    def check_begins(self, sent: _Output) -> None:
        """Raise ParsersDisagreeError where this cannot be what was sent, or less of it."""
        self.beyond(sent)
        if sent.reasoning and not self.reasoning:
            raise ParsersDisagreeError("no reasoning is seen there")

    def check_is_all(self, sent: _Output) -> None:
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


def _call_ids(record: StreamRecord) -> list[str]:
    calls = {} if record.parsed is None else record.parsed.calls
    return [calls[index].call_id if index in calls else "" for index in range(max(calls, default=-1) + 1)]


def _pin_call_ids(state: dict[str, Any], record: StreamRecord) -> None:
    """Calls that began at another site keep their ids."""
    known = state.get("last_tool_call_ids")
    if record.parsed is None or not isinstance(known, list):
        return
    for index, call in record.parsed.calls.items():
        if index < len(known) and call.call_id:
            known[index] = call.call_id


def _read(answer: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _chat_request(fields: dict[str, Any]) -> dict[str, Any]:
    """The client's request as far as parsers look at it: the messages may be long, and are sent each time."""
    kept = {name: fields[name] for name in _DERENDER_FIELDS if name in fields}
    messages = fields.get("messages")
    calls = [
        {"role": "assistant", "content": "", "tool_calls": message["tool_calls"]}
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict) and message.get("tool_calls")
    ]
    return kept | {"messages": [*calls, {"role": "user", "content": ""}], "stream": True}
