"""Continues a chat of which reasoning or tool calls were sent, or in which a tool may be called. Pure.

The new site goes on by token ids (`/v1/completions`), and its own parsers say what all the ids so far mean
(`/v1/chat/completions/derender`, vLLM 0.32 with `--enable-scale-out`): so it works for every model that the
engine has parsers for, and nothing here knows a model's markup. What the client lacks of that is sent.

Used as: `feed` the site's stream; while `question` is not None, ask it and give the answer to `note`; both
return what goes to the client. Ids count as sent once the parsers have told them: a stream that breaks goes
on from there.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from gateway.sse import EventSplitter, EventTooLargeError, data_of
from router.policy.continuation import DONE, ClientStream
from router.policy.parser_talk import (
    MAX_REPLAYED_EVENTS,
    Output,
    chat_request_of,
    question,
    read_answer,
    replayed,
)
from router.policy.resume_plan import Continue, ResumableRequest
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import Ending, is_abort

MAX_UNTOLD_IDS = 1 << 17
"""That may wait for the parsers: minutes of the fastest engine. No client holds up one that sends more."""


class ParsedContinuation:
    """One site's continuation of a stream."""

    def __init__(self, request: ResumableRequest, record: StreamRecord, plan: Continue) -> None:
        self.record = record
        self._plan = plan
        self._client = ClientStream(request, record)
        self._splitter = EventSplitter()
        fields = orjson.loads(request.raw)
        self._chat_request = orjson.dumps(chat_request_of(fields))
        self._model = orjson.dumps(fields.get("model"))
        self._keeps_stop = fields.get("include_stop_str_in_output") is True
        self._so_far = record.listed_ids
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
        self._sent = Output.sent(record)
        self._said = Output()
        self._state: dict[str, Any] | None = None
        events = record.ids_by_event
        self._is_replayed = 0 < len(events) <= MAX_REPLAYED_EVENTS
        self._must_check = self._is_replayed
        if self._is_replayed:
            self._replayed = replayed(record, events)
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
        if isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids):
            self._fresh += ids
            if len(self._fresh) > MAX_UNTOLD_IDS:
                self.ending = "malformed"
                return
        elif ids or choice.get("text"):  # text without ids: nobody can tell what it means
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
        return question(
            model=self._model,
            chat_request=self._chat_request,
            prompt_ids=self.record.prompt_ids or b"",
            ids=raw,
            state=self._state,
            finish=self._finish if self._step == "end" else None,
        )

    def note(self, answer: bytes) -> bytes:
        """The parsers' answer to `question`; returns what the client lacks.

        Raises:
            ValueError: it is not what such an answer is.
            ParsersDisagreeError: it does not go on from what the client has.
        """
        delta, state = read_answer(answer)
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
        if ids and not lacks.has_any:
            self.record.note_silence()
        if not is_end:
            return out
        finish = self._finish
        assert finish is not None
        if finish == "stop" and self._sent.calls:
            finish = "tool_calls"
        return out + self._client.chunk("", finish=finish, stop_reason=self._stop_reason) + self._end()

    def _tell(self, lacks: Output, ids: list[int]) -> bytes:
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
        self._sent = Output.sent(self.record)
        return out

    def _end(self) -> bytes:
        """Usage and terminal event, once the site has ended its stream and the client has all of it."""
        if not self._is_done or not self.is_told or self.ending is not None:
            return b""
        self.ending = "complete"
        tokens = self._plan.tokens_before + self._tokens_here
        return self._client.usage(self.record.prompt_tokens, tokens) + DONE


def _pin_call_ids(state: dict[str, Any], record: StreamRecord) -> None:
    """Calls that began at another site keep their ids."""
    known = state.get("last_tool_call_ids")
    if record.parsed is None or not isinstance(known, list):
        return
    for index, call in record.parsed.calls.items():
        if index < len(known) and call.call_id:
            known[index] = call.call_id
