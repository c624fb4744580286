"""The bytes of answers: vLLM's shapes, exact order, stop strings."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from site_agent.emulation import tokens
from site_agent.emulation.answer import DONE, FINGERPRINT, Answer
from site_agent.emulation.engine import FinishReason
from site_agent.emulation.request import GenerationRequest

PROMPT = (1, 9770)
WORDS = tokens.expected_text(PROMPT, 12).split()


def make_answer(**fields: Any) -> Answer:
    """A chat answer to a prompt of two tokens."""
    options: dict[str, Any] = {"kind": "chat", "prompt_ids": PROMPT, "max_tokens": 12, "stream": True}
    request = GenerationRequest(**(options | fields))
    return Answer(request, request_id="r1", created=1700000000, model="m")


def stream(answer: Answer, count: int) -> list[bytes]:
    """All events of an answer that the engine ends at `count` tokens."""
    data = b""
    for index in range(count):
        reason: FinishReason | None = "length" if index == count - 1 else None
        data += answer.token_event(reason)
        if answer.tokens.is_stopped:
            break
    data += answer.closing_events()
    assert data.endswith(b"\n\n")
    return data.removesuffix(b"\n\n").split(b"\n\n")


def objects(events: list[bytes]) -> list[dict[str, Any]]:
    """The JSON of every event but the last, which must be [DONE]."""
    assert events[-1] == b"data: [DONE]"
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


def test_chat_stream_is_byte_for_byte_vllms() -> None:
    """Compact, role first, nulls where vLLM writes them and nowhere else."""
    head = b'data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"m"'
    first, second = (word.encode() for word in WORDS[:2])
    assert stream(make_answer(), 2) == [
        head + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        b'"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}',
        head + b',"choices":[{"index":0,"delta":{"content":"' + first + b'"},"logprobs":null,'
        b'"finish_reason":null,"token_ids":null}]}',
        head + b',"choices":[{"index":0,"delta":{"content":" ' + second + b'"},"logprobs":null,'
        b'"finish_reason":"length","stop_reason":null,"token_ids":null}],'
        b'"system_fingerprint":"' + FINGERPRINT.encode() + b'"}',
        b"data: [DONE]",
    ]


def test_completion_stream_is_byte_for_byte_vllms() -> None:
    """Prompt ids in the first event's choice, one id in each."""
    answer = make_answer(kind="completion", prompt_ids=(4, 8), return_token_ids=True)
    generated = tokens.generate((4, 8), 2)
    text = [tokens.piece(token).encode() for token in generated]
    head = b'data: {"id":"cmpl-r1","object":"text_completion","created":1700000000,"model":"m"'
    middle = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":'
    assert stream(answer, 3)[:2] == [
        head
        + b',"choices":[{"index":0,"text":"'
        + text[0]
        + middle
        + b'[4,8],"token_ids":[%d]}]}' % generated[0],
        head
        + b',"choices":[{"index":0,"text":"'
        + text[1]
        + middle
        + b'null,"token_ids":[%d]}]}' % generated[1],
    ]


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_fast_path_writes_what_the_general_path_would(kind: str, with_ids: bool) -> None:
    """A stop string that never comes switches the fast path off; the bytes stay (held-back text apart)."""
    plain = stream(make_answer(kind=kind, return_token_ids=with_ids), 10)
    general = stream(make_answer(kind=kind, return_token_ids=with_ids, stop=("?",)), 10)
    assert plain == general


def test_ids_and_text_of_a_stream_are_the_expected_ones() -> None:
    """Prompt ids on the first event, one id per token event."""
    events = objects(stream(make_answer(return_token_ids=True), 12))
    assert events[0]["prompt_token_ids"] == list(PROMPT)
    choices = [event["choices"][0] for event in events[1:]]
    assert [choice["token_ids"] for choice in choices] == [[token] for token in tokens.generate(PROMPT, 12)]
    assert "".join(choice["delta"]["content"] for choice in choices) == tokens.expected_text(PROMPT, 12)


def test_usage_event_comes_last_and_carries_the_fingerprint() -> None:
    """No choices, three numbers; the finishing event then has no fingerprint."""
    events = objects(stream(make_answer(include_usage=True), 3))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {"prompt_tokens": 2, "total_tokens": 5, "completion_tokens": 3}
    assert events[-1]["system_fingerprint"] == FINGERPRINT
    assert "system_fingerprint" not in events[-2]


