"""How many tokens an answer says it took, by a byte search: no answer is parsed for it. Pure.

Why that is safe: inside a JSON string every quote is escaped, so `"total_tokens"` with bare quotes is a key.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"\s*:\s*(\d{1,9})\b")


def total_tokens(body: bytes, prompt_tokens: int) -> int | None:
    """Prompt and answer together, None where it does not say; of Anthropic's answer, which states both apart,
    the answer's tokens and the estimate of the prompt."""
    found = _last_number(body, b'"total_tokens"')
    if found is not None:
        return found
    found = _last_number(body, b'"output_tokens"')
    return None if found is None else prompt_tokens + found


def output_tokens(body: bytes) -> int | None:
    """The answer's alone: OpenAI's `completion_tokens`, or `output_tokens` of Responses and Messages."""
    found = _last_number(body, b'"completion_tokens"')
    return _last_number(body, b'"output_tokens"') if found is None else found


def prompt_tokens(body: bytes) -> int | None:
    """The prompt's alone: OpenAI's `prompt_tokens`, or `input_tokens` of Responses and Messages."""
    found = _last_number(body, b'"prompt_tokens"')
    return _last_number(body, b'"input_tokens"') if found is None else found


def _last_number(body: bytes, key: bytes) -> int | None:
    at = body.rfind(key)
    match = _NUMBER.match(body, at + len(key)) if at >= 0 else None
    return None if match is None else int(match[1])
