"""Continues a chat of which reasoning or tool calls were sent, or in which a tool may be called. Pure.

The new site goes on by token ids (`/v1/completions`), and its own parsers say what all the ids so far mean
(`/v1/chat/completions/derender`, vLLM 0.32 with `--enable-scale-out`): so it works for every model that the
engine has parsers for, and nothing here knows a model's markup. What the client lacks of that is sent.

Used as: `feed` the site's stream; while `question` is not None, ask it and give the answer to `note`; both
return what goes to the client. Ids count as sent once the parsers have told them: a stream that breaks goes
on from there.
"""

from __future__ import annotations

from typing import Any

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


class ParsersDisagreeError(Exception):
    """The new site's parsers say something else than the client was sent."""


class ParsedContinuation:
    """One site's continuation of a stream."""

    def __init__(self, request: ResumableRequest, record: StreamRecord, plan: Continue) -> None:
        self._record = record
        self._plan = plan
        self._client = ClientStream(request, record)
        self._splitter = EventSplitter()
        fields = orjson.loads(request.raw)
        self._chat_request = orjson.dumps(_chat_request(fields))
        self._model = orjson.dumps(fields.get("model"))
        self._keeps_stop = fields.get("include_stop_str_in_output") is True
        self._so_far = bytes(record.ids).rstrip(b",")
        """Ids from before, until the parsers have been told of them."""
        self._fresh: list[int] = []
        """Ids that came and that no parser was asked about."""
        self._asked: list[int] = []
        """Those of the question under way."""
        self._last: list[int] = []
        """The token that ended the answer, which is no text."""
        self._tokens_here = 0
        self._state: dict[str, Any] | None = None
        self._content = ""
        self._said = ParsedOutput()
        self._is_saying_end = False
        self._finish: str | None = None
        self._stop_reason: Any = None
        self._is_done = False
        sent = record.parsed
        self._sent_content = record.sent_text
        self._sent_reasoning = "" if sent is None else sent.reasoning
        self._sent_calls = {} if sent is None else {i: call.arguments for i, call in sent.calls.items()}
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
        return self._record.finish_reason is not None

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
        if finish == "stop" and self._fresh and not self._keeps_stop:
            self._last = [self._fresh.pop()]

    @property
    def question(self) -> bytes | None:
        """The body for `/v1/chat/completions/derender`; None: there is nothing to ask. The next comes after
        its `note`."""
        has_more = bool(self._fresh) or (self._finish is not None and self._record.finish_reason is None)
        if not has_more or (self.ending is not None):
            return None
        # The end is told by itself: some parsers give the last pieces only after it.
        self._is_saying_end = not self._fresh
        self._asked, self._fresh = self._fresh, []
        raw = b",".join(filter(None, (self._so_far, orjson.dumps(self._asked)[1:-1])))
        finish = orjson.dumps(self._finish) if self._is_saying_end else b"null"
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
            self._record.prompt_ids or b"",
        )

    def note(self, answer: bytes) -> bytes:
        """The parsers' answer to `question`; returns what the client lacks.

        Raises:
            ValueError: it is not what such an answer is.
            ParsersDisagreeError: it does not go on from what the client has.
        """
        delta, self._state = _read(answer)
        self._pin_call_ids()
        record, ids = self._record, self._asked
        if self._is_saying_end:
            ids = self._last
        if ids:
            record.add_ids(orjson.dumps(ids)[1:-1])
            self.tokens += 1
            self._tokens_here += len(ids)
        self._so_far, self._asked = b"", []
        text = delta.get("content")
        if isinstance(text, str):
            self._content += text
        if not self._said.add(delta):
            raise ValueError("a delta that makes no sense")
        out = self._tell_text(ids) + self._tell_calls()
        if not self._is_saying_end:
            return out
        finish = self._finish
        assert finish is not None
        if finish == "stop" and self._sent_calls:
            finish = "tool_calls"
        return out + self._client.chunk("", finish=finish, stop_reason=self._stop_reason) + self._end()

    def _tell_text(self, ids: list[int]) -> bytes:
        """Reasoning and text that the client lacks."""
        out = b""
        reasoning = _missing(self._sent_reasoning, self._said.reasoning, "reasoning")
        if reasoning:
            self._sent_reasoning += reasoning
            parsed = self._record.parsed
            names = (parsed.reasoning_names if parsed is not None else ()) or self._said.reasoning_names
            out += self._client.delta(dict.fromkeys(names, reasoning))
        content = _missing(self._sent_content, self._content, "text")
        self._sent_content += content
        return out + self._client.chunk(content, ids=ids)

    def _tell_calls(self) -> bytes:
        pieces = []
        for index, call in sorted(self._said.calls.items()):
            sent = self._sent_calls.get(index)
            whole = call.arguments
            more = _missing(sent or "", whole, f"tool call {index}")
            if sent is None and call.name:
                start = {"name": call.name, "arguments": more}
                pieces.append({"index": index, "id": call.call_id, "type": "function", "function": start})
            elif sent is not None and more:
                pieces.append({"index": index, "function": {"arguments": more}})
            else:
                continue
            self._sent_calls[index] = (sent or "") + more
        return self._client.delta({"tool_calls": pieces}) if pieces else b""

    def _pin_call_ids(self) -> None:
        """Calls that began at another site keep their ids."""
        sent = self._record.parsed
        known = self._state.get("last_tool_call_ids") if self._state is not None else None
        if sent is None or not isinstance(known, list):
            return
        for index, call in sent.calls.items():
            if index < len(known) and call.call_id:
                known[index] = call.call_id

    def _end(self) -> bytes:
        """Usage and terminal event, once the site has ended its stream and the client has all of it."""
        if not self._is_done or self._record.finish_reason is None or self.ending is not None:
            return b""
        self.ending = "complete"
        tokens = self._plan.tokens_before + self._tokens_here
        return self._client.usage(self._record.prompt_tokens, tokens) + DONE


def _missing(sent: str, whole: str, what: str) -> str:
    missing = missing_text(sent, whole)
    if missing is None:
        raise ParsersDisagreeError(f"the {what} so far is another one there")
    return missing


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
