"""A chat with reasoning and tool calls that breaks anywhere is to its client the one that never broke."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import toy_engine

from router.policy import parsed_continuation as module
from router.policy.body import Api
from router.policy.continuation import ClientStream
from router.policy.parsed_continuation import ParsedContinuation
from router.policy.parser_talk import ParsersDisagreeError
from router.policy.resumable import resumability
from router.policy.resume_plan import Continue, Finish, Refuse, ResumableRequest, ResumePlan, plan_resume
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import ChatStreamScanner

CHAT = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "write"}}]


class Result:
    """What a client makes of a stream."""

    def __init__(self, data: bytes) -> None:
        assert data.endswith(b"data: [DONE]\n\n")
        assert data.count(b"[DONE]") == 1
        self.text = self.reasoning = ""
        self.roles = 0
        self.calls: dict[int, list[str]] = {}
        self.call_ids: dict[int, set[str]] = {}
        self.ids: list[int] = []
        self.finish: list[str] = []
        self.usage: list[dict[str, int]] = []
        self.heads = set()
        for event in data.split(b"\n\n")[:-2]:
            value = orjson.loads(event.removeprefix(b"data: "))
            self.heads.add((value["id"], value["object"], value["created"], value["model"]))
            self.usage += [value["usage"]] if value.get("usage") else []
            for choice in value["choices"]:
                delta = choice["delta"]
                self.roles += "role" in delta
                self.text += delta.get("content") or ""
                self.reasoning += delta.get("reasoning") or ""
                for piece in delta.get("tool_calls") or ():
                    name, arguments = self.calls.setdefault(piece["index"], ["", ""])
                    function = piece["function"]
                    self.calls[piece["index"]] = [
                        name + function.get("name", ""),
                        arguments + function["arguments"],
                    ]
                    if "id" in piece:
                        assert piece["type"] == "function"
                        self.call_ids.setdefault(piece["index"], set()).add(piece["id"])
                self.ids += choice.get("token_ids") or []
                self.finish += [choice["finish_reason"]] if choice["finish_reason"] else []


def request_of(fields: dict[str, Any]) -> ResumableRequest:
    return ResumableRequest(
        api=Api.CHAT,
        raw=orjson.dumps(fields),
        resumability=resumability(Api.CHAT, fields),
        include_usage=bool(fields.get("stream_options", {}).get("include_usage")),
        asks_token_ids=fields.get("return_token_ids") is True,
    )


def plan_of(request: ResumableRequest, record: StreamRecord, *, parses: bool = True) -> ResumePlan:
    return plan_resume(
        request,
        record,
        site_takes_ids=True,
        site_parses_ids=parses,
        first_max_model_len=toy_engine.MAX_MODEL_LEN,
        max_model_len=toy_engine.MAX_MODEL_LEN,
    )


def fields_of(prompt: str = "hi", **changes: Any) -> dict[str, Any]:
    base = {"model": "m", "stream": True, "max_tokens": 60, "temperature": 0, "tools": TOOLS}
    return base | {"messages": [{"role": "user", "content": prompt}]} | changes


def broken(fields: dict[str, Any], cut: int) -> tuple[ResumableRequest, ChatStreamScanner, bytes]:
    """What the first site's stream leaves behind, once the client has any of it."""
    request = request_of(fields)
    asks = request.asks_token_ids
    raw = request.raw if asks else request.raw[:-1] + b',"return_token_ids":true}'
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=not asks)
    out = b""
    left = cut
    for event in toy_engine.answer(CHAT, raw):
        out += scanner.feed(event if not scanner.has_begun else event[: max(0, left)])
        left -= len(event)
    return request, scanner, out


def goes_on(
    request: ResumableRequest, record: StreamRecord, cut: int, rng: random.Random
) -> tuple[bytes, Any]:
    """One site's continuation: its bytes come in pieces, and questions are asked in between."""
    plan = plan_of(request, record)
    if isinstance(plan, Finish):
        return ClientStream(request, record).close(plan.finish_reason), "complete"
    assert isinstance(plan, Continue)
    assert plan.method == "parsed"
    continuation = ParsedContinuation(request, record, plan)
    data = b"".join(toy_engine.answer(plan.path, plan.body, tokens_an_event=rng.choice([1, 1, 4])))[:cut]
    out = b""
    while data and not continuation.is_over:
        size = rng.choice([10, 300, 2000])
        out += continuation.feed(data[:size])
        data = data[size:]
        if rng.random() < 0.7 and (question := continuation.question) is not None:
            out += continuation.note(toy_engine.derender(question))
    while continuation.has_finished and (question := continuation.question) is not None:
        out += continuation.note(toy_engine.derender(question))
    return out, continuation.ending


