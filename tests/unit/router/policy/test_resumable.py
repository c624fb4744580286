"""The table of docs/resume.md, row by row."""

from __future__ import annotations

from typing import Any

import pytest
from support.views import view

from router.policy.body import Api
from router.policy.resumable import Fidelity, Resumability, can_continue, resumability

GREEDY = {"temperature": 0}
EXACT: list[dict[str, Any]] = [
    {},
    {"stop": ["END"]},
    {"stop": "x" * 2048},
    {"stop": [*["x"] * 63, None]},
    {"max_tokens": 5},
    {"repetition_penalty": 1.3},
    {"logit_bias": {"5": 1}},
    {"n": 1},
    {"logprobs": False},
    {"logprobs": None},
    {"tools": []},
    {"tools": [{}], "tool_choice": "none"},
    {"response_format": {"type": "text"}},
    {"frequency_penalty": 0},
    {"suffix": ""},
    {"echo": False},
    {"top_k": 1, "temperature": 0.7},
    {"top_k": 1, "temperature": None},
    {"bad_words": ["x"]},
    {"allowed_token_ids": [1, 2]},
    {"min_p": 0.1},
    {"stop_token_ids": [7]},
    {"ignore_eos": True},
    {"min_tokens": 5},
    {"stop": ["END"], "min_tokens": 5},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"return_token_ids": True},
    {"continue_final_message": True},
    {"include_reasoning": True},
    {"prompt_embeds": None},
]
FAITHFUL: list[dict[str, Any]] = [
    {"temperature": 1},
    {"temperature": None},
    {"seed": 7, "temperature": 0.5},
    {"frequency_penalty": 0.5},
    {"presence_penalty": 0.5},
    {"top_k": 2, "temperature": 1},
    {"min_p": 0.1, "temperature": 1},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"best_of": 3}, "best_of"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 0}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"include_reasoning": False}, "hidden_reasoning"),
    ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ({"guided_json": {}}, "structured_output"),
    ({"guided_regex": "a+"}, "structured_output"),
    ({"guided_choice": ["a", "b"]}, "structured_output"),
    ({"guided_grammar": "root ::= a"}, "structured_output"),
    ({"guided_decoding_backend": "xgrammar"}, "structured_output"),
    ({"stop": "x" * 2049}, "stop"),
    ({"stop": ["x" * 1024, "y" * 1025]}, "stop"),
    ({"stop": ["x"] * 65}, "stop"),
]


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETION])
@pytest.mark.parametrize("fields", EXACT)
def test_exact(api: Api, fields: dict[str, Any]):
    """What the unbroken stream would have said."""
    assert resumability(api, GREEDY | fields).fidelity is Fidelity.EXACT


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETION])
@pytest.mark.parametrize("fields", FAITHFUL)
def test_faithful(api: Api, fields: dict[str, Any]):
    """A fair continuation."""
    assert resumability(api, GREEDY | fields).fidelity is Fidelity.FAITHFUL


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETION])
@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_refused(api: Api, fields: dict[str, Any], reason: str):
    """Ends with a stated error."""
    verdict = resumability(api, GREEDY | fields)
    assert (verdict.fidelity, verdict.reason) == (Fidelity.REFUSED, reason)


@pytest.mark.parametrize("api", [Api.RESPONSES, Api.MESSAGES, Api.OTHER])
def test_other_apis_are_refused(api: Api):
    """Until shown otherwise on real vLLM."""
    assert resumability(api, GREEDY).fidelity is Fidelity.REFUSED


def test_several_prompts_are_refused_and_one_is_not():
    """A list of ids is one prompt."""
    assert resumability(Api.COMPLETION, GREEDY | {"prompt": ["a", "b"]}).reason == "prompts"
    assert resumability(Api.COMPLETION, GREEDY | {"prompt": ["a"]}).fidelity is Fidelity.EXACT
    assert resumability(Api.COMPLETION, GREEDY | {"prompt": [1, 2]}).fidelity is Fidelity.EXACT


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "audio_url", "video_url", "image_embeds"])
def test_media_in_the_prompt_are_continued_by_text_only(kind: str):
    """Token ids do not hold them."""
    messages = [{"role": "user", "content": [{"type": kind, kind: {"url": "x"}}]}]
    verdict = resumability(Api.CHAT, GREEDY | {"messages": messages})
    assert (verdict.fidelity, verdict.by_text_only) == (Fidelity.FAITHFUL, True)
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert resumability(Api.CHAT, GREEDY | {"messages": messages}).fidelity is Fidelity.EXACT


