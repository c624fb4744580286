"""Errors in OpenAI's shape."""

from __future__ import annotations

import json

from gateway.errors import anthropic_body, error_body, error_event, speaks_anthropic


def test_an_error_has_openais_four_fields() -> None:
    """Clients read `error.message`, `.type`, `.param` and `.code`."""
    assert json.loads(error_body("m", type="t", code="c")) == {
        "error": {"message": "m", "type": "t", "param": None, "code": "c"}
    }


def test_an_error_event_is_one_whole_event() -> None:
    """It can be written into a stream as it is."""
    event = error_event("m", type="t")
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2


def test_anthropic_s_shape_has_its_types_and_keeps_the_code() -> None:
    """By status; what is no error of OpenAI's stays as it is."""
    body = error_body("m", type="server_error", code="no_power")
    assert json.loads(anthropic_body(503, body)) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "m", "code": "no_power"},
    }
    kinds = {
        status: json.loads(anthropic_body(status, body))["error"]["type"] for status in (400, 404, 415, 500)
    }
    assert kinds == {
        400: "invalid_request_error",
        404: "not_found_error",
        415: "invalid_request_error",
        500: "api_error",
    }
    for other in (b"no json", b'{"type":"error","error":{"type":"x"}}', b"[]", b'{"detail":"Not Found"}'):
        assert anthropic_body(400, other) is other


def test_only_the_messages_paths_speak_it() -> None:
    """Not what merely begins like them."""
    assert speaks_anthropic("/v1/messages")
    assert speaks_anthropic("/v1/messages/count_tokens")
    assert not speaks_anthropic("/v1/messages2")