@given(
    st.text(min_size=1, max_size=6),
    st.lists(st.integers(1, 12_000), min_size=1, max_size=5),
    st.sampled_from([{}, {"tools": []}]),
    st.booleans(),
    st.integers(0, 1 << 30),
    st.sampled_from([1024, 5]),
)
def test_it_is_exact_wherever_it_breaks(
    prompt: str, cuts: list[int], tools: dict[str, Any], thinks: bool, seed: int, most_replayed: int
) -> None:
    """Reasoning, text, each call's name, arguments and one id; one role, one finish, one usage, one end."""
    fields = fields_of(prompt, stream_options={"include_usage": True}, **tools)
    if thinks:
        fields["chat_template_kwargs"] = {"thinks": True}
    rng = random.Random(seed)
    request, scanner, out = broken(fields, cuts[0])
    ending: Any = scanner.ending
    if not (thinks or fields["tools"]):
        return
    if scanner.record.parsed is None and not fields["tools"]:
        return  # nothing but text so far: test_continuation's
    with mock.patch.object(module, "MAX_REPLAYED_EVENTS", most_replayed):
        for cut in [*cuts[1:], 1 << 30]:
            if ending == "complete":
                break
            more, ending = goes_on(request, scanner.record, cut, rng)
            out += more
    whole, resumed = Result(b"".join(toy_engine.answer(CHAT, request.raw))), Result(out)
    assert all(len(ids) == 1 for ids in resumed.call_ids.values())
    assert resumed.call_ids.keys() == whole.call_ids.keys()
    whole.call_ids = resumed.call_ids = {}
    assert vars(resumed) == vars(whole)


def thinking() -> dict[str, Any]:
    """Its answer has reasoning from the first token on."""
    return fields_of("think", tools=[], chat_template_kwargs={"thinks": True})


def begun(cut: int = 3000, **changes: Any) -> tuple[ResumableRequest, StreamRecord, ParsedContinuation]:
    request, scanner, _ = broken(fields_of(**changes), cut)
    plan = plan_of(request, scanner.record)
    assert isinstance(plan, Continue)
    return request, scanner.record, ParsedContinuation(request, scanner.record, plan)


def event(**choice: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}) + b"\n\n"


def answer(delta: dict[str, Any], **state: Any) -> bytes:
    return orjson.dumps({"chunk": {"choices": [{"index": 0, "delta": delta}]}, "stream_state": state})


def checked(record: StreamRecord, continuation: ParsedContinuation) -> None:
    """The parsers have shown that they are the same."""
    assert continuation.question is not None
    parsed = record.parsed
    calls = (
        []
        if parsed is None
        else [
            {"index": i, "id": "another", "function": {"name": call.name, "arguments": call.arguments}}
            for i, call in parsed.calls.items()
        ]
    )
    said = {"content": record.sent_text, "tool_calls": calls}
    said |= {"reasoning": parsed.reasoning} if parsed is not None else {}
    assert continuation.note(answer(said)) == b""


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (b'data: {"error": {"message": "dead", "code": 500}}\n\n', "error_event"),
        (event(finish_reason="abort", token_ids=[1]), "aborted"),
        (b"data: nonsense\n\n", "malformed"),
        (b"data: 5\n\n", "malformed"),
        (b'data: {"choices": [5]}\n\n', "malformed"),
        (event(index=1, token_ids=[1]), "malformed"),
        (event(text="words", token_ids=None), "malformed"),
        (event(text="words", token_ids=["a"]), "malformed"),
        (event(token_ids=[-1], finish_reason="stop"), "malformed"),
        (event(token_ids=[True]), "malformed"),
        (event(token_ids=[1] * (module.MAX_UNTOLD_IDS + 1)), "malformed"),
        (event(token_ids=[1], finish_reason="stop") + event(token_ids=[2]), "malformed"),
        (b"data: [DONE]\n\n", "no_finish"),
        (b"data: " + b"x" * (17 << 20), "malformed"),
    ],
)
def test_a_continuation_may_break_as_any_stream(data: bytes, ending: str) -> None:
    """And then says nothing more, and asks nothing."""
    _, _, continuation = begun()
    assert continuation.feed(data) == b""
    assert (continuation.ending, continuation.question) == (ending, None)
    assert continuation.feed(event(token_ids=[1])) == b""


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"5",
        b"{}",
        b'{"chunk": {}, "stream_state": {}}',
        b'{"chunk": {"choices": []}, "stream_state": 5}',
        answer({"reasoning": 5}),
        answer({"tool_calls": 5}),
        answer({"tool_calls": [{"index": -1}]}),
        answer({"tool_calls": [{"index": 0, "function": {"arguments": 5}}]}),
        answer({"tool_calls": [{"index": 0, "function": []}]}),
        answer({"tool_calls": [{"index": 0, "id": []}]}),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_parsers_that_speak_nonsense(nonsense: bytes, is_first: bool) -> None:
    """It is said, and nothing is sent, nor noted as sent."""
    _, record, continuation = begun()
    before = record.output_tokens, record.sent_text
    continuation.feed(event(token_ids=[1]))
    if not is_first:
        checked(record, continuation)
    assert continuation.question is not None
    with pytest.raises(ValueError):  # noqa: PT011 -- each in its own words
        continuation.note(nonsense)
    assert (record.finish_reason, continuation.tokens) == (None, 0)
    assert (record.output_tokens, record.sent_text) == before


