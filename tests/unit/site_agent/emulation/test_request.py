"""Reading requests: what is taken, and vLLM's errors for the rest."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from site_agent.emulation import tokens
from site_agent.emulation.request import (
    GenerationRequest,
    Kind,
    ModelLimits,
    RequestError,
    parse_generation,
)

LIMITS = ModelLimits(model="m", max_model_len=100)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "baba nifi"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "baba nifi"}


def parse(kind: Kind, fields: object) -> GenerationRequest:
    """Through JSON, as it comes."""
    return parse_generation(kind, orjson.dumps(fields), LIMITS)


def test_chat_without_a_limit_may_fill_the_models_length() -> None:
    """As in vLLM: max_model_len less the prompt."""
    request = parse("chat", CHAT)
    assert request.prompt_ids == tuple(tokens.tokenize_chat(CHAT["messages"]))
    assert request.max_tokens == 98
    assert not request.stream


def test_completion_without_a_limit_gets_16_tokens() -> None:
    """OpenAI's old default, which a resume must not run into."""
    assert parse("completion", COMPLETION).max_tokens == 16
    assert parse("completion", COMPLETION | {"max_tokens": None}).max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_tokens": 100}, 98),
    ],
)
def test_limit_of_a_chat(fields: dict[str, Any], max_tokens: int) -> None:
    """The newer name wins; what does not fit behind the prompt is cut."""
    assert parse("chat", CHAT | fields).max_tokens == max_tokens


@pytest.mark.parametrize("prompt", ["baba nifi", ["baba nifi"], [1, 9768], [[1, 9768]]])
def test_prompt_may_be_a_text_or_ids(prompt: object) -> None:
    """All of these are the same prompt."""
    assert parse("completion", {"prompt": prompt}).prompt_ids == (1, 9768)


def test_continued_message_is_part_of_the_prompt() -> None:
    """Resume by text: no new turn, and the role stays the last message's."""
    messages = [*CHAT["messages"], {"role": "assistant", "content": "gana lopi"}]
    request = parse(
        "chat", {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    )
    assert request.prompt_ids == tuple(tokens.tokenize_chat(messages, continue_final_message=True))
    assert request.role == "assistant"


def test_options_are_read() -> None:
    """Everything that changes the answer's shape or end."""
    request = parse(
        "chat",
        CHAT
        | {
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "stop": "zz",
            "stop_token_ids": [5],
            "include_stop_str_in_output": True,
            "min_tokens": 3,
            "return_token_ids": True,
            "temperature": 0.7,
            "ignore_eos": True,
            "n": 1,
        },
    )
    assert (request.stream, request.include_usage, request.continuous_usage) == (True, True, True)
    assert (request.stop, request.stop_ids, request.include_stop) == (("zz",), frozenset({5}), True)
    assert (request.min_tokens, request.return_token_ids) == (3, True)


@pytest.mark.parametrize(
    ("kind", "fields", "status", "param", "message"),
    [
        ("chat", CHAT | {"model": "other"}, 404, "model", "The model `other` does not exist."),
        ("chat", CHAT | {"model": 5}, 400, "model", "must be a string"),
        ("chat", [], 400, "body", "must be a JSON object"),
        ("chat", {}, 400, "messages", "list of 1 to"),
        ("chat", {"messages": []}, 400, "messages", "list of 1 to"),
        ("chat", {"messages": ["x"]}, 400, "messages", "object with a role"),
        ("chat", {"messages": [{"content": "x"}]}, 400, "messages", "object with a role"),
        ("chat", {"messages": [{"role": "user", "content": 5}]}, 400, "messages", "text"),
        ("chat", CHAT | {"max_tokens": 0}, 400, "max_tokens", "at least 1, got 0"),
        ("chat", CHAT | {"max_tokens": "5"}, 400, "max_tokens", "must be an integer"),
        ("chat", CHAT | {"max_tokens": True}, 400, "max_tokens", "must be an integer"),
        ("chat", CHAT | {"max_tokens": 101}, 400, "max_tokens", "greater than max_model_len=100"),
        ("chat", CHAT | {"stream": "yes"}, 400, "stream", "true or false"),
        ("chat", CHAT | {"stream_options": {"include_usage": True}}, 400, "stream_options", "stream=True"),
        ("chat", CHAT | {"stream": True, "stream_options": 1}, 400, "stream_options", "object"),
        ("chat", CHAT | {"n": 2}, 400, "n", "one choice"),
        ("chat", CHAT | {"logprobs": True}, 400, "logprobs", "not emulated"),
        ("chat", CHAT | {"response_format": {"type": "json_object"}}, 400, "response_format", "not emulated"),
        ("chat", CHAT | {"tool_choice": "required"}, 400, "tool_choice", "calls no tool"),
        ("chat", CHAT | {"stop": [""]}, 400, "stop", "1 to 1024"),
        ("chat", CHAT | {"stop": ["x"] * 65}, 400, "stop", "at most 64"),
        ("chat", CHAT | {"stop_token_ids": ["x"]}, 400, "stop_token_ids", "integers"),
        (
            "chat",
            CHAT | {"continue_final_message": True, "add_generation_prompt": True},
            400,
            "continue_final_message",
            "Cannot set both",
        ),
        ("completion", {}, 400, "prompt", "a string or a list of token ids"),
        ("completion", {"prompt": ""}, 400, "prompt", "cannot be empty"),
        ("completion", {"prompt": []}, 400, "prompt", "cannot be empty"),
        ("completion", {"prompt": ["a", "b"]}, 400, "prompt", "one prompt"),
        ("completion", {"prompt": [1, "b"]}, 400, "prompt", "one prompt"),
        ("completion", {"prompt": [1.5]}, 400, "prompt", "token ids"),
        ("completion", {"prompt": [-1]}, 400, "prompt", "out of vocabulary"),
        ("completion", {"prompt": [2**40]}, 400, "prompt", "out of vocabulary"),
        ("completion", {"prompt": "x" * 6401}, 400, "input_text", "more than 6400 characters"),
        ("chat", {"messages": [{"role": "user", "content": "x" * 6401}]}, 400, "input_text", "6401 char"),
        ("completion", {"prompt": [1] * 101}, 400, "input_tokens", "maximum context length is 100"),
        ("completion", {"prompt": [1] * 100}, 400, "max_tokens", "at least 1, got 0"),
        ("completion", COMPLETION | {"echo": True}, 400, "echo", "not emulated"),
        ("completion", COMPLETION | {"logprobs": 0}, 400, "logprobs", "not emulated"),
        ("completion", COMPLETION | {"best_of": 2}, 400, "best_of", "one choice"),
        ("completion", COMPLETION | {"suffix": "x"}, 400, "suffix", "not emulated"),
    ],
)
def test_wrong_request_is_refused(kind: Kind, fields: object, status: int, param: str, message: str) -> None:
    """Status, field and reason, in vLLM's shape."""
    with pytest.raises(RequestError) as caught:
        parse(kind, fields)
    error = orjson.loads(caught.value.body())["error"]
    assert error["code"] == status
    assert error["param"] == param
    assert message in error["message"]


def test_body_that_is_not_json_is_a_400() -> None:
    """With the parser's own words."""
    with pytest.raises(RequestError, match="JSON decode error") as caught:
        parse_generation("chat", b'{"model": ', LIMITS)
    assert caught.value.status == 400
