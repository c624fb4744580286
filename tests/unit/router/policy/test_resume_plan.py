"""What to ask of which site."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.policy.body import Api
from router.policy.resumable import Fidelity, resumability
from router.policy.resume_plan import (
    Continue,
    Finish,
    Refuse,
    ResumableRequest,
    ResumePlan,
    owed_text,
    plan_resume,
    with_grammar,
)
from router.policy.stream_record import StreamRecord

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, "temperature": 0}


def record(ids: bytes | None = b"5,6,", text: str = "ab", prompt: bytes | None = b"1,2,3") -> StreamRecord:
    made = StreamRecord()
    made.first_event = b'data: {"id":"1"}\n\n'
    made.prompt_ids = prompt
    if ids is None:
        made.has_missing_ids = True
    else:
        made.ids += ids
    made.add_text(text)
    return made


def plan(fields: dict[str, Any], kept: StreamRecord, api: Api = Api.CHAT, **changes: Any) -> ResumePlan:
    request = ResumableRequest(
        api=api,
        raw=orjson.dumps(fields),
        resumability=resumability(api, fields),
        include_usage=False,
        asks_token_ids=False,
    )
    options: dict[str, Any] = {"site_takes_ids": True, "first_max_model_len": 100, "max_model_len": 100}
    return plan_resume(request, kept, **(options | changes))


def test_by_ids_the_prompt_is_all_ids_so_far():
    """Through /v1/completions, with the limit that is left and no field of the chat."""
    fields = CHAT | {
        "stop": ["END"],
        "top_k": 5,
        "custom": {"x": 1},
        "chat_template_kwargs": {},
        "truncate_prompt_tokens": 3,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 8,
        "min_tokens": 5,
    }
    made = plan(fields, record())
    assert isinstance(made, Continue)
    assert (made.method, made.path, made.fidelity) == ("ids", "/v1/completions", Fidelity.EXACT)
    assert orjson.loads(made.body) == {
        "model": "m",
        "prompt": [1, 2, 3, 5, 6],
        "max_tokens": 6,
        "min_tokens": 3,
        "stream": True,
        "return_token_ids": True,
        "temperature": 0,
        "stop": ["END"],
        "top_k": 5,
        "custom": {"x": 1},
    }
    assert made.detokenize is not None
    assert orjson.loads(made.detokenize) == {"model": "m", "tokens": [5, 6]}
    assert (made.stop, made.min_tokens, made.tokens_before) == (("END",), 3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_token_ids": [7]},
        {"ignore_eos": True},
        {"top_k": 1},
        {"min_p": 0.1},
        {"bad_words": ["x"]},
        {"allowed_token_ids": [5, 6]},
        {"repetition_penalty": 1.3},
        {"logit_bias": {"5": 1}},
        {"seed": 3},
        {"stop": ["END"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("site_takes_ids", [True, False])
def test_what_a_sampler_is_told_the_next_one_is_told(changes: dict[str, Any], site_takes_ids: bool):
    """By ids and by text, in the same words."""
    made = plan(CHAT | changes, record(), site_takes_ids=site_takes_ids)
    assert isinstance(made, Continue)
    assert orjson.loads(made.body).items() >= changes.items()


@pytest.mark.parametrize(
    ("changes", "takes_ids", "keeps"),
    [
        ({}, True, True),
        ({"include_stop_str_in_output": True}, True, True),
        ({"min_tokens": 1}, True, True),
        ({}, False, None),
        ({"min_tokens": 9}, True, None),
        ({"stop_token_ids": [7]}, True, None),
        ({"skip_special_tokens": False}, True, None),
        ({"include_stop_str_in_output": True}, False, True),
        ({"stop": None}, True, None),
    ],
)
def test_by_ids_the_engine_keeps_stop_strings_and_holds_nothing_back(
    changes: dict[str, Any], takes_ids: bool, keeps: bool | None
):
    """Only then do an event's ids and text belong together; not where a stop token's text would come too."""
    made = plan(CHAT | {"stop": ["END"]} | changes, record(), site_takes_ids=takes_ids)
    assert isinstance(made, Continue)
    assert orjson.loads(made.body).get("include_stop_str_in_output") is keeps
    assert made.engine_keeps_stop is (keeps is True)
    assert made.keeps_stop is ("include_stop_str_in_output" in changes)


def test_with_no_token_yet_there_is_nothing_to_detokenize():
    """The prompt alone goes on."""
    made = plan({"model": "m", "prompt": "x"}, record(b"", ""), Api.COMPLETION)
    assert isinstance(made, Continue)
    assert made.detokenize is None
    assert orjson.loads(made.body)["prompt"] == [1, 2, 3]


def test_a_chat_without_a_limit_gets_what_the_model_has_left():
    """Left out, a completion would give 16."""
    fields = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    made = plan(fields, record())
    assert isinstance(made, Continue)
    assert orjson.loads(made.body)["max_tokens"] == 100 - 3 - 2


def test_without_a_limit_and_a_known_length_it_goes_by_text():
    """The chat path may leave `max_tokens` out."""
    fields = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    made = plan(fields, record(), first_max_model_len=None, max_model_len=None)
    assert isinstance(made, Continue)
    assert made.method == "text"
    assert "max_tokens" not in orjson.loads(made.body)


def test_a_seen_finish_or_a_used_up_limit_asks_no_site():
    """The router writes what is missing."""
    kept = record()
    kept.finish_reason = "stop"
    assert plan(CHAT, kept) == Finish(finish_reason="stop")
    assert plan(CHAT | {"max_tokens": 2}, record()) == Finish(finish_reason="length")


def test_by_text_the_answer_so_far_is_a_message_to_be_continued():
    """For engines without ids."""
    made = plan(CHAT, record(ids=None), site_takes_ids=False)
    assert isinstance(made, Continue)
    assert (made.method, made.path, made.fidelity) == ("text", "/v1/chat/completions", Fidelity.FAITHFUL)
    body = orjson.loads(made.body)
    assert body["messages"][-1] == {"role": "assistant", "content": "ab"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["max_tokens"] == 9
    assert body["stream_options"] == {"include_usage": True}


def test_by_text_a_message_that_the_client_had_continued_grows():
    """One assistant message, not two."""
    messages = [*CHAT["messages"], {"role": "assistant", "content": "So "}]  # type: ignore[misc]
    made = plan(CHAT | {"messages": messages, "continue_final_message": True}, record(), by_text=True)
    assert isinstance(made, Continue)
    assert orjson.loads(made.body)["messages"][1:] == [{"role": "assistant", "content": "So ab"}]


def test_by_text_with_nothing_sent_the_request_is_sent_again():
    """There is nothing to continue."""
    fields = {"model": "m", "prompt": "x"}
    made = plan(fields, record(ids=None, text=""), Api.COMPLETION, site_takes_ids=False)
    assert isinstance(made, Continue)
    assert orjson.loads(made.body)["prompt"] == "x"


@pytest.mark.parametrize("site_takes_ids", [True, False])
def test_a_chat_of_which_no_text_was_sent_is_not_continued(site_takes_ids: bool):
    """Its ids may be those of reasoning, which would come as text."""
    assert plan(CHAT, record(text=""), site_takes_ids=site_takes_ids) == Refuse(reason="no_text")


@pytest.mark.parametrize("prompt", ["x", ["x"]])
def test_a_completion_by_text_appends_to_its_prompt(prompt: object):
    """One string, alone or in a list."""
    made = plan({"model": "m", "prompt": prompt}, record(), Api.COMPLETION, site_takes_ids=False)
    assert isinstance(made, Continue)
    assert orjson.loads(made.body)["prompt"] == "xab"
    assert orjson.loads(made.body)["max_tokens"] == 14


def test_a_prompt_of_ids_cannot_be_continued_by_text():
    """Nobody here has its tokenizer."""
    fields = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 9}
    assert plan(fields, record(), Api.COMPLETION, site_takes_ids=False) == Refuse(reason="prompt_ids")


def test_refused_requests_and_answers():
    """By what was asked, and by what was sent."""
    assert plan(CHAT | {"n": 2}, record()) == Refuse(reason="n")
    kept = record()
    kept.has_other_output = True
    assert plan(CHAT, kept) == Refuse(reason="other_output")


def test_what_cannot_be_read_is_not_continued():
    """Events pass unread while they come: a site's broken JSON is found out when it is needed."""
    kinds: list[dict[str, Any]] = [
        {"text": bytearray(b"\xff")},
        {"text": bytearray(b'a"b')},
        {"text": bytearray(b"\\ud83d")},
        {"first_event": b"data: {\n\n"},
        {"first_event": b"data: [1]\n\n"},
        {"ids": bytearray(b"5,,6,")},
        {"ids": bytearray(b"5,x,")},
        {"prompt_ids": b"1,2]"},
        {"prompt_ids": b",1"},
    ]
    for changes in kinds:
        kept = record()
        for name, value in changes.items():
            setattr(kept, name, value)
        assert plan(CHAT, kept) == Refuse(reason="unreadable"), changes
        kept.finish_reason = "stop"
        assert plan(CHAT, kept) == Refuse(reason="unreadable"), changes