@pytest.mark.parametrize(
    ("delta", "word"),
    [
        ({"content": "nothing of the kind"}, "text"),
        ({"reasoning": "nothing of the kind"}, "reasoning"),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "nothing"}}]}, "tool call 0"),
    ],
)
def test_parsers_that_say_something_else_than_the_client_has(delta: dict[str, Any], word: str) -> None:
    """Another model, or another parser: what the client has cannot be taken back."""
    _, record, continuation = begun()
    record.add_parsed({"reasoning": "so"})
    record.add_parsed({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]})
    request, _, _ = begun()
    plan = plan_of(request, record)
    assert isinstance(plan, Continue)
    continuation = ParsedContinuation(request, record, plan)
    continuation.feed(event(token_ids=[1]))
    assert continuation.question is not None
    with pytest.raises(ParsersDisagreeError, match=word):
        continuation.note(answer(delta))


def test_parsers_that_see_no_reasoning_are_not_the_same() -> None:
    """They would pass the rest of it on as text."""
    request, scanner, _ = broken(thinking(), 100)
    plan = plan_of(request, scanner.record)
    assert isinstance(plan, Continue)
    continuation = ParsedContinuation(request, scanner.record, plan)
    continuation.feed(event(token_ids=[1]))
    assert continuation.question is not None
    with pytest.raises(ParsersDisagreeError, match="no reasoning is seen"):
        continuation.note(answer({"content": ""}))


def test_what_came_before_is_replayed_as_it_came() -> None:
    """Event by event, with the ids of the calls that the client knows."""
    _, record, continuation = begun()
    record.add_parsed({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]})
    request, _, _ = begun()
    plan = plan_of(request, record)
    assert isinstance(plan, Continue)
    continuation = ParsedContinuation(request, record, plan)
    continuation.feed(event(token_ids=[1]))
    checked(record, continuation)
    asked = orjson.loads(continuation.question or b"")
    state = asked["stream_state"]
    assert state["output_chunk_lens"] == record.ids_by_event
    assert len(state["output_token_ids"]) == sum(record.ids_by_event) == record.output_tokens
    assert state["last_tool_call_ids"] == ["1"]
    assert asked["generate_chunk"]["choices"][0]["token_ids"] == [1]


def test_a_long_answer_is_given_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser may then say less than before: nothing is sent twice, and at the end all must be there."""
    monkeypatch.setattr(module, "MAX_REPLAYED_EVENTS", 2)
    _, record, continuation = begun()
    sent = record.sent_text
    continuation.feed(event(token_ids=[0]))
    asked = orjson.loads(continuation.question or b"")
    assert asked["stream_state"] is None
    assert len(asked["generate_chunk"]["choices"][0]["token_ids"]) == record.output_tokens + 1
    assert continuation.note(answer({"content": sent[:3]})) == b""
    continuation.feed(event(token_ids=[0]))
    assert continuation.question is not None
    out = continuation.note(answer({"content": sent[3:] + "new"}))
    assert orjson.loads(out.removeprefix(b"data: "))["choices"][0]["delta"] == {"content": "new"}
    _, record, continuation = begun()
    continuation.feed(event(token_ids=[0], finish_reason="length"))
    assert continuation.question is not None
    assert continuation.note(answer({"content": sent[:3]})) == b""
    assert continuation.question is not None
    with pytest.raises(ParsersDisagreeError, match="less"):
        continuation.note(answer({}))


def test_an_answer_that_only_had_to_end_is_told_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some parsers say nothing of what comes together with the end."""
    monkeypatch.setattr(module, "MAX_REPLAYED_EVENTS", 2)
    _, record, continuation = begun()
    continuation.feed(event(token_ids=[9], finish_reason="stop"))
    choice = orjson.loads(continuation.question or b"")["generate_chunk"]["choices"][0]
    assert (len(choice["token_ids"]), choice["finish_reason"]) == (record.output_tokens, None)
    continuation.note(answer({"content": record.sent_text}))
    choice = orjson.loads(continuation.question or b"")["generate_chunk"]["choices"][0]
    assert (choice["token_ids"], choice["finish_reason"]) == ([], "stop")


