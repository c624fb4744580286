"""replay.prompts: bodies have exactly the tokens asked for, and the expected answers are the engine's."""

from __future__ import annotations

import json

import pytest

from replay import prompts
from replay.prompts import TokenIdPrompts, WordPrompts, corruption
from replay.schedule import ScheduledRequest
from site_agent.emulation import tokens


def request(index: int = 0, prompt_tokens: int = 5, output_tokens: int = 3) -> ScheduledRequest:
    return ScheduledRequest(
        index=index, due_seconds=0.0, prompt_tokens=prompt_tokens, output_tokens=output_tokens
    )


def test_a_chat_of_words() -> None:
    """N words are N tokens to the emulated engine."""
    body = json.loads(WordPrompts('m"1', seed=1).body(request(prompt_tokens=1234), stream=True))
    assert body["model"] == 'm"1'
    assert len(tokens.tokenize_chat(body["messages"])) == 1234
    assert (body["max_tokens"], body["stream"]) == (3, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "ignore_eos" not in body


def test_a_completion_of_ids() -> None:
    """Ids inside the bounds, `ignore_eos` set."""
    source = TokenIdPrompts("m", vocabulary_size=2048, first_id=10, seed=1)
    body = json.loads(source.body(request(prompt_tokens=1234), stream=False))
    assert len(body["prompt"]) == 1234
    assert min(body["prompt"]) >= 10
    assert max(body["prompt"]) < 2048
    assert (body["ignore_eos"], body["stream"]) == (True, False)
    assert "stream_options" not in body


@pytest.mark.parametrize("source", [WordPrompts("m"), TokenIdPrompts("m", vocabulary_size=99)])
def test_prompts_longer_than_the_corpus(source: prompts.PromptSource) -> None:
    """They go round, and still have the exact length."""
    count = 2 * prompts.CORPUS_TOKENS + 17
    body = json.loads(source.body(request(index=3, prompt_tokens=count), stream=True))
    found = body["prompt"] if "prompt" in body else body["messages"][0]["content"].split(" ")
    assert len(found) == count


def test_prompts_differ() -> None:
    """Between requests and between seeds; equal seeds repeat."""
    first, same, other = WordPrompts("m", seed=1), WordPrompts("m", seed=1), WordPrompts("m", seed=2)
    bodies = {first.body(request(index=index), stream=True) for index in range(500)}
    assert len(bodies) == 500
    assert first.body(request(index=7), stream=True) == same.body(request(index=7), stream=True)
    assert first.body(request(index=7), stream=True) != other.body(request(index=7), stream=True)


def test_expected_answers_are_the_engines() -> None:
    """What the emulated engine answers to the very bytes that are sent."""
    words = WordPrompts("m")
    body = json.loads(words.body(request(), stream=True))
    assert words.expected_text(request()) == tokens.expected_text_for_messages(body["messages"], 3)
    ids = TokenIdPrompts("m", vocabulary_size=2048)
    body = json.loads(ids.body(request(), stream=True))
    assert ids.expected_text(request()) == tokens.expected_text(body["prompt"], 3)


def test_an_empty_range_of_ids_is_refused() -> None:
    """The message has both numbers."""
    with pytest.raises(ValueError, match="first_id 5 and vocabulary_size 5"):
        TokenIdPrompts("m", vocabulary_size=5, first_id=5)


@pytest.mark.parametrize(
    ("received", "is_complete", "fault"),
    [
        ("a b c d", True, None),
        ("a b", False, None),
        ("", False, None),
        ("a b", True, "2 tokens instead of 4, the rest is missing"),
        ("a c d", True, "token 1 is 'c' instead of 'b'"),
        ("a b b c d", True, "token 2 is 'b' instead of 'c'"),
        ("a x", False, "token 1 is 'x' instead of 'b'"),
        ("a b c d d", True, "5 tokens instead of 4"),
        ("a b c d e", False, "5 tokens instead of 4"),
        ("a b  c d", True, "the words are right, the white space is not"),
    ],
)
def test_corruption_names_the_token(received: str, is_complete: bool, fault: str | None) -> None:
    """Lost, repeated and foreign tokens; a beginning is right only for a broken-off answer."""
    assert corruption("a b c d", received, is_complete=is_complete) == fault
