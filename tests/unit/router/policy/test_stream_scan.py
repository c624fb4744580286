"""Streams as they pass: whole events, ids cut out, the end judged."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import toy_engine
from support.counted_bytes import counted

from gateway.sse import data_of
from router.policy.body import Api
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import (
    ChatStreamScanner,
    Mode,
    cut_field,
)


def body(**changes: Any) -> bytes:
    return orjson.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "stream": True}
        | changes
    )


def scan(scanner: Any, data: bytes, cuts: list[int]) -> bytes:
    """Feed `data` in pieces that end at `cuts`."""
    out, start = b"", 0
    for end in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
        out += scanner.feed(data[start:end])
        start = end
    return out


PATHS = {Api.CHAT: "/v1/chat/completions", Api.COMPLETION: "/v1/completions"}


def streams(api: Api, prompt: str, **changes: Any) -> tuple[bytes, bytes]:
    """The toy's stream without and with ids."""
    raw = body(prompt=prompt, messages=[{"content": prompt}], **changes)
    plain = b"".join(toy_engine.answer(PATHS[api], raw))
    return plain, b"".join(toy_engine.answer(PATHS[api], raw[:-1] + b',"return_token_ids":true}'))


@given(
    st.sampled_from([Api.CHAT, Api.COMPLETION]),
    st.text(min_size=1, max_size=8),
    st.lists(st.integers(0, 20_000), max_size=6),
)
def test_the_cut_stream_is_the_plain_one_wherever_the_pieces_end(
    api: Api, prompt: str, cuts: list[int]
) -> None:
    """Byte for byte what the engine says when nobody asks for ids."""
    plain, with_ids = streams(api, prompt)
    scanner = ChatStreamScanner(api, "ids", cut=True)
    assert scan(scanner, with_ids, cuts) == plain
    assert scanner.ending == "complete"
    record = scanner.record
    ids = orjson.loads(b"[%b]" % record.listed_ids)
    assert record.has_ids
    assert len(ids) == record.output_tokens == 40
    assert orjson.loads(b"[%b]" % record.prompt_ids) == toy_engine.prompt_ids(prompt)
    shown = toy_engine.decode([token for token in ids if token not in toy_engine.HIDDEN])
    assert shown.rstrip("\ufffd") == record.sent_text.rstrip("\ufffd")


@given(st.sampled_from(["ids", "text", "plain"]), st.integers(0, 20_000))
def test_only_whole_events_pass_when_the_stream_is_cut(mode: Mode, cut: int) -> None:
    """Wherever the connection ends."""
    plain, with_ids = streams(Api.CHAT, "hi")
    data = with_ids if mode == "ids" else plain
    scanner = ChatStreamScanner(Api.CHAT, mode, cut=mode == "ids")
    out = scanner.feed(data[: cut % len(data)])
    assert plain.startswith(out)
    assert out == b"" or out.endswith(b"\n\n")
    assert scanner.ending is None


def test_the_text_kept_is_the_text_sent():
    """Escapes and all, in every mode that keeps it."""
    plain, _ = streams(Api.CHAT, "text", max_tokens=150)
    scanner = ChatStreamScanner(Api.CHAT, "text", cut=False)
    out = scanner.feed(plain)
    sent = "".join(
        orjson.loads(payload)["choices"][0]["delta"]["content"]
        for event in out.split(b"\n\n")[:-2]
        if (payload := data_of(event + b"\n\n")) is not None
    )
    assert scanner.record.sent_text == sent
    assert '"' in sent
    assert "\\" in sent


def test_a_client_that_asks_for_ids_gets_them():
    """They are kept and not cut."""
    _, with_ids = streams(Api.CHAT, "hi")
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=False)
    assert scanner.feed(with_ids) == with_ids
    assert scanner.record.has_ids


def chunk(content: str = "x", finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    value = {"id": "1", "choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}]}
    return b"data: " + orjson.dumps(value | more) + b"\n\n"


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("mode", ["ids", "text", "plain"])
@pytest.mark.parametrize(
    ("delta", "begins"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None, "tool_calls": [], "reasoning": None}, False),
        ({}, False),
        ({"content": "x"}, True),
        ({"role": "assistant", "content": "x"}, True),
        ({"reasoning_content": "hm"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"of_some_engine": "x"}, True),
    ],
)
def test_a_stream_begins_with_its_first_output(mode: Mode, delta: dict[str, Any], begins: bool):
    """A role is none, nor are ids whose text is hidden: until then another site may be asked."""
    scanner = ChatStreamScanner(Api.CHAT, mode, cut=mode == "ids")
    choice = {"index": 0, "delta": delta, "finish_reason": None, "token_ids": [7]}
    scanner.feed(b"data: " + orjson.dumps({"id": "1", "choices": [choice]}) + b"\n\n")
    assert scanner.has_begun == begins
    scanner.feed(chunk("", "stop"))
    assert scanner.has_begun


