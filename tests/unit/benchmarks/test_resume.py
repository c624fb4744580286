"""The pure parts of the resume campaign: where streams are cut, and what counts as kept."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.resume.__main__ import misses, table
from benchmarks.resume.campaign import Result
from benchmarks.resume.cases import Case, cut_rule, draw_stop, events_in, faithful, stop_rule, text_in
from benchmarks.resume.fleet import EngineSetting
from benchmarks.resume.told import Told

USAGE = {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
WORDS = ["one ", "two ", "thr", "ee ", "four ", "five ", "six ", "seven ", "eight ", "nine ", "ten ", "last "]


def chunk(text: str, ids: list[int], finish: str | None = None) -> bytes:
    value = {"choices": [{"index": 0, "text": text, "token_ids": ids, "finish_reason": finish}]}
    event = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def answer(words: list[str], finish: str = "length") -> bytes:
    chunks = [chunk(word, [number]) for number, word in enumerate(words[:-1])]
    return b"".join([*chunks, chunk(words[-1], [99], finish)]) + b"e\r\ndata: [DONE]\n\n\r\n"


def told(**changes: Any) -> Told:
    made = Told(
        text="abcd", ids={"1"}, roles=1, finish=["length"], stop_reasons=[None], usage=[dict(USAGE)], done=1
    )
    return replace(made, **changes)


def test_events_are_read_out_of_their_chunks():
    """Tokens and text so far, and where each ends; half an event is none."""
    body = answer(WORDS)
    events = list(events_in(body))
    assert [event.tokens for event in events] == list(range(1, len(WORDS) + 1))
    assert events[-1].text == "".join(WORDS)
    assert [event.is_last for event in events] == [False] * (len(WORDS) - 1) + [True]
    assert text_in(body[: events[3].end]) == "one two three "
    assert text_in(body[: events[3].end - 1]) == "one two thr"


@pytest.mark.parametrize("seed", range(20))
def test_a_stop_string_lies_over_tokens_where_it_comes_first(seed: int):
    """So that there is a before, an inside and an after."""
    rng = random.Random(seed)
    stop = draw_stop(answer(WORDS), rng)
    assert stop is not None
    text = "".join(WORDS)
    at = text.index(stop.text)
    for count in stop.before:
        assert len("".join(WORDS[:count])) <= at
    for count in stop.inside:
        assert at < len("".join(WORDS[:count])) < at + len(stop.text)


def test_a_short_answer_has_no_stop_string():
    """It is drawn anew."""
    assert draw_stop(answer(["a", "b"]), random.Random(1)) is None


@pytest.mark.parametrize("kind", ["before the stop string", "inside the stop string"])
@pytest.mark.parametrize("seed", range(10))
def test_a_cut_comes_after_the_tokens_that_it_is_for(kind: str, seed: int):
    """Fed byte by byte, the stream is cut once what is before or inside has come whole."""
    body = answer(WORDS)
    rng = random.Random(seed)
    stop = draw_stop(body, rng)
    assert stop is not None
    rule = stop_rule(kind, stop, rng)
    cut = next(at for end in range(len(body)) if (at := rule(body[:end])) is not None)
    tokens = max(event.tokens for event in events_in(body) if event.end <= cut)
    assert tokens in (stop.before if kind.startswith("before") else (*stop.inside, max(stop.inside) + 1))


def test_a_stream_that_ended_before_its_place_is_not_cut():
    """The finish came with the tokens."""
    stop = draw_stop(answer(WORDS), random.Random(3))
    assert stop is not None
    rule = stop_rule("inside the stop string", stop, random.Random(3))
    assert rule(answer([WORDS[0]])) is None


def test_the_last_token_s_event_is_where_the_end_is_cut_off():
    """Usage and terminal event are lost."""
    body = answer(WORDS).replace(b'"finish_reason": "length"', b'"finish_reason":"length"')
    at = cut_rule("after the last token", random.Random(1), 0)(body)
    assert at is not None
    assert body[:at].endswith(b"}\n\n")
    assert b"[DONE]" not in body[:at]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"text": "abXd"}, "text at 2 of 4: 'Xd' for 'cd'"),
        ({"roles": 0}, "roles: 0 for 1"),
        ({"stop_reasons": ["x"]}, "stop_reasons: ['x'] for [None]"),
        ({"done": 2}, "not one whole stream"),
        ({"foreign": {"token_ids"}}, "not one whole stream"),
        ({"ids": {"1", "2"}}, "not one whole stream"),
    ],
)
def test_the_same_is_all_the_same(changes: dict[str, Any], said: str):
    """Text, id, role, finish, stop reason, usage, end."""
    found = told(**changes).differs_from(told())
    assert found == said or (said and found.startswith(said))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"text": "abZZ"}, ""),
        ({"text": "aZ"}, "what was sent: text at 1 of 2: 'Z' for 'b'"),
        ({"finish": ["stop"]}, "roles: 1 for 1, finish: ['stop']"),
        ({"usage": [USAGE | {"completion_tokens": 7, "total_tokens": 10}]}, "usage of 8 tokens"),
        ({"usage": [USAGE | {"total_tokens": 12}]}, "usage of 8 tokens"),
        ({"usage": [USAGE | {"prompt_tokens": 4, "total_tokens": 12}]}, "prompt_tokens: 4 for 3"),
        ({"usage": []}, "not one whole stream"),
    ],
)
def test_what_must_hold_of_other_words(changes: dict[str, Any], said: str):
    """What was sent stays, lengths and usage are right."""
    promises = {"limit_tokens": 8, "sent": "ab", "knows_prompt": True, "may_lack_usage": False}
    found = told(**changes).breaks_a_promise(told(), **promises)
    assert found == said or (said and found.startswith(said))


def test_what_nobody_can_know_may_be_missing():
    """By text: the prompt's tokens; and a usage where no site was asked."""
    promises = {"limit_tokens": 8, "sent": "ab", "knows_prompt": False}
    other = [USAGE | {"prompt_tokens": 4, "total_tokens": 12}]
    assert told(usage=other).breaks_a_promise(told(), may_lack_usage=False, **promises) == ""
    assert told(usage=[]).breaks_a_promise(told(), may_lack_usage=True, **promises) == ""


