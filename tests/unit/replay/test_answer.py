"""replay.answer: the same stream gives the same reading, however it is cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import EventTooLargeError
from replay.answer import AnswerReader, StatedError, stated_error, usage_of

ROLE = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},'
    b'"finish_reason":null}]}\n\n'
)
ONE = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"alpha"},"finish_reason":null}]}\n\n'
TWO = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":" beta"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
FINISH = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = ROLE + ONE + TWO + FINISH + USAGE + DONE


def reader(*pieces: bytes) -> AnswerReader:
    answer = AnswerReader(is_collecting=True)
    for number, piece in enumerate(pieces):
        answer.feed(piece, 10.0 + number)
    return answer


def test_a_whole_chat_stream() -> None:
    """Text, times of first and last token, usage and end."""
    gaps: list[float] = []
    answer = AnswerReader(on_gap=gaps.append, is_collecting=True)
    for at, piece in ((1.0, ROLE), (1.5, ONE), (1.75, TWO), (2.0, FINISH + USAGE + DONE)):
        answer.feed(piece, at)
    assert answer.is_complete
    assert answer.text == "alpha beta"
    assert (answer.first_token_at, answer.last_token_at, gaps) == (1.5, 1.75, [0.25])
    assert (answer.token_events, answer.usage, answer.finish_reason) == (2, (7, 2), "length")
    assert answer.fault is None


def test_a_completion_stream() -> None:
    """`text` instead of `delta`; vLLM's null usage is none."""
    answer = reader(
        b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"index":0,"text":" b","finish_reason":"stop"}],"usage":null}\n\n',
        DONE,
    )
    assert answer.is_complete
    assert answer.text == "a b"
    assert answer.token_events == 2
    assert answer.usage is None


@given(st.lists(st.integers(min_value=1, max_value=len(WHOLE) - 1), max_size=12), st.booleans())
def test_pieces_do_not_matter(cuts: list[int], is_windows: bool) -> None:
    """Cut anywhere, also inside an event, with either line end."""
    stream = WHOLE.replace(b"\n", b"\r\n") if is_windows else WHOLE
    edges = [0, *sorted(cuts), len(stream)]
    answer = reader(*(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert answer.is_complete
    assert (answer.text, answer.token_events, answer.usage) == ("alpha beta", 2, (7, 2))
    assert answer.fault is None


def test_escapes_and_spaced_json_are_read() -> None:
    """What the byte search cannot settle is parsed: quotes, newlines, other servers' spacing, reasoning."""
    answer = reader(
        b'data: {"choices":[{"delta":{"content":"say \\"hi\\"\\n"},"finish_reason":null}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "x\\u00e9"}, "finish_reason": null}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"},"finish_reason":null}]}\n\n',
    )
    assert answer.text == 'say "hi"\nxéhm'
    assert answer.token_events == 3


def test_text_that_looks_like_a_field_is_text() -> None:
    """An error or a finish inside the text is escaped, and stays text."""
    answer = reader(
        b'data: {"choices":[{"delta":{"content":"{\\"error\\":1,\\"finish_reason\\":\\"stop\\"}"},'
        b'"finish_reason":null}]}\n\n'
    )
    assert answer.error is None
    assert answer.finish_reason is None
    assert answer.text == '{"error":1,"finish_reason":"stop"}'


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_done_does_not_prove_a_whole_answer(reason: str) -> None:
    """A stopping engine says `abort` and a clean [DONE]."""
    answer = reader(ONE, FINISH.replace(b"length", reason.encode()), DONE)
    assert answer.is_done
    assert not answer.is_complete


@pytest.mark.parametrize("missing", [FINISH, DONE])
def test_both_ends_are_needed(missing: bytes) -> None:
    """A finish reason and [DONE]."""
    assert not reader(WHOLE.replace(missing, b"")).is_complete


def test_errors_in_the_stream() -> None:
    """First or later, with a numeric or a text code, and never complete after it."""
    first = reader(b": keep-alive\n\n", b'data: {"error":{"message":"m","code":503}}\n\n', DONE)
    assert first.error == StatedError(code="503", message="m", is_first=True)
    later = reader(ROLE, b'data: {"error":{"message":"m","type":"server_error","code":"power_lost"}}\n\n')
    assert later.error == StatedError(code="power_lost", message="m", is_first=False)
    after = reader(ONE, FINISH, b'data: {"error":{"message":"m"}}\n\n', DONE)
    assert after.is_done
    assert not after.is_complete


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (b"data: {not json\n\n", "not JSON"),
        (b"data: [1]\n\n", "not an object"),
        (DONE + ONE, "text after"),
        (DONE + USAGE, "event after"),
    ],
)
def test_malformed_streams_are_faults(event: bytes, fault: str) -> None:
    """They are noted, not raised: the stream is read on."""
    answer = reader(ONE, event)
    assert answer.fault is not None
    assert fault in answer.fault
    assert answer.text == "alpha"


def test_comments_and_other_fields_are_nothing() -> None:
    """Keep-alives do not count as events."""
    answer = reader(b": keep-alive\n\n", b"event: x\nid: 1\n\n", b"retry: 5\n\n")
    assert (answer.events, answer.fault) == (0, None)


def test_odd_shapes_do_not_crash() -> None:
    """Choices, deltas and usages of wrong types are passed over."""
    answer = reader(
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[3,{"delta":[1]},{"delta":{"content":4},"finish_reason":7}]}\n\n',
        b'data: {"usage":{"prompt_tokens":"x"}}\n\n',
    )
    assert (answer.token_events, answer.finish_reason, answer.usage) == (0, None, None)


def test_an_endless_event_is_refused() -> None:
    """More than the splitter's limit without an end."""
    answer = AnswerReader()
    for _ in range(8):
        answer.feed(b"x" * (1 << 20), 1.0)
    with pytest.raises(EventTooLargeError):
        answer.feed(b"x", 1.0)


def test_whole_answers() -> None:
    """Not streamed: one JSON object."""
    answer = AnswerReader(is_collecting=True)
    answer.take_whole(
        b'{"choices":[{"message":{"role":"assistant","content":"alpha beta"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        5.0,
    )
    assert answer.is_complete
    assert (answer.text, answer.usage, answer.first_token_at) == ("alpha beta", (3, 2), 5.0)


def test_whole_answers_that_are_none() -> None:
    """An aborted one, an error in a 200, and no JSON at all."""
    aborted, failed, garbage = AnswerReader(), AnswerReader(), AnswerReader()
    aborted.take_whole(b'{"choices":[{"message":{"content":"a"},"finish_reason":"abort"}]}', 1.0)
    failed.take_whole(b'{"error":{"message":"m","code":"c"}}', 1.0)
    garbage.take_whole(b"<html>", 1.0)
    assert not aborted.is_complete
    assert failed.error == StatedError(code="c", message="m", is_first=True)
    assert garbage.fault is not None
    assert not garbage.is_complete


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ({"error": {"message": "m", "type": "t", "code": None}}, "t", "m"),
        ({"error": "Unauthorized"}, "", "Unauthorized"),
        (None, "", "None"),
        ([1], "", "None"),
    ],
)
def test_stated_errors_of_any_shape(value: object, code: str, message: str) -> None:
    """OpenAI's, vLLM's bare text, and none."""
    assert stated_error(value, is_first=True) == StatedError(code=code, message=message, is_first=True)


def test_usage_needs_both_numbers() -> None:
    """Half a usage is none."""
    assert usage_of({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}) == (1, 2)
    assert usage_of({"usage": {"prompt_tokens": 1}}) is None
    assert usage_of({"usage": None}) is None