@pytest.mark.parametrize("mode", ["ids", "text", "plain"])
def test_a_completion_begins_with_its_first_event(mode: Mode):
    """It has nothing but text."""
    scanner = ChatStreamScanner(Api.COMPLETION, mode, cut=mode == "ids")
    scanner.feed(b'data: {"choices":[{"index":0,"text":"","token_ids":[1],"finish_reason":null}]}\n\n')
    assert scanner.has_begun


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        (chunk("", "stop") + DONE, "complete"),
        (chunk("", "length") + DONE, "complete"),
        (DONE, "no_finish"),
        (chunk("", "abort") + DONE, "aborted"),
        (chunk("", "error") + DONE, "aborted"),
        (b'data: {"error": {"code": 500}}\n\n' + DONE, "error_event"),
        (b"data: {broken\n\n", "malformed"),
        (b"data: 5\n\n", "malformed"),
        (chunk("", "stop"), None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("mode", ["ids", "text", "plain"])
def test_endings(mode: Mode, last: bytes, ending: str | None):
    """A `[DONE]` does not prove a whole answer."""
    scanner = ChatStreamScanner(Api.CHAT, mode, cut=False)
    out = scanner.feed(chunk("a") + chunk("b") + last)
    assert scanner.ending == ending
    assert out.startswith(chunk("a") + chunk("b"))
    if ending not in ("complete", None):
        assert out == chunk("a") + chunk("b"), "what breaks the stream is not passed on"
        assert scanner.feed(chunk("late")) == b""


USAGE = (
    b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}\n\n'
)


@pytest.mark.parametrize("mode", ["ids", "text", "plain"])
def test_the_usage_of_an_engine_that_gives_up_is_not_passed_on(mode: Mode):
    """Told to stop before the first token, it says: role, no tokens were used, the end."""
    scanner = ChatStreamScanner(Api.CHAT, mode, cut=False)
    role = chunk("", role="assistant")
    assert scanner.feed(role + USAGE + DONE) == role
    assert scanner.ending == "no_finish"
    assert not scanner.record.usage_sent


@pytest.mark.parametrize("mode", ["ids", "text", "plain"])
def test_a_usage_before_the_finish_comes_after_it(mode: Mode):
    """Nothing is lost of an engine that is whole and has another order."""
    scanner = ChatStreamScanner(Api.CHAT, mode, cut=False)
    out = scanner.feed(chunk("a") + USAGE + chunk("b") + chunk("", "stop") + DONE)
    assert out == chunk("a") + chunk("b") + chunk("", "stop") + USAGE + DONE
    assert scanner.ending == "complete"


def test_all_choices_must_finish():
    """n = 2: one finish is not the end."""
    scanner = ChatStreamScanner(Api.CHAT, "plain", cut=False, choices=2)
    scanner.feed(chunk("a") + chunk("", "stop") + DONE)
    assert scanner.ending == "no_finish"
    scanner = ChatStreamScanner(Api.CHAT, "plain", cut=False, choices=2)
    scanner.feed(chunk("a") + chunk("", "stop") + chunk("", "stop", 1) + DONE)
    assert scanner.ending == "complete"


def test_comments_pass_and_are_no_progress():
    """A keep-alive of a hung engine must not reset the stall timer."""
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    assert scanner.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert scanner.events == 0
    scanner.feed(chunk())
    assert scanner.events == 1


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "tool_calls"])
def test_output_of_another_kind_is_noted(name: str):
    """Before or after plain text."""
    value = {"choices": [{"index": 0, "delta": {name: "…"}, "finish_reason": None}]}
    event = b"data: " + orjson.dumps(value) + b"\n\n"
    for data in (event, chunk() + chunk() + event):
        scanner = ChatStreamScanner(Api.CHAT, "text", cut=False)
        scanner.feed(data)
        assert scanner.record.parsed is not None
        assert scanner.record.has_other_output == (name == "tool_calls"), "its pieces are a list"


def test_an_engine_that_ignores_the_wish_for_ids_is_continued_by_text():
    """Text without ids is noted."""
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    scanner.feed(chunk("a") + chunk("b") + chunk("c"))
    assert scanner.record.has_missing_ids
    assert not scanner.record.has_ids
    assert (scanner.record.sent_text, scanner.record.output_tokens) == ("abc", 3)