@pytest.mark.parametrize(
    ("changes", "finish", "asked"),
    [
        ({}, "stop", [7]),
        ({"include_stop_str_in_output": True}, "stop", [7, 9]),
        ({}, "length", [7, 9]),
    ],
)
def test_the_token_that_ends_an_answer_is_no_text(
    changes: dict[str, Any], finish: str, asked: list[int]
) -> None:
    """The engine's own parsers never see its text; it counts as a token all the same."""
    _, record, continuation = begun(stream_options={"include_usage": True}, **changes)
    before = record.output_tokens
    continuation.feed(event(token_ids=[7, 9], finish_reason=finish) + b"data: [DONE]\n\n")
    checked(record, continuation)
    first = continuation.question
    assert first is not None
    said = orjson.loads(first)["generate_chunk"]["choices"][0]
    assert said["token_ids"][-len(asked) :] == asked
    assert said["finish_reason"] is None
    out = continuation.note(answer({}))
    last = continuation.question
    assert last is not None
    choice = orjson.loads(last)["generate_chunk"]["choices"][0]
    assert (choice["token_ids"], choice["finish_reason"]) == ([], finish)
    out += continuation.note(answer({}))
    assert continuation.ending == "complete"
    usage = orjson.loads(out.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]
    assert usage["completion_tokens"] == before + 2


def test_messages_are_not_sent_to_the_parsers_but_for_their_calls() -> None:
    """Parsers count them, to name the next; a long prompt would go along with each question."""
    called = {"role": "assistant", "content": "x" * 1000, "tool_calls": [{"id": "call-1"}]}
    messages = [{"role": "user", "content": "y" * 1000}, called, {"role": "user", "content": "hi"}]
    _, _, continuation = begun(messages=messages)
    continuation.feed(event(token_ids=[1]))
    question = orjson.loads(continuation.question or b"")
    assert question["chat_request"]["messages"] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call-1"}]},
        {"role": "user", "content": ""},
    ]
    assert question["chat_request"]["tools"] == TOOLS


def test_without_parsers_it_is_refused() -> None:
    """And says what for."""
    request, scanner, _ = broken(fields_of(), 3000)
    assert plan_of(request, scanner.record, parses=False) == Refuse(reason="tools")
    request, scanner, _ = broken(thinking(), 100)
    assert scanner.record.parsed is not None
    assert plan_of(request, scanner.record, parses=False) == Refuse(reason="reasoning")
    scanner.record.has_missing_ids = True
    assert plan_of(request, scanner.record) == Refuse(reason="reasoning")


@pytest.mark.parametrize("name", ["refusal", "audio", "function_call"])
def test_other_output_is_not_continued(name: str) -> None:
    """Nobody can tell how it goes on."""
    request, scanner, _ = broken(fields_of(), 3000)
    scanner.record.add_parsed({name: "something"})
    assert plan_of(request, scanner.record) == Refuse(reason="other_output")


def test_reasoning_keeps_the_names_it_came_under() -> None:
    """Older engines say `reasoning_content`; one that says both is heard once."""
    request, scanner, _ = broken(thinking(), 100)
    record = StreamRecord()
    record.first_event, record.prompt_ids = scanner.record.first_event, scanner.record.prompt_ids
    record.add_ids(b"1,2")
    record.add_parsed({"reasoning": "hm", "reasoning_content": "hm"})
    plan = plan_of(request, record)
    assert isinstance(plan, Continue)
    continuation = ParsedContinuation(request, record, plan)
    continuation.feed(event(token_ids=[1]))
    checked(record, continuation)
    assert continuation.question is not None
    out = continuation.note(answer({"reasoning": ", so"}))
    delta = orjson.loads(out.removeprefix(b"data: "))["choices"][0]["delta"]
    assert delta == {"reasoning": ", so", "reasoning_content": ", so"}
    assert record.parsed is not None
    assert record.parsed.reasoning == "hm, so"
