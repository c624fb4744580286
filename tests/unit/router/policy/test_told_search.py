"""How much of an event told what it told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from support import toy_engine

from router.policy.body import Api
from router.policy.parser_talk import ParsersDisagreeError
from router.policy.resumable import resumability
from router.policy.resume_plan import ResumableRequest
from router.policy.stream_record import StreamRecord
from router.policy.told_search import ToldSearch

FIELDS: dict[str, Any] = {
    "model": "m",
    "messages": [],
    "chat_template_kwargs": {"thinks": True},
    "response_format": {"type": "json_object"},
}
A, BEE, END, NEW_LINE, HALF = 0, 1, 2, 5, 12
"""Ids of the toy engine: what is told, the end of its reasoning, half a character."""


def search(*events: list[int]) -> tuple[ToldSearch, StreamRecord]:
    record = StreamRecord()
    record.prompt_ids = b"101"
    for ids in events:
        record.add_ids(orjson.dumps(ids)[1:-1])
    request = ResumableRequest(
        api=Api.CHAT,
        raw=orjson.dumps(FIELDS),
        resumability=resumability(Api.CHAT, FIELDS),
        include_usage=False,
        asks_token_ids=False,
    )
    return ToldSearch(request, record), record


def answered(found: ToldSearch) -> int:
    """Asks the toy engine's parser; how often."""
    questions = 0
    while (body := found.question) is not None:
        found.note(toy_engine.derender(body))
        questions += 1
    return questions


@pytest.mark.parametrize(
    ("events", "count"),
    [
        ([[A], [BEE]], 1),
        ([[A], [BEE, END]], 2),
        ([[A], [BEE, NEW_LINE]], 1),
        ([[BEE, NEW_LINE]], 1),
        ([[A], [A, BEE, HALF]], 2),
        ([[A], [BEE, A, END, BEE, NEW_LINE]], 4),
        ([*[[A]] * 1030, [BEE, A, NEW_LINE]], 2),
    ],
)
def test_the_rest_of_an_event_is_what_told_nothing(events: list[list[int]], count: int):
    """The toy engine's reasoning ends with a line break, which itself is told to nobody."""
    found, record = search(*events)
    assert answered(found) <= 1 + len(events[-1])
    assert found.count == count
    record.shorten_last_event(found.count)
    assert record.ids_by_event == [*map(len, events[:-1]), count]
    kept = [*events[:-1], events[-1][:count]]
    assert orjson.loads(b"[%b]" % record.listed_ids) == [one for ids in kept for one in ids]


def test_few_questions_are_asked():
    """It bisects; an event of one id needs none."""
    found, _ = search([A], [A] * 40 + [NEW_LINE])
    assert answered(found) <= 7
    assert found.count == 40
    assert answered(search([A], [NEW_LINE])[0]) == 0


def test_where_the_event_tells_nothing_there_the_parsers_disagree():
    """It told the client something."""
    found, _ = search([A], [NEW_LINE, HALF])
    with pytest.raises(ParsersDisagreeError):
        answered(found)


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"stream_state":{},"chunk":{"choices":5}}'])
def test_nonsense_is_an_error(answer: bytes):
    """The site's."""
    found, _ = search([A], [A, BEE])
    with pytest.raises(ParsersDisagreeError):
        found.note(answer)
