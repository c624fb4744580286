"""How many ids of an answer's last event were needed to tell what it told. Pure.

The rest may be what a grammar has begun: a new one must not begin behind it. The new site's parsers are asked
what smaller and smaller parts of the event mean. Used as `StopSearch`: while `question` is not None, ask it
and give the answer to `note`; then `count` of its ids are kept.
"""

from __future__ import annotations

import orjson

from router.policy.parser_talk import (
    MAX_REPLAYED_EVENTS,
    Output,
    ParsersDisagreeError,
    chat_request_of,
    question,
    read_answer,
    replayed,
)
from router.policy.resume_plan import ResumableRequest
from router.policy.stream_record import StreamRecord


class ToldSearch:
    """Bisects; nothing is asked of an event with one id."""

    def __init__(self, request: ResumableRequest, record: StreamRecord) -> None:
        *before, last = record.ids_by_event
        ids = orjson.loads(b"[%b]" % record.listed_ids)
        fields = orjson.loads(request.raw)
        self._model = orjson.dumps(fields.get("model"))
        self._chat_request = orjson.dumps(chat_request_of(fields))
        self._prompt_ids = record.prompt_ids or b""
        is_replayed = len(before) <= MAX_REPLAYED_EVENTS
        self._state = replayed(record, before) if before and is_replayed else None
        self._before: list[int] = [] if self._state is not None else ids[:-last]
        self._ids: list[int] = ids[-last:]
        self._told: Output | None = None
        """By all of the event; None: that was not asked yet."""
        self._least, self.count = 1, last
        self._asked = 0

    @property
    def question(self) -> bytes | None:
        """The body for `/v1/chat/completions/derender`; None: `count` is known."""
        if self._least == self.count:
            return None
        self._asked = self.count if self._told is None else (self._least + self.count) // 2
        ids = orjson.dumps([*self._before, *self._ids[: self._asked]])[1:-1]
        return question(
            model=self._model,
            chat_request=self._chat_request,
            prompt_ids=self._prompt_ids,
            ids=ids,
            state=self._state,
        )

    def note(self, answer: bytes) -> None:
        """The parsers' answer to `question`.

        Raises:
            ParsersDisagreeError: it is no such answer, or to them the event tells nothing.
        """
        said = Output()
        try:
            said.add(read_answer(answer)[0])
        except ValueError as error:
            raise ParsersDisagreeError(str(error)) from error
        if self._told is None:
            if not said.has_any:
                raise ParsersDisagreeError("the last event tells nothing there")
            self._told = said
        elif said.tells(self._told):
            self.count = self._asked
        else:
            self._least = self._asked + 1
