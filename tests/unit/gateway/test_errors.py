"""Errors in OpenAI's shape."""

from __future__ import annotations

import json

from gateway.errors import error_body, error_event


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