@pytest.mark.parametrize("prompt", [b"", b" ", b"1", b"1, 2 ,3", None])
def test_ids_may_be_written_in_several_ways(prompt: bytes | None):
    """With blanks, and none at all."""
    assert not isinstance(plan(CHAT, record(b"5, 6 ,", prompt=prompt)), Refuse)


@pytest.mark.parametrize(
    ("whole", "sent", "owed"),
    [
        ("abc", "abc", ""),
        ("abcd", "ab", "cd"),
        ("abc", "", "abc"),
        ("word two", " word", " two"),
        (" word two", "word", " two"),
        ("xyz", "ab", None),
        ("ab<|pad|>", "ab", None),
        ("a", "ab", None),
    ],
)
def test_the_text_that_is_owed(whole: str, sent: str, owed: str | None):
    """What does not fit is said so."""
    assert owed_text(whole, sent, holds_back=True) == owed


@pytest.mark.parametrize(
    ("whole", "sent", "owed"),
    [
        ("ab", "ab", ""),
        ("ab<|pad|>", "ab", ""),
        ("a<|pad|>b", "ab", ""),
        ("a , b", "a, b", ""),
        ("a<|pad|>\ufffd<|pad|>", "a", None),
    ],
)
def test_an_engine_that_holds_nothing_back_owes_nothing(whole: str, sent: str, owed: str | None):
    """Special tokens in `whole` do not matter, unless they hide half a character."""
    assert owed_text(whole, sent, holds_back=False) == owed