def test_continuous_usage_counts_up() -> None:
    """On every event, the role's too."""
    events = objects(stream(make_answer(include_usage=True, continuous_usage=True), 2))
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 2]


@pytest.mark.parametrize("include_stop", [False, True])
def test_stop_string_over_a_word_boundary_ends_the_answer(include_stop: bool) -> None:
    """Nothing of it is shown (unless asked for), not even for a moment; the ids are all there."""
    stop = f"{WORDS[2][2:]} {WORDS[3][:2]}"
    events = objects(
        stream(make_answer(stop=("none", stop), include_stop=include_stop, return_token_ids=True), 12)
    )
    text = "".join(event["choices"][0]["delta"]["content"] for event in events)
    before = f"{WORDS[0]} {WORDS[1]} {WORDS[2][:2]}"
    assert text == (before + stop if include_stop else before)
    last = events[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop)
    assert [event["choices"][0].get("token_ids") for event in events[1:]] == [
        [token] for token in tokens.generate(PROMPT, 4)
    ]


def test_first_of_two_stop_strings_wins() -> None:
    """The one that completes earliest in the text."""
    answer = make_answer(stop=(WORDS[1][:3], WORDS[1][:2]))
    answer.token_event(None)
    answer.token_event(None)
    assert answer.tokens.stop_reason == WORDS[1][:2]


def test_min_tokens_postpones_stops() -> None:
    """A stop string or id within the first tokens does not count."""
    answer = make_answer(stop=(WORDS[0],), stop_ids=frozenset(tokens.generate(PROMPT, 3)), min_tokens=3)
    assert answer.token_event(None)
    answer.token_event(None)
    assert not answer.tokens.is_stopped
    answer.token_event(None)
    assert answer.tokens.stop_reason == tokens.generate(PROMPT, 3)[2]


def test_stop_id_ends_the_answer_and_is_not_shown() -> None:
    """Its id is in token_ids, its word not in the text."""
    stop_id = tokens.generate(PROMPT, 2)[1]
    events = objects(stream(make_answer(stop_ids=frozenset({stop_id}), return_token_ids=True), 12))
    last = events[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop_id)
    assert last["token_ids"] == [stop_id]
    assert last["delta"]["content"] == ""


def test_abort_in_mid_answer_says_so_and_closes() -> None:
    """What a stopping vLLM sends: a finish_reason that is no finish, then [DONE]."""
    answer = make_answer(stop=("?",) * 2)
    answer.token_event(None)
    event = orjson.loads(answer.end_event("abort").removeprefix(b"data: "))
    assert event["choices"][0]["finish_reason"] == "abort"
    assert answer.closing_events() == DONE


def test_abort_before_the_first_token_has_no_finish_reason() -> None:
    """As in vLLM: a role event, then [DONE]."""
    event = orjson.loads(make_answer().end_event("abort").removeprefix(b"data: "))
    assert event["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert make_answer(kind="completion").end_event("abort") == b""


def test_whole_chat_answer_has_vllms_fields() -> None:
    """Nulls included; ids only when asked for."""
    answer = orjson.loads(make_answer(stream=False, return_token_ids=True).body("length", 3))
    assert list(answer) == [
        *("id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"),
        *("prompt_logprobs", "prompt_token_ids", "prompt_text"),
        *("kv_transfer_params", "ec_transfer_params", "metrics"),
    ]
    assert answer["prompt_token_ids"] == list(PROMPT)
    choice = answer["choices"][0]
    assert choice["message"]["content"] == tokens.expected_text(PROMPT, 3)
    assert choice["token_ids"] == tokens.generate(PROMPT, 3)
    assert answer["usage"]["total_tokens"] == 5


def test_whole_completion_answer_has_vllms_fields() -> None:
    """Text instead of a message; ids are null when not asked for."""
    answer = orjson.loads(make_answer(kind="completion", stream=False).body("length", 3))
    assert answer["object"] == "text_completion"
    assert list(answer["choices"][0]) == [
        *("index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs"),
        *("prompt_token_ids", "routed_experts"),
    ]
    assert answer["choices"][0]["token_ids"] is None


def test_request_id_with_quotes_stays_valid_json() -> None:
    """A client chooses it."""
    request = GenerationRequest(kind="chat", prompt_ids=PROMPT, max_tokens=3, stream=True)
    answer = Answer(request, request_id='a"b\\', created=1, model='m"')
    assert {event["id"] for event in objects(stream(answer, 3))} == {'chatcmpl-a"b\\'}
