"""What a site's answer says beside its content."""

from __future__ import annotations

import pytest

from router.live.site_answers import error_status, grammar_of, is_aborted, is_message_aborted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"choices":[{"finish_reason":"abort"}]}', True),
        (b'{"choices":[{"finish_reason": "error"}]}', True),
        (b'{"choices":[{"finish_reason":"stop"}]}', False),
        (b'{"choices":[{"finish_reason":["abort"]},{"finish_reason":"abort"}]}', True),
        (
            b'{"choices":[{"message":{"content":"\\"finish_reason\\":\\"abort\\""},"finish_reason":"stop"}]}',
            False,
        ),
        (b'{"finish_reason":"abort"}', False),
        (b'"finish_reason":"abort"', False),
        (b"", False),
    ],
)
def test_an_aborted_answer_is_told_by_its_choices(body: bytes, expected: bool):
    """Not by its text."""
    assert is_aborted(body, 1) is expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 503}, 503),
        ({"code": "400"}, 400),
        ({"code": "x"}, 500),
        ({"code": "²²²"}, 500),
        ({"code": "4" * 5000}, 500),
        ({"code": 200}, 500),
        ("x", 500),
        ({}, 500),
    ],
)
def test_the_status_of_an_error_event(error: object, status: int):
    """500 where it does not say."""
    assert error_status(error) == status


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"type":"message","content":[]}', True),
        (b'{"type":"message","stop_reason":null}', True),
        (b'{"type":"message","stop_reason":"end_turn"}', False),
        (b'{"input_tokens":4}', False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_an_aborted_message_has_no_stop_reason(body: bytes, expected: bool):
    """vLLM leaves it out of a request that it gave up."""
    assert is_message_aborted(body) is expected


@pytest.mark.parametrize(
    ("answer", "grammar"),
    [
        (
            b'{"sampling_params":{"structured_outputs":{"json":null,"structural_tag":"x","_backend":"y"}}}',
            b'{"structural_tag":"x"}',
        ),
        (b'{"sampling_params":{"max_tokens":5}}', b""),
        (b'{"sampling_params":{"structured_outputs":null}}', b""),
        (b'{"sampling_params":{"structured_outputs":5}}', None),
        (b'{"sampling_params":5}', None),
        (b'{"token_ids":[1]}', None),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_which_grammar_an_engine_has(answer: bytes, grammar: bytes | None):
    """What it has for itself is left out; what is no answer of that path says nothing."""
    assert grammar_of(answer) == grammar