VERDICT = Resumability(Fidelity.EXACT, "")
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
STRICT = {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}
IMAGE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}


@pytest.mark.parametrize(
    ("fields", "fidelity", "reason"),
    [
        (TOOLS, Fidelity.EXACT, ""),
        (TOOLS | {"tool_choice": "auto"}, Fidelity.EXACT, ""),
        (TOOLS | {"temperature": 1}, Fidelity.FAITHFUL, "sampling"),
        (TOOLS | {"parallel_tool_calls": False}, Fidelity.FAITHFUL, "parallel_tool_calls"),
        (TOOLS | {"tool_choice": "required"}, Fidelity.FAITHFUL, "tool_choice"),
        (TOOLS | {"tool_choice": {"type": "function"}}, Fidelity.FAITHFUL, "tool_choice"),
        (STRICT, Fidelity.FAITHFUL, "strict_tools"),
        (TOOLS | {"stop": ["x"]}, Fidelity.REFUSED, "stop"),
        (TOOLS | IMAGE, Fidelity.REFUSED, "tools"),
    ],
)
def test_a_chat_with_tools_needs_a_parser(fields: dict[str, Any], fidelity: Fidelity, reason: str) -> None:
    """Where a grammar makes the call, too."""
    verdict = resumability(Api.CHAT, GREEDY | fields)
    assert (verdict.fidelity, verdict.reason) == (fidelity, reason)
    assert verdict.needs_parser == (fidelity is not Fidelity.REFUSED)


STRUCTURED: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {}}},
    {"response_format": 5},
    {"structured_outputs": {"regex": "a"}},
]


@pytest.mark.parametrize("fields", STRUCTURED)
def test_a_structured_answer_is_made_by_a_grammar(fields: dict[str, Any]) -> None:
    """Of a chat its reasoning is not; a completion has none."""
    verdict = resumability(Api.CHAT, GREEDY | fields)
    expected = Resumability(Fidelity.FAITHFUL, "structured_output", needs_parser=True, grammar="answer")
    assert verdict == expected
    refused = resumability(Api.COMPLETION, GREEDY | fields)
    assert (refused.fidelity, refused.reason) == (Fidelity.REFUSED, "structured_output")
    assert resumability(Api.CHAT, GREEDY | fields | IMAGE).reason == "structured_output"
    assert resumability(Api.CHAT, GREEDY | fields | IMAGE).fidelity is Fidelity.REFUSED
    assert resumability(Api.CHAT, GREEDY | fields | {"stop": "x"}).reason == "stop"


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        (TOOLS, ""),
        (STRICT, "calls"),
        (TOOLS | {"tool_choice": "required"}, "answer"),
        (STRICT | {"tool_choice": "none"}, ""),
        (STRICT | {"response_format": {"type": "json_object"}}, "answer"),
    ],
)
def test_what_a_grammar_makes(fields: dict[str, Any], grammar: str) -> None:
    """Sites that do not tell of grammars cannot continue it; nor can any where the client has its ids."""
    verdict = resumability(Api.CHAT, GREEDY | fields)
    with_ids = resumability(Api.CHAT, GREEDY | fields | {"return_token_ids": True})
    assert (with_ids.fidelity is Fidelity.REFUSED) == (grammar != "")
    assert verdict.grammar == grammar
    assert can_continue(verdict, view(parses_ids=True)) == (grammar == "")
    assert can_continue(verdict, view(parses_ids=True, renders=True))


@pytest.mark.parametrize(
    "fields", [TOOLS | {"tool_choice": "none"}, {"tools": []}, {"tools": None}, {"tools": 5}, {"tools": {}}]
)
def test_without_a_tool_that_may_be_called_no_parser_is_needed(fields: dict[str, Any]) -> None:
    """Nonsense is the engine's to refuse."""
    assert resumability(Api.CHAT, GREEDY | fields) == VERDICT


def test_a_completion_calls_no_tool() -> None:
    """Whatever it says."""
    assert resumability(Api.COMPLETION, GREEDY | TOOLS) == VERDICT
