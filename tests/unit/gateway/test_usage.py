"""Tokens that an answer states."""

from __future__ import annotations

import pytest

from gateway.usage import output_tokens, prompt_tokens, total_tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}', 12),
        (b'{"usage": {"total_tokens" : 12, "prompt_tokens": 5}}', 12),
        (b'{"usage":{"input_tokens":5,"output_tokens":7}}', 107),
        (b'{"usage":{"total_tokens":null}}', None),
        (b'{"usage":{"total_tokens":12345678901}}', None),
        (b'{"choices":[]}', None),
        (b"", None),
    ],
)
def test_the_usage_is_found_whatever_the_api(body: bytes, tokens: int | None):
    """OpenAI's total; Anthropic's two, the prompt as estimated; None where it is not said."""
    assert total_tokens(body, 100) == tokens


def test_what_a_model_writes_is_not_its_usage():
    """Inside a string quotes are escaped."""
    body = b'{"text":"{\\"total_tokens\\": 9}","usage":{"total_tokens":3},"more":"\\"total_tokens\\":8"}'
    assert total_tokens(body, 0) == 3
    assert total_tokens(b'{"text":"\\"total_tokens\\": 9"}', 0) is None


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}', 7),
        (b'{"usage":{"input_tokens":5,"output_tokens":8}}', 8),
        (b'{"input_tokens":5}', None),
    ],
)
def test_the_answers_own_tokens(body: bytes, tokens: int | None):
    """Of either API; counting a prompt is no answer."""
    assert output_tokens(body) == tokens


def test_the_prompts_own_tokens():
    """Of either API."""
    assert prompt_tokens(b'{"usage":{"prompt_tokens":5,"total_tokens":12}}') == 5
    assert prompt_tokens(b'{"usage":{"input_tokens":6,"output_tokens":7}}') == 6
    assert prompt_tokens(b"{}") is None