@pytest.mark.parametrize(("output", "is_right"), [(7, False), (8, True), (11, True), (12, False)])
def test_ids_agree_with_the_usage_but_for_half_a_character(output: int, is_right: bool):
    """Up to three that were taken back stay with a client that asked for them."""
    asked = {"prompt_token_ids": [1, 2, 3], "token_ids": list(range(output))}
    promises = {"limit_tokens": 8, "sent": "", "knows_prompt": True, "may_lack_usage": False}
    assert (told(**asked).breaks_a_promise(told(**asked), **promises) == "") == is_right


def test_a_case_can_leave_a_field_out():
    """A chat without `max_tokens`."""
    case = Case.draw(random.Random(1))
    assert case.limit_tokens >= 40
    assert "max_tokens" not in case.changed(max_tokens=None).body
    assert faithful(case, "seeded sampling", random.Random(1)).body["temperature"] == 1.0


@pytest.mark.parametrize(
    ("gpus", "devices", "is_shared"),
    [((), [None, None], False), (("0",), ["0", "0"], True), (("0", "1"), ["0", "1"], False)],
)
def test_engines_get_their_gpus(gpus: tuple[str, ...], devices: list[str | None], is_shared: bool):
    """On one GPU the second starts once the first is ready."""
    setting = EngineSetting(command="vllm", gpus=gpus)
    assert [setting.environment(number).get("CUDA_VISIBLE_DEVICES") for number in (0, 1)] == devices
    assert setting.is_shared == is_shared


def result(group: Any, kind: str, difference: str = "", methods: str = "ids") -> Result:
    return Result(
        group=group, kind=kind, path="/", difference=difference, is_same_text=not difference, methods=methods
    )


def test_kinds_are_counted_apart():
    """Greedy cuts and kills together, as the goal has them; every other kind by itself."""
    results = [result("exact", "any byte")] * 99 + [result("killed", "engine killed", "x")]
    assert misses(results) == []
    (missed,) = misses([*results, result("exact", "any byte", "x")])
    assert missed == "exact and killed: 98.0% as it must be, goal 99%"
    (missed,) = misses([result("text", "by text", "x"), *results])
    assert missed == "text: 0.0% as it must be, goal 100%"
    lines = table([*results, result("text", "by text", methods="text")])
    assert "| all of these | 100 | 99 | 99 | 100 | 0 | 0 | 0 |" in lines
    assert "| by text | 1 | 1 | 1 | 0 | 1 | 0 | 0 |" in lines