def test_an_engine_with_spaces_in_its_json_and_crlf_is_understood():
    """Slower, but the same."""
    data = (
        b'data: {"id": "1", "prompt_token_ids": [7, 8], "choices": [{"index": 0, '
        b'"delta": {"role": "assistant", "content": ""}, "finish_reason": null, "token_ids": null}]}'
        b"\r\n\r\n"
        b'data: {"id": "1", "choices": [{"index": 0, "token_ids": [1, 2], '
        b'"delta": {"content": "a\\"b"}, "finish_reason": null}]}'
        b"\r\n\r\n"
        b'data: {"id": "1", "choices": [{"delta": {"content": "c"}, "finish_reason": "stop", '
        b'"token_ids": [3]}]}'
        b"\r\n\r\n"
        b"data: [DONE]\r\n\r\n"
    )
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    out = scanner.feed(data)
    assert b"token_ids" not in out
    for event in out.split(b"\r\n\r\n")[:-2]:
        orjson.loads(event.removeprefix(b"data: "))
    assert scanner.ending == "complete"
    assert (scanner.record.sent_text, scanner.record.output_tokens) == ('a"bc', 3)


def test_null_ids_in_every_event_do_not_reach_the_client():
    """Some engines write `"prompt_token_ids":null` throughout."""
    event = (
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null,"token_ids":[5]}],'
        b'"prompt_token_ids":null}\n\n'
    )
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    for _ in range(3):
        assert b"token_ids" not in scanner.feed(event)
    assert bytes(scanner.record.ids) == b"5, 5, 5, "


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_what_came_with_nothing_for_the_client_can_be_begun_anew(field: str):
    """Ids up to the last event that told something stay."""

    def event(delta: dict[str, Any], *ids: int) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None, "token_ids": ids}
        return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"

    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    for data in (
        event({field: "a"}, 1),
        event({field: "b"}, 2, 3),
        event({}, 4),
        event({field: "c"}, 5),
        event({}, 6, 7),
        event({field: ""}, 8),
        event({}, 9),
    ):
        scanner.feed(data)
    record = scanner.record
    assert orjson.loads(b"[%b]" % record.listed_ids) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (record.ids_by_event, record.is_readable) == ([1, 2, 1, 1, 2, 1, 1], True)
    record.take_back_untold_ids()
    assert orjson.loads(b"[%b]" % record.listed_ids) == [1, 2, 3, 4, 5]
    record.take_back_untold_ids()
    assert (record.output_tokens, record.ids_by_event) == (5, [1, 2, 1, 1])


def test_of_an_answer_that_told_nothing_all_is_begun_anew():
    """Its ids mean nothing to anybody."""
    record = StreamRecord()
    record.add_ids(b"1,2")
    record.note_silence()
    record.take_back_untold_ids()
    assert (record.listed_ids, record.output_tokens) == (b"", 0)


def test_a_text_that_looks_like_a_field_is_text():
    """Its quotes are escaped."""
    content = ',"token_ids":[1],"finish_reason":"stop"'
    value = {
        "choices": [{"delta": {"content": content}, "finish_reason": None, "token_ids": [9]}],
    }
    event = b"data: " + orjson.dumps(value) + b"\n\n"
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    out = b"".join(scanner.feed(event) for _ in range(3))
    assert out.count(rb"\"token_ids\":[1]") == 3
    assert bytes(scanner.record.ids) == b"9, 9, 9, "
    assert scanner.record.sent_text == content * 3


def test_an_event_without_end_is_bounded():
    """Memory is not the site's to fill."""
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    for _ in range(10):
        scanner.feed(b"data: " + b"x" * (1 << 20))
    assert scanner.ending == "malformed"


KEY = b'"token_ids"'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"a":1,"token_ids":[1,2]}', b'{"a":1}'),
        (b'{"token_ids":[1,2],"a":1}', b'{"a":1}'),
        (b'{"token_ids":null,"a":1}', b'{"a":1}'),
        (b'{"token_ids":[]}', b"{}"),
        (b'{"a": 1 , "token_ids" : [1, 2] , "b": 2}', b'{"a": 1  , "b": 2}'),
        (b'{"x":[{"token_ids":[1]},{"token_ids":[2]}]}', b'{"x":[{},{}]}'),
        (b'{"token_ids":"text"}', b'{"token_ids":"text"}'),
        (b'{"a":"\\"token_ids\\":[1]"}', b'{"a":"\\"token_ids\\":[1]"}'),
        (b'{"a":"token_ids"}', b'{"a":"token_ids"}'),
        (b'{"token_ids":[1], "token_ids" : null, "a":1}', b'{"a":1}'),
        (b'{ "token_ids":[1] ,"token_ids":[2]}', b"{ }"),
        (b'{"a":1, "token_ids":[1],"token_ids":[2]}', b'{"a":1}'),
        (b'{"a":1, "token_ids":"","token_ids":[2]}', b'{"a":1,"token_ids":""}'),
    ],
)
def test_cutting_a_field(before: bytes, after: bytes):
    """With one comma, wherever it stands; values of another kind stay."""
    cut = cut_field(before, KEY)
    assert orjson.loads(cut) == orjson.loads(after)
    assert cut.replace(b" ", b"") == after.replace(b" ", b"")