def test_ids_can_be_taken_back():
    """The last first; they are known for when they come again."""
    kept = record(ids=b"7, 12,130, ")
    assert kept.ids_by_event == [1, 2]
    kept.take_back_last_id()
    kept.take_back_last_id()
    assert (bytes(kept.ids), kept.ids_again, kept.output_tokens) == (b"7, ", [12, 130], 1)
    kept.take_back_last_id()
    assert (bytes(kept.ids), kept.ids_again) == (b"", [7, 12, 130])


def test_a_text_that_ends_in_half_a_character_is_not_continued_by_text():
    """The engine would say the prompt again."""
    kept = record(ids=None, text="ab\ufffd")
    assert plan(CHAT, kept) == Refuse(reason="half_character")


TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
STRICT = CHAT | {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}
FORM = CHAT | {"structured_outputs": {"regex": "a"}}
DEMANDED = CHAT | TOOLS | {"tool_choice": "required"}


def parsed(*, text: str = "", reasoning: str = "", calls: tuple[str, ...] = ()) -> StreamRecord:
    made = record(text=text)
    if reasoning:
        made.add_parsed({"reasoning": reasoning})
    for index, arguments in enumerate(calls):
        function = {"name": "f", "arguments": arguments}
        made.add_parsed({"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]})
    return made


@pytest.mark.parametrize(
    ("fields", "kept", "goes_on"),
    [
        (STRICT, parsed(text="Let me"), True),
        (STRICT, parsed(reasoning="hm"), True),
        (STRICT, parsed(calls=('{"a": 1}',)), True),
        (STRICT, parsed(calls=('{"a": 1}', '{"a"')), False),
        (STRICT, parsed(calls=("",)), False),
        (STRICT | {"parallel_tool_calls": False}, parsed(text="Let me"), True),
        (STRICT | {"parallel_tool_calls": False}, parsed(calls=('{"a": 1}',)), False),
        (FORM, parsed(reasoning="hm"), True),
        (FORM, parsed(reasoning="hm", text="a"), False),
        (DEMANDED, parsed(reasoning="hm"), True),
        (DEMANDED, parsed(reasoning="hm", calls=("{}",)), False),
    ],
)
def test_outside_of_what_a_grammar_makes_a_new_one_begins(
    fields: dict[str, Any], kept: StreamRecord, goes_on: bool
):
    """At a site that tells which."""
    assert isinstance(plan(fields, kept, site_parses_ids=True), Refuse)
    made = plan(fields, kept, site_parses_ids=True, site_renders=True)
    if not goes_on:
        assert made == Refuse(reason=resumability(Api.CHAT, fields).reason)
        return
    assert isinstance(made, Continue)
    assert (made.method, made.needs_grammar) == ("parsed", True)
    assert "structured_outputs" not in orjson.loads(made.body)
    whole = with_grammar(made, b'{"structural_tag":"x"}')
    assert orjson.loads(whole.body) == orjson.loads(made.body) | {
        "structured_outputs": {"structural_tag": "x"}
    }
    assert not whole.needs_grammar
    assert with_grammar(made, b"").body == made.body