@pytest.mark.parametrize("value", [b"[]", b"[1,2]", b"null", b'"text"', b"  {}"])
def test_a_field_that_comes_many_times_is_cut_in_one_pass(value: bytes):
    """A site must not stop the router with it: each time, only what is new is looked at and copied."""
    event = counted(b'data: {"choices":[],' + b'"token_ids" :%b,' % value * 5000 + b'"a":1}\n\n')
    is_cut = value in (b"[]", b"[1,2]", b"null")
    cut = cut_field(event, KEY)
    assert cut == (b'data: {"choices":[],"a":1}\n\n' if is_cut else event)
    assert event.work.calls >= 5000
    assert event.work.size_bytes <= 8 * len(event)


def test_a_list_without_its_end_is_looked_for_once():
    """Beside its data an event may have a line that is no JSON."""
    event = counted(b"data: {}\nid: " + b'"token_ids":[' * 5000 + b"\n\n")
    assert cut_field(event, KEY) == event
    assert event.work.size_bytes <= 8 * len(event)


@given(st.text('\\"n a', max_size=20))
def test_a_text_of_quotes_and_backslashes_is_kept_as_it_is(text: str):
    """The end of a JSON string is the first quote that is not escaped."""
    scanner = ChatStreamScanner(Api.CHAT, "text", cut=False)
    for content in ("first", text):
        event = {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}
        scanner.feed(b"data: %b\n\n" % orjson.dumps(event))
    assert scanner.ending is None
    assert scanner.record.sent_text == "first" + text


def call_piece(arguments: str) -> list[dict[str, Any]]:
    return [{"index": 0, "function": {"arguments": arguments}}]


PIECE = st.text(alphabet=st.sampled_from(list('ab "\\\n{}[]é😀,:')), min_size=1, max_size=6)
DELTAS = st.one_of(
    st.fixed_dictionaries({"content": PIECE}),
    st.fixed_dictionaries({"reasoning": PIECE}),
    st.fixed_dictionaries({"reasoning": PIECE, "content": PIECE}),
    st.fixed_dictionaries({"content": PIECE, "reasoning": PIECE}),
    st.fixed_dictionaries({"reasoning": PIECE, "reasoning_content": PIECE}),
    st.fixed_dictionaries({"content": PIECE, "tool_calls": st.none()}),
    st.just({}),
    st.fixed_dictionaries({"tool_calls": PIECE.map(call_piece)}),
    st.fixed_dictionaries({"content": PIECE, "tool_calls": PIECE.map(call_piece)}),
)


@given(st.lists(st.tuples(DELTAS, st.lists(st.integers(0, 9), min_size=1, max_size=3)), max_size=12))
def test_reasoning_and_calls_are_noted_however_events_mix_them(
    said: list[tuple[dict[str, Any], list[int]]],
) -> None:
    """By byte search or by parsing: the same record, and the events without their ids."""
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    scanner.feed(b"data: " + orjson.dumps({**head, "choices": [first], "prompt_token_ids": [1]}) + b"\n\n")
    text = reasoning = arguments = ""
    all_ids: list[int] = []
    for delta, ids in said:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        out = scanner.feed(
            b"data: " + orjson.dumps({**head, "choices": [{**choice, "token_ids": ids}]}) + b"\n\n"
        )
        assert orjson.loads(out.removeprefix(b"data: ")) == {**head, "choices": [choice]}
        text += delta.get("content") or ""
        reasoning += delta.get("reasoning") or ""
        for piece in delta.get("tool_calls") or ():
            arguments += piece["function"]["arguments"]
        all_ids += ids
    record = scanner.record
    assert record.is_readable
    assert record.sent_text == text
    assert orjson.loads(b"[%b]" % record.listed_ids) == all_ids
    assert (record.parsed.reasoning if record.parsed else "") == reasoning
    assert (record.parsed.calls[0].arguments if record.parsed and record.parsed.calls else "") == arguments
    assert not record.has_other_output
    assert scanner.events == len(said) + 1


def test_reasoning_that_is_no_json_is_not_continued() -> None:
    """Events pass unread; when the stream breaks it shows."""
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    event = (
        b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":"%b"},"finish_reason":null,'
        b'"token_ids":[1]}]}\n\n'
    )
    scanner.feed(event % b"fine")
    scanner.feed(event % b"\\x")
    assert not scanner.record.is_readable
